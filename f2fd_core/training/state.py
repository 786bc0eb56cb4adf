"""A training at some step: its data, network, optimizer, schedule, noise, and best model so far.

Every random number of step n comes from (seed, n), so a resumed run repeats what an uninterrupted
one would have done without storing generator states.
"""

import torch
from torch.optim.swa_utils import AveragedModel

from f2fd_core.config import START_PERTURBATIONS
from f2fd_core.data.batches import batch_of, sampled_patches, sampling_masks
from f2fd_core.data.patches import PatchOrder
from f2fd_core.network import checkpoint, unet
from f2fd_core.perturbation import perturbation_for_training
from f2fd_core.runtime import distributed
from f2fd_core.runtime.device import compiled, runs_asynchronously
from f2fd_core.runtime.randomness import Randomness, Stream, derived_seed
from f2fd_core.runtime.run_folder import scales, stop_file
from f2fd_core.runtime.workers import Prefetcher
from f2fd_core.training import optimizer
from f2fd_core.training.loss import training_loss
from f2fd_core.training.schedule import Schedule, averaging_over
from f2fd_core.training.stopping import CHECK_EVERY, MOST_STEPS, EarlyStopping, limits
from f2fd_core.training.validation import ValidationCubes

SETBACK_RATE = 0.3


class Training:
    """A training under way: network, optimizer, data and the number of steps done."""

    def __init__(
        self,
        config,
        volumes,
        truths,
        device,
        dtype,
        group=distributed.SINGLE_PROCESS,
        perturbation_of=perturbation_for_training,
    ):
        """``perturbation_of``: makes the perturbation of a volume, given it, the configuration and
        the device."""
        self.config, self.volumes, self.truths = config, volumes, truths
        self.device, self.dtype, self.group = device, dtype, group
        self.checkpoints = checkpoint.folder_in(config.output)
        self.shapes = [list(volume.shape) for volume in volumes]
        self.voxel_size = volumes[0].voxel_size
        torch.manual_seed(derived_seed(config.seed, Stream.INITIAL_WEIGHTS))
        self.network = unet.build(config).to(device, memory_format=torch.channels_last_3d)
        self.forward = group.parallel(self.network, device)
        if config.compile:
            self.forward = compiled(self.forward, device)
        self.optimizer = optimizer.build(config, self.network, device)
        self.masks = sampling_masks(config, volumes)
        patches = sampled_patches(config, volumes, self.masks)
        self.order = PatchOrder(patches, config.batch_size, config.seed)
        self.steps = self.order.steps(config.epochs) if config.epochs else config.steps or None
        self.averaged = (
            AveragedModel(self.network, multi_avg_fn=averaging_over(config.averaging))
            if config.averaging
            else None
        )
        self.cubes = ValidationCubes(self.shapes, patches, config.patch_size, config.seed)
        # ``last``: with the validation after the last step, for the choice of the model alone.
        self.best, self.last = EarlyStopping(), None
        self.loss_of = training_loss(config)
        self.perturbations = [perturbation_of(volume, config, device) for volume in volumes]
        # Then the loss on held-out parts shows overfitting, and epochs need not be limited.
        self.independent = all(perturbation.independent for perturbation in self.perturbations)
        # What the pairs of the other perturbations have in common makes their loss dishonest.
        self.validated = all(perturbation.judged for perturbation in self.perturbations) and (
            config.automatic() or config.perturbation in START_PERTURBATIONS
        )
        self.schedule = Schedule(
            self.optimizer,
            config,
            self.steps,
            min(perturbation.haste for perturbation in self.perturbations),
            len(patches) / config.batch_size,
        )
        self.prefetcher = Prefetcher(self.batch, runs_asynchronously(device))
        self.step, self.stopped, self.setbacks = 0, False, 0
        # The file that ends it: of several trainings that make one model, that of the whole.
        self.stop = stop_file(config.output)

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
        if self.independent:
            return MOST_STEPS
        least, epochs = limits(self.config.pretrained())
        return min(MOST_STEPS, max(least, self.order.steps(epochs)))

    def finished(self):
        """Whether no step is left to take."""
        if self.stopped:
            return True
        epochs = 0 if self.independent else self.order.epochs_before(self.step)
        reached = (
            self.best.should_stop(self.step, epochs, self.config.pretrained())
            if self.steps is None
            else self.step >= self.steps
        )
        return reached or self.schedule.stops()

    def matched(self):
        """Whether the pairs are noise-matched, so that there is an estimate of the noise."""
        return self.config.perturbation == "noise_matched"

    def validation_due(self):
        """Whether a validation belongs after the step just done, whatever number of steps is asked
        for."""
        return self.step % CHECK_EVERY == 0 or (
            self.steps is None and self.step == self.most_steps()
        )

    def checkpoint_due(self):
        """Whether a checkpoint belongs after the step just done."""
        return self.step % self.config.checkpoint_every == 0 or self.finished()

    def batch(self, step):
        """This process's part of a step's patches, a :class:`~f2fd_core.data.batches.Batch`."""
        patches = self.group.shard(self.order.batch(step))
        for index in sorted({index for _, (index, _) in patches}):
            self.perturbations[index].at_step(step)
        randoms = [
            Randomness.of(self.device, self.config.seed, Stream.STEP, step, number)
            for number, _ in patches
        ]
        return batch_of(
            [patch for _, patch in patches],
            self.volumes,
            self.perturbations,
            self.truths,
            self.config,
            self.cubes if self.validated else None,
            randoms,
        )
