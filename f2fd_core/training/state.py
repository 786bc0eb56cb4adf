"""A training at some step: its data, network, optimizer and noise, and what one step does to them.

Every random number of step n comes from (seed, n), so a resumed run repeats what an uninterrupted
one would have done without storing generator states.
"""

import copy
import math

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from f2fd_core import fourier
from f2fd_core.config import START_PERTURBATIONS, UserError
from f2fd_core.data.batches import batch_of, sampled_patches
from f2fd_core.data.patches import PatchOrder
from f2fd_core.evaluation import metrics
from f2fd_core.network import checkpoint, unet
from f2fd_core.perturbation import perturbation_for_training
from f2fd_core.runtime import console, distributed
from f2fd_core.runtime.device import autocast, compiled, runs_asynchronously, seed_dropout
from f2fd_core.runtime.randomness import Randomness, derived_seed
from f2fd_core.runtime.run_folder import scales
from f2fd_core.runtime.workers import Prefetcher
from f2fd_core.training import optimizer
from f2fd_core.training.loss import training_loss
from f2fd_core.training.schedule import Schedule, averaging_over
from f2fd_core.training.stopping import (
    CHECK_EVERY,
    MOST_STEPS,
    EarlyStopping,
    ValidationCubes,
    limits,
    too_much,
)

STEP_STREAM = 3
INITIAL_STREAM = 4
SETBACK_RATE = 0.3


class Diverged(ArithmeticError):
    """The loss or the weights are no longer finite."""


