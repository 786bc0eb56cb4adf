"""A training from its first step to its last, to be read downwards."""

import copy
import math
import os
import time

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.config import START_PERTURBATIONS
from f2fd_core.evaluation import metrics
from f2fd_core.runtime import console
from f2fd_core.runtime.device import autocast, seed_dropout
from f2fd_core.runtime.randomness import Stream, derived_seed
from f2fd_core.training.stopping import CHECK_EVERY
from f2fd_core.training.teaching import taught
from f2fd_core.training.validation import noise_factors

# So often (steps) several processes look for the file that ends a training.
STOP_EVERY = 10


class Diverged(ArithmeticError):
    """The loss or the weights are no longer finite."""


def fit(training, writer=None):
    """Take all remaining steps of a training.

    Parameters
    ----------
    training : Training
        Changed in place, see :class:`~f2fd_core.training.state.Training`.
    writer : optional
        In one of its processes: ``after_step(row, seconds)`` is called after each step with the row
        of the log, a dictionary; see :class:`~f2fd_core.training.writer.Writer`.

    Raises
    ------
    Diverged
        If the loss or the weights are no longer finite.
    """
    training.network.train()
    while not training.finished():
        began = time.monotonic()
        known = training.step == 0 and training.config.pretrained()
        validation = validate(training) if known else None
        row = train_step(training)
        training.step += 1
        if training.validation_due():
            validation = validate(training)
        elif training.step == training.steps:
            validation = validate_at_the_end(training)
        row.update(in_the_log(validation, training.config))
        training.stopped = stop_is_asked(training)
        if training.checkpoint_due():
            refuse_divergence(training)
        if writer:
            writer.after_step(row, time.monotonic() - began)


def train_step(training):
    """One step of the optimizer; returns its loss, learning rate, voxels and scores."""
    config, group, device, step = training.config, training.group, training.device, training.step
    batch = taught(training, training.prefetcher.get(step))
    if (step + 1) % CHECK_EVERY:  # a validation may change the noise
        training.prefetcher.prefetch(step + 1)
    seed_dropout(device, derived_seed(config.seed, Stream.STEP, step, group.rank))
    with autocast(training.dtype, device):
        prediction = training.forward(batch.inputs.contiguous(memory_format=torch.channels_last_3d))
    prediction = prediction.float()
    loss = training.loss_of(prediction, batch.targets, batch.weights)
    # What counts here, of what counts in all processes: voxels or, in the L2 norm, patches.
    by_voxel = config.loss == "mse" and batch.weights is not None
    counted = float(batch.weights.sum()) if by_voxel else len(batch.inputs)
    share = counted / max(group.all_reduce_sum(counted, device), 1e-30)
    training.optimizer.zero_grad(set_to_none=True)
    # Gradients are averaged over the processes; with this factor, over the patches.
    (loss * share * group.size).backward()
    mean = group.all_reduce_sum(share * loss.item(), device)
    if not math.isfinite(mean):
        raise Diverged(f"the loss became {mean} at step {step}")
    if config.gradient_clip:
        torch.nn.utils.clip_grad_norm_(training.network.parameters(), config.gradient_clip)
    rate = training.optimizer.param_groups[0]["lr"]
    training.optimizer.step()
    training.prefetcher.join()  # what follows may use the perturbations
    if training.averaged:
        training.averaged.update_parameters(training.network)
    order = training.order
    training.schedule.after_step(mean, order.epochs_before(step + 1) > order.epochs_before(step))
    row = {
        "loss": mean,
        "learning_rate": rate,
        "voxels": config.batch_size * config.samples_per_patch * config.patch_size**3,
    }
    if batch.truth is not None:
        row.update(metrics.training_scores(prediction.detach(), batch.inputs, batch.truth))
    return row


def validation_of(training, everywhere=False):
    """The :class:`~f2fd_core.training.validation.Validation` of the model."""
    return training.group.broadcast(
        training.cubes.validate(
            training.model(), training.perturbations, training.device, training.dtype, everywhere
        )
    )


def validate(training):
    """Validate the model, remember it if it is the best, and lower the noise where the network
    shows that it was taken for too much; None where no validation is known to be right."""
    if not training.validated:
        return None
    found = validation_of(training)
    training.best.update(found.loss, found.power, training.step, training.model())
    for index, response in found.responses.items():
        lower_noise(training, training.perturbations[index], response)
    return found


def validate_at_the_end(training):
    """Validate after the last step, for the choice of the model alone: a training that goes on from
    here is as if it had not been validated."""
    if not training.validated:
        return None
    found = validation_of(training)
    training.last = copy.copy(training.best)
    training.last.update(found.loss, found.power, training.step, training.model())
    return found


def chosen_model(training):
    """(weights, step) of what a training hands out.

    It is the best model of a training that ends by itself, or that did not make the network better;
    else the last. If the network that it began with finds more of hidden Fourier coefficients, and
    half-maps do not know better, it is that: Stein's estimate errs where the noise does.
    """
    best = training.last or training.best
    weights, step = best.model, best.step
    if weights is None or not training.config.automatic() and best.has_gained():
        weights, step = training.model().state_dict(), training.step
    if not step or best.start is None or training.independent or not training.matched():
        return weights, step
    network, found = copy.deepcopy(training.model()), []
    for candidate in (best.start, weights):
        network.load_state_dict(candidate)
        found.append(
            training.cubes.share_found(
                network, training.perturbations, training.device, training.dtype
            )
        )
    at_the_start, now = found
    return (best.start, 0) if at_the_start > now else (weights, step)


def lower_noise(training, perturbation, response):
    """Lower the noise of a perturbation in the Fourier shells of a patch where the ``response`` to
    it is negative: there the network would turn the sign of what is weak."""
    factors = noise_factors(response, perturbation.scale)
    if (factors == 1).all():
        return
    frequencies = fourier.grid_of((training.config.patch_size,) * 3).frequencies
    own = fourier.grid_of(perturbation.noise.window).frequencies
    perturbation.lower(torch.from_numpy(np.interp(own, frequencies, factors)))
    wrong = frequencies[(factors < 1) & (frequencies <= 0.5)]  # not the corners of the grid
    if training.group.rank == 0 and len(wrong):
        low, high = (f"{float(frequency):.2f}" for frequency in (wrong[0], wrong[-1]))
        console.say(
            f"{perturbation.volume.source.name}: "
            f"{f'at {low}' if low == high else f'between {low} and {high}'} cycles "
            "per voxel the noise was overestimated; it is lowered there, to "
            f"{factors.min():.2f} times at least"
        )


def in_the_log(validation, config):
    """What a row of the log has of a validation; nothing if it is None."""
    if validation is None:
        return {}
    row = {"validation_loss": validation.loss}
    if config.perturbation in START_PERTURBATIONS:
        row["explained_power"] = validation.power - validation.loss
        row["signal_power"] = validation.signal
    return row


def stop_is_asked(training):
    """Whether the file is there that ends a training."""
    if training.group.size > 1 and training.step % STOP_EVERY:
        return training.stopped
    return training.group.broadcast(os.path.exists(training.stop))


def refuse_divergence(training):
    """Raise :class:`Diverged` if a weight is not finite."""
    if not all(torch.isfinite(weight).all() for weight in training.network.parameters()):
        raise Diverged(f"the weights became infinite or NaN at step {training.step - 1}")
