"""Training, from top to bottom: tomograms -> pairs of perturbed patches -> network -> model file.

Every random number of step n comes from (seed, n), so a resumed run repeats what an
uninterrupted one would have done without storing generator states.
"""
import contextlib
import gc
import math
import os
import time

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from f2fd_core import (
    checkpoint,
    distributed,
    estimate,
    files,
    fourier,
    metrics,
    optimizer,
    report,
    unet,
)
from f2fd_core.batches import batch_of, open_ground_truth, sampled_patches
from f2fd_core.config import NETWORK_MULTIPLE, START_PERTURBATIONS, UserError
from f2fd_core.denoising import Predictor, preview
from f2fd_core.device import (
    arithmetic,
    autocast,
    choose_devices,
    compiled,
    prepare_cpu,
    repeatable,
    seed_dropout,
    works_apart,
)
from f2fd_core.loss import training_loss
from f2fd_core.patches import PatchOrder
from f2fd_core.perturbation import perturbation_for_training
from f2fd_core.randomness import Randomness, derived_seed
from f2fd_core.run_folder import (
    compare,
    prepare_folder,
    present_results,
    record,
    scales,
    sole_run,
    stop_file,
    withdraw_stop,
)
from f2fd_core.schedule import Schedule, averaging_over
from f2fd_core.stopping import CHECK_EVERY, MOST_STEPS, Best, HeldOut, limits, too_much
from f2fd_core.volume import open_volumes, warn_of_voxel_sizes
from f2fd_core.workers import Ahead

STEP_STREAM = 3
INITIAL_STREAM = 4
PREVIEW_PREDICTIONS = 2
STOP_EVERY = 10
# Seconds without pictures for each that they take: on a fast GPU, drawing them at every checkpoint
# would take as long as the steps.
PAUSE_OF_DRAWING = 9.0
MOST_SETBACKS, SETBACK_RATE = 3, 0.3
# The pretrained starting weights, made by benchmarks/start.py.
SHAPES = os.path.join(os.path.dirname(__file__), "start.pt")


class Diverged(ArithmeticError):
    """The loss or the weights are no longer finite."""