class Training:
    """A training under way: network, optimizer, data and the number of steps done."""

    def __init__(self, config, volumes, truths, device, dtype, group=distributed.SINGLE_PROCESS):
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
        self.averaged = (
            AveragedModel(self.network, multi_avg_fn=averaging_over(config.averaging))
            if config.averaging
            else None
        )
        self.validation = ValidationCubes(self.shapes, patches, config.patch_size, config.seed)
        # What the pairs of the other perturbations have in common makes their loss dishonest.
        self.held_out = (
            self.validation
            if (config.automatic() or config.perturbation in START_PERTURBATIONS)
            else None
        )
        # ``last``: with the check after the last step, which only the choice of the model knows.
        self.best, self.last = EarlyStopping(), None
        self.loss_of = training_loss(config)
        self.perturbations = [
            perturbation_for_training(volume, config, device) for volume in volumes
        ]
        self.schedule = Schedule(
            self.optimizer,
            config,
            self.steps,
            min(perturbation.haste for perturbation in self.perturbations),
            len(patches) / config.batch_size,
        )
        self.ahead = Prefetcher(self.prepare, runs_asynchronously(device))
        self.step, self.stopped, self.setbacks = 0, False, 0

    def begin(self):
        """Take over the weights to start from.

        Returns the voxel size (Å) at which the initial model was trained, None without one. Raises
        UserError if its network is another one.
        """
        if self.config.initial_model:
            return self.start_from(self.config.initial_model)
        if self.config.starts_pretrained():
            self.start_from(checkpoint.PRETRAINED)
            self.choose_contrast()
        return None

    def start_from(self, path):
        """Begin with the weights of a model file; returns the voxel size (Å) of its training.

        Raises UserError if it has another network.
        """
        state = checkpoint.load(path)
        network, trained = checkpoint.restore(state, path)
        for name, here, there in (
            ("network", self.config.network, trained.network),
            ("features", self.config.network_features(), trained.network_features()),
        ):
            if here != there:
                raise UserError(
                    f"--{name} is {here}; expected {there} as in the initial model {path}"
                )
        for own in {self.network, self.model()}:
            own.load_state_dict(network.state_dict())
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
        for own in {self.network, self.model()}:
            own.invert()

    def model(self):
        """The network whose predictions count: with averaged weights, if they are averaged."""
        return self.averaged.module if self.averaged else self.network

    def state_dict(self):
        """What a checkpoint holds beyond the model and the settings."""
        return dict(
            network=self.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            shapes=self.shapes,
            scales=scales(self.volumes),
            setbacks=self.setbacks,
            best=self.best.state_dict(),
            noise=[perturbation.state_dict() for perturbation in self.perturbations]
            if self.matched()
            else [],
        )

    def load_state_dict(self, state, earlier):
        """Take over a checkpoint's ``state``, written under the TrainConfig ``earlier``."""
        self.model().load_state_dict(state["model"])
        self.network.load_state_dict(state["network"])
        if self.averaged:
            self.averaged.n_averaged.fill_(state["step"])
        best = EarlyStopping()
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
        reached = (
            self.best.should_stop(self.step, epochs, self.config.pretrained())
            if self.steps is None
            else self.step >= self.steps
        )
        return reached or self.schedule.stops()

    def matched(self):
        """Whether the pairs are noise-matched, so that there is an estimate of the noise."""
        return self.config.perturbation == "noise_matched"

    def check_due(self):
        """Whether a check belongs after the step just done, whatever number of steps is asked
        for."""
        return self.step % CHECK_EVERY == 0 or (
            self.steps is None and self.step == self.most_steps()
        )

    def checkpoint_due(self):
        """Whether a checkpoint belongs after the step just done."""
        return self.step % self.config.checkpoint_every == 0 or self.finished()

    def validated(self, everywhere=False):
        """The model's :class:`~f2fd_core.training.stopping.Check` on parts that are held out."""
        return self.group.broadcast(
            self.validation.check(
                self.model(), self.perturbations, self.device, self.dtype, everywhere
            )
        )

    def check(self):
        """What :meth:`validated` finds, remembered if it is the best; the noise is lowered where
        the network shows that it was taken for too much."""
        found = self.validated()
        self.best.update(found.loss, found.power, self.step, self.model())
        for index, response in found.responses.items():
            self._lower_noise(self.perturbations[index], response)
        return found

    def check_the_end(self):
        """What :meth:`validated` finds after the last step, for the choice of the model alone: a
        training that goes on from here is as if it had not been looked at."""
        found = self.validated()
        self.last = copy.copy(self.best)
        self.last.update(found.loss, found.power, self.step, self.model())
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
            console.say(
                f"{perturbation.volume.source.name}: between {wrong[0]:.2f} and "
                f"{wrong[-1]:.2f} cycles per voxel the noise was taken for too much; it "
                f"is lowered there, to {factors.min():.2f} times at least"
            )

    def prepare(self, step):
        """This process's part of a step's patches, as a :class:`Batch`."""
        patches = self.group.shard(self.order.batch(step))
        for index in sorted({index for _, (index, _) in patches}):
            self.perturbations[index].at_step(step)
        randoms = [
            Randomness.of(self.device, self.config.seed, STEP_STREAM, step, number)
            for number, _ in patches
        ]
        return batch_of(
            [patch for _, patch in patches],
            self.volumes,
            self.perturbations,
            self.truths,
            self.config,
            self.held_out,
            randoms,
        )

    def take_step(self):
        """One step of the optimizer; returns its loss, learning rate, voxels and scores."""
        batch = self.ahead.get(self.step)
        if (self.step + 1) % CHECK_EVERY:  # a check may change the noise
            self.ahead.prefetch(self.step + 1)
        seed_dropout(
            self.device, derived_seed(self.config.seed, STEP_STREAM, self.step, self.group.rank)
        )
        with autocast(self.dtype, self.device):
            prediction = self.forward(batch.inputs.contiguous(memory_format=torch.channels_last_3d))
        prediction = prediction.float()
        loss = self.loss_of(prediction, batch.targets, batch.weights)
        total = self.config.batch_size * self.config.samples_per_patch
        # What counts here, of what counts in all processes: voxels or, in the L2 norm, patches.
        counted = (
            float(batch.weights.sum())
            if (self.config.loss == "mse" and batch.weights is not None)
            else len(batch.inputs)
        )
        share = counted / max(self.group.all_reduce_sum(counted, self.device), 1e-30)
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes; with this factor, over the patches.
        (loss * share * self.group.size).backward()
        mean = self.group.all_reduce_sum(share * loss.item(), self.device)
        if not math.isfinite(mean):
            raise Diverged(f"the loss became {mean} at step {self.step}")
        if self.config.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.ahead.join()  # what follows may use the perturbations
        if self.averaged:
            self.averaged.update_parameters(self.network)
        ended = self.order.epochs_before(self.step + 1) > self.order.epochs_before(self.step)
        self.schedule.after_step(mean, ended)
        row = {"loss": mean, "learning_rate": rate, "voxels": total * self.config.patch_size**3}
        if batch.truth is not None:
            row.update(metrics.training_scores(prediction.detach(), batch.inputs, batch.truth))
        return row