def open_for_training(config, group=distributed.ALONE, resumes=False):
    """A :class:`Training` at its first step, in the process's own random state.

    ``group``: the processes that train together; ``resumes``: whether there is a checkpoint to go
    on from, which is not opened yet. Raises UserError for bad input, before anything is written.
    """
    device = group.device(choose_devices(config.device), config.device)
    dtype = arithmetic(config.precision, device,
                       config.patch_size // NETWORK_MULTIPLE[config.network])
    volumes = open_volumes(config)
    warn_of_voxel_sizes(volumes, volumes[0].voxel_size, "%s has" % volumes[0].source.path)
    training = Training(config, volumes, open_ground_truth(config, volumes), device, dtype, group)
    if not resumes:
        training.begin()
    return training


def train(config):
    """Train a model and write it, its log, checkpoints and pictures into ``config.output``.

    With several devices it starts a process for each; started by torchrun or srun, it joins the
    others. Returns the path of model.pt. Raises UserError for bad input (see config for the
    options), if another run writes there, and when the loss does not stay finite: from such a step
    it goes back to the newest checkpoint, with a lower learning rate, MOST_SETBACKS times.
    """
    devices = choose_devices(config.device)
    with distributed.joined(devices[0].type == "cuda") as group:
        size = group.size if group.size > 1 else len(devices)
        config.check_devices(size)
        if group.size < size:
            distributed.start(train, config, size)
        else:
            _train_in(group, config)
    return os.path.join(config.output, "model.pt")


def _train_in(group, config):
    """The whole of a training in one of its processes."""
    prepare_cpu(config.threads)
    results = files.results_among(config.tomograms)
    if results:
        raise UserError("%s is, by its name, a result of another of the tomograms; expected it "
                        "left out" % results[0])
    if group.rank == 0:
        present_results(config)
    with repeatable(config.deterministic), contextlib.ExitStack() as stack:
        training = open_for_training(config, group,
                                     config.resume and checkpoint.present(config.output))
        if group.rank == 0:
            stack.enter_context(sole_run(config))
            prepare_folder(config)
        group.agreed(None)  # nobody looks into the folder before it is prepared
        report.announce_devices([training.device], training.dtype, "training")
        if config.resume:
            training.resume()
        if group.rank == 0:
            record(config)
        while True:
            try:
                training.run()
                break
            except Diverged as error:
                setbacks = training.setbacks + 1
                if setbacks > MOST_SETBACKS:
                    raise UserError("%s, after %d lower learning rates; expected finite ones: try "
                                    "--precision float32 or a lower --learning-rate than %g"
                                    % (error, MOST_SETBACKS, config.learning_rate))
                if group.rank == 0:
                    report.warn("%s; going back, with a learning rate of %g times %g"
                                % (error, SETBACK_RATE ** setbacks, config.learning_rate))
            except torch.cuda.OutOfMemoryError:
                raise UserError("the memory of %s does not suffice for a step of %d patches of %d "
                                "voxels; expected a smaller --batch-size, --samples-per-patch or "
                                "--patch-size" % (training.device, config.batch_size
                                                  * config.samples_per_patch, config.patch_size))
            training = None  # there may be no room for two; it refers to itself
            gc.collect()
            training = open_for_training(config, group, checkpoint.present(config.output))
            training.resume()
            training.slow_down(setbacks)
        if group.rank == 0:
            training.save_model()
            withdraw_stop(config.output)


class Training:
    """A training under way: network, optimizer, data and the number of steps done."""

    def __init__(self, config, volumes, truths, device, dtype, group=distributed.ALONE):
        self.config, self.volumes, self.truths = config, volumes, truths
        self.device, self.dtype, self.group = device, dtype, group
        self.checkpoints = checkpoint.folder_in(config.output)
        self.shapes = [list(volume.shape) for volume in volumes]
        self.voxel_size = volumes[0].voxel_size
        torch.manual_seed(derived_seed(config.seed, INITIAL_STREAM))
        self.network = unet.build(config).to(device, memory_format=torch.channels_last_3d)
        self.forward = group.parallel(self.network, device)
        if config.compile:
            self.forward = compiled(self.forward, device)
        self.optimizer = optimizer.build(config, self.network, device)
        patches = sampled_patches(config, volumes)
        self.order = PatchOrder(patches, config.batch_size, config.seed)
        self.steps = self.order.steps(config.epochs) if config.epochs else config.steps or None
        self.averaged = AveragedModel(
            self.network, multi_avg_fn=averaging_over(config.averaging)) \
            if config.averaging else None
        self.validation = HeldOut(self.shapes, patches, config.patch_size, config.seed)
        # What the pairs of the other perturbations have in common makes their loss dishonest.
        self.held_out = self.validation if (
            config.automatic() or config.perturbation in START_PERTURBATIONS) else None
        self.best = Best()
        self.loss_of = training_loss(config)
        self.perturbations = [perturbation_for_training(volume, config, device)
                              for volume in volumes]
        self.schedule = Schedule(self.optimizer, config, self.steps, min(
            perturbation.haste for perturbation in self.perturbations),
            len(patches) / config.batch_size)
        self.ahead = Ahead(self.prepare, works_apart(device))
        self.step, self.stopped, self.setbacks = 0, False, 0

    def begin(self):
        """Take over what the network is to know beforehand; raises UserError if it can't."""
        if self.config.initial_model:
            trained = self.start_from(self.config.initial_model)
            warn_of_voxel_sizes(self.volumes, trained, "the initial model was trained at")
        elif self.config.starts_from_shapes():
            self.start_from(SHAPES)
            self.choose_contrast()

    def start_from(self, path):
        """Begin with the weights of a model file; returns the voxel size (Å) of its training.

        Raises UserError if it has another network.
        """
        state = checkpoint.load(path)
        network, trained = checkpoint.restore(state, path)
        for name, here, there in (
                ("network", self.config.network, trained.network),
                ("features", self.config.network_features(), trained.network_features())):
            if here != there:
                raise UserError("--%s is %s; expected %s as in the initial model %s"
                                % (name, here, there, path))
        for copy in {self.network, self.model()}:
            copy.load_state_dict(network.state_dict())
        return state["voxel_size"]

    def choose_contrast(self):
        """Invert the network if it has the lower loss then: it has learned from dark matter only,
        and in these tomograms matter may be bright."""
        losses = []
        for _ in range(2):
            losses.append(self.validated(everywhere=True).loss)
            self.invert()
        dark, bright = losses
        if bright < dark:
            self.invert()

    def invert(self):
        for copy in {self.network, self.model()}:
            copy.invert()

    def model(self):
        """The network whose predictions count: with averaged weights, if they are averaged."""
        return self.averaged.module if self.averaged else self.network

    def resume(self):
        """Continue from the newest checkpoint, if there is one."""
        path, state = checkpoint.newest(self.checkpoints, report.warn)
        if state is None:
            model = os.path.join(self.config.output, "model.pt")
            if os.path.exists(model):
                raise UserError("%s is there, but no checkpoint to resume from; expected one, or "
                                "--overwrite to start anew" % model)
            report.say("no checkpoint in %s yet: starting from the beginning"
                       % self.config.output)
            return
        if "network" not in state:
            raise UserError("%s was written by an older F2Fd, from which a training can't be "
                            "resumed; expected --overwrite, or it as the --initial-model" % path)
        try:
            earlier = compare(state, self.config, self.volumes, path)
            self.load_state_dict(state, earlier)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError("%s is damaged: it is not the state of a training (%s)"
                            % (path, (str(error).splitlines() or [type(error).__name__])[0]))
        report.say("resuming from %s" % path)

    def load_state_dict(self, state, earlier):
        """Take over a checkpoint's ``state``, written under the TrainConfig ``earlier``."""
        self.model().load_state_dict(state["model"])
        self.network.load_state_dict(state["network"])
        if self.averaged:
            self.averaged.n_averaged.fill_(state["step"])
        best = Best()
        best.load_state_dict(state["best"])
        self.best = best
        if self.config.automatic() and not earlier.automatic():
            self.best.wait_from(state["step"])  # nobody waited
        self.slow_down(state.get("setbacks", 0))
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] *= self.config.learning_rate / earlier.learning_rate
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
        if state.get("noise"):
            for perturbation, noise in zip(self.perturbations, state["noise"]):
                perturbation.load_state_dict(noise)

    def slow_down(self, setbacks):
        """Lower the learning rate to that after so many setbacks in all."""
        self.schedule.scale(SETBACK_RATE ** (setbacks - self.setbacks))
        self.setbacks = setbacks

    def most_steps(self):
        """How many steps there will be, at most."""
        if self.steps is not None:
            return self.steps
        least, epochs = limits(self.config.pretrained())
        return min(MOST_STEPS, max(least, self.order.steps(epochs)))

    def finished(self):
        if self.stopped:
            return True
        epochs = self.order.epochs_before(self.step)
        reached = (self.best.reached(self.step, epochs, self.config.pretrained())
                   if self.steps is None else self.step >= self.steps)
        return reached or self.schedule.stops()

    def run(self):
        """All remaining steps; process 0 writes the log, checkpoints and pictures."""
        self.network.train()
        if self.group.rank == 0:
            self._run_and_write()
            return
        while not self.finished():
            self.next_step()

    def _run_and_write(self):
        log = report.TrainLog(os.path.join(self.config.output, "log.csv"), bool(self.truths),
                              self.step)
        estimate_at = self.step + estimate.WARMING_STEPS + estimate.TIMED_STEPS
        first, entered = self.step, time.monotonic()
        started = entered - log.seconds
        if self.step == 0:
            report.say("starting from %s" % self.config.origin())
        if self.matched():
            scales = sorted({"%.2f" % perturbation.scale for perturbation in self.perturbations})
            report.say("noise scale: %s" % " to ".join(sorted({scales[0], scales[-1]})))
            for perturbation in self.perturbations:
                report.say("%s: %s" % (perturbation.volume.source.name,
                                       perturbation.noise.describe()))
        self.draw_spectrum()
        if self.step and not os.path.exists(self.preview()):
            self.draw(log.path)  # the run from which this one goes on was ended before that
        draw_from = 0.0
        with log, report.progress(self.steps, "step", self.step) as bar:
            while not self.finished():
                began = time.monotonic()
                row = self.next_step()
                now = time.monotonic()
                if self.step == estimate_at - estimate.TIMED_STEPS:
                    timed_from = now
                elif self.step == estimate_at:
                    report.say(estimate.of_training(self, (now - timed_from)
                                                    / estimate.TIMED_STEPS))
                log.write(step=self.step - 1, seconds=now - started,
                          voxels_per_second=row.pop("voxels") / (now - began),
                          seconds_left=(self.most_steps() - self.step)
                          * (now - entered) / (self.step - first), **row)
                bar.set_postfix(loss="%.4g" % row["loss"], refresh=False)
                bar.update()
                if self.checkpoint_due():
                    self.save_checkpoint()
                    began = time.monotonic()
                    if began >= draw_from or self.finished():
                        self.draw(log.path)
                        drawn = time.monotonic()
                        draw_from = drawn + PAUSE_OF_DRAWING * (drawn - began)

    def next_step(self):
        """One step with what belongs to it: a check before the first, and after every CHECK_EVERY
        and the last."""
        found = None
        if self.step == 0 and self.config.pretrained() and self.held_out:
            found = self.check()
        row = self.take_step()
        self.step += 1
        if self.held_out and (self.step % CHECK_EVERY == 0 or self.step == self.most_steps()):
            found = self.check()
        if found:
            row["validation_loss"] = found.loss
            if self.config.perturbation in START_PERTURBATIONS:
                row.update(explained_power=found.power - found.loss, signal_power=found.signal)
        if self.group.size == 1 or self.step % STOP_EVERY == 0:
            self.stopped = self.group.agreed(os.path.exists(stop_file(self.config.output)))
        if self.checkpoint_due() and not all(torch.isfinite(weight).all()
                                             for weight in self.network.parameters()):
            raise Diverged("the weights became infinite or NaN at step %d" % (self.step - 1))
        return row

    def checkpoint_due(self):
        """Whether a checkpoint belongs after the step just done."""
        return self.step % self.config.checkpoint_every == 0 or self.finished()

    def validated(self, everywhere=False):
        """The model's :class:`~f2fd_core.stopping.Check` on parts that are held out."""
        return self.group.agreed(self.validation.check(self.model(), self.perturbations,
                                                       self.device, self.dtype, everywhere))

    def check(self):
        """What :meth:`validated` finds, remembered if it is the best; the noise is lowered where
        the network shows that it was taken for too much."""
        found = self.validated()
        self.best.offer(found.loss, found.power, self.step, self.model())
        for index, response in found.responses.items():
            self._lower_noise(self.perturbations[index], response)
        return found

    def _lower_noise(self, perturbation, response):
        """Lower the noise of a perturbation in the Fourier shells of a patch where the ``response``
        to it is negative: there the network would turn the sign of what is weak."""
        factors = too_much(response, perturbation.scale)
        if (factors == 1).all():
            return
        frequencies = fourier.grid_of((self.config.patch_size,) * 3).frequencies
        own = fourier.grid_of(perturbation.noise.window).frequencies
        perturbation.lower(torch.from_numpy(np.interp(own, frequencies, factors)))
        if self.group.rank == 0:
            wrong = frequencies[factors < 1]
            report.say("%s: between %.2f and %.2f cycles per voxel the noise was taken for too "
                       "much; it is lowered there, to %.2f times at least"
                       % (perturbation.volume.source.name, wrong[0], wrong[-1], factors.min()))
            self.draw_spectrum()

    def prepare(self, step):
        """This process's part of a step's patches, as a :class:`Batch`."""
        patches = self.group.share(self.order.batch(step))
        for index in sorted({index for _, (index, _) in patches}):
            self.perturbations[index].at_step(step)
        randoms = [Randomness.of(self.device, self.config.seed, STEP_STREAM, step, number)
                   for number, _ in patches]
        return batch_of([patch for _, patch in patches], self.volumes, self.perturbations,
                        self.truths, self.config, self.held_out, randoms)

    def take_step(self):
        """One step of the optimizer; returns its loss, learning rate, voxels and scores."""
        batch = self.ahead.take(self.step)
        if (self.step + 1) % CHECK_EVERY:  # a check may change the noise
            self.ahead.begin(self.step + 1)
        seed_dropout(self.device, derived_seed(self.config.seed, STEP_STREAM, self.step,
                                               self.group.rank))
        with autocast(self.dtype, self.device):
            prediction = self.forward(batch.inputs.contiguous(memory_format=torch.channels_last_3d))
        prediction = prediction.float()
        loss = self.loss_of(prediction, batch.targets, batch.weights)
        total = self.config.batch_size * self.config.samples_per_patch
        # What counts here, of what counts in all processes: voxels or, in the L2 norm, patches.
        counted = float(batch.weights.sum()) if (
            self.config.loss == "mse" and batch.weights is not None) else len(batch.inputs)
        share = counted / max(self.group.total(counted, self.device), 1e-30)
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes; with this factor, over the patches.
        (loss * share * self.group.size).backward()
        mean = self.group.total(share * loss.item(), self.device)
        if not math.isfinite(mean):
            raise Diverged("the loss became %s at step %d" % (mean, self.step))
        if self.config.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.ahead.wait()  # what follows may use the perturbations
        if self.averaged:
            self.averaged.update_parameters(self.network)
        ended = self.order.epochs_before(self.step + 1) > self.order.epochs_before(self.step)
        self.schedule.after_step(mean, ended)
        row = {"loss": mean, "learning_rate": rate, "voxels": total * self.config.patch_size ** 3}
        if batch.truth is not None:
            row.update(metrics.training_scores(prediction.detach(), batch.inputs, batch.truth))
        return row

    def save_checkpoint(self):
        checkpoint.save(checkpoint.path_of(self.checkpoints, self.step), self.model().state_dict(),
                        self.config, self.step, self.voxel_size, network=self.network.state_dict(),
                        optimizer=self.optimizer.state_dict(),
                        schedule=self.schedule.state_dict(), shapes=self.shapes,
                        scales=scales(self.volumes), setbacks=self.setbacks,
                        best=self.best.state_dict(),
                        noise=[perturbation.state_dict() for perturbation in self.perturbations]
                        if self.matched() else [])

    def save_model(self):
        """Write model.pt and return its path: the best model of a training that ends by itself, or
        that did not make the network better; else the last."""
        weights, step = self.best.model, self.best.step
        if weights is None or not self.config.automatic() and self.best.has_gained():
            weights, step = self.model().state_dict(), self.step
        path = os.path.join(self.config.output, "model.pt")
        noise = [perturbation.noise.by_shell() for perturbation in self.perturbations] \
            if self.matched() else []
        checkpoint.save(path, weights, self.config, step, self.voxel_size, noise=noise)
        report.say("model of step %d written to %s after %d steps" % (step, path, self.step))
        if step == 0 < self.step:
            report.warn("the training did not make the network better than the weights that it "
                        "began with, as far as the tomograms tell: these are the model")
        if self.steps is None and not (self.stopped or self.schedule.stops()
                                       or self.best.waited(self.step)):
            report.say("--steps auto ends after %d steps, %d epochs of the %d patches, though the "
                       "loss may not be flat yet; --resume with a larger number of --steps goes on"
                       % (self.step, self.order.epochs_before(self.step),
                          len(self.order.patches)))
        return path

    def matched(self):
        """Whether the pairs are noise-matched, so that there is an estimate of the noise."""
        return self.config.perturbation == "spectrum"

    def draw_spectrum(self):
        """spectrum.png: what the noise spectrum of the first tomogram is taken to be."""
        if self.matched():
            report.draw_spectrum(self.perturbations[0].noise.by_shell(), self.voxel_size,
                                 os.path.join(self.config.output, "spectrum.png"))

    def preview(self):
        """Path of the picture that belongs to a checkpoint after the present step."""
        return os.path.join(self.config.output, "previews", "step_%08d.png" % self.step)

    def draw(self, log_path):
        """Renew loss.png, slices.png and histogram.png; slices.png is kept for every step."""
        folder = self.config.output
        predictor = Predictor(self.model(), self.device, self.dtype, PREVIEW_PREDICTIONS,
                              PREVIEW_PREDICTIONS, turns=self.config.prediction_turns())
        self.perturbations[0].at_step(self.step)  # a resumed run draws before its first step
        perturbation = self.perturbations[0].for_prediction(PREVIEW_PREDICTIONS)
        before, after = preview(predictor, perturbation, self.volumes[0], self.config)
        self.network.train()
        title = "%s, step %d" % (self.volumes[0].source.name, self.step)
        report.draw_loss(log_path, os.path.join(folder, "loss.png"))
        report.draw_histogram(before, after, os.path.join(folder, "histogram.png"))
        newest = os.path.join(folder, "slices.png")
        report.draw_slices(before, after, newest, title)
        report.copy_picture(newest, self.preview())
