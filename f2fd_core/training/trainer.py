"""The steps of a training, one after the other, until it is finished."""

import os
import time

import torch

from f2fd_core.config import START_PERTURBATIONS
from f2fd_core.runtime.run_folder import stop_file
from f2fd_core.training.state import Diverged

STOP_EVERY = 10


def fit(training, writer=None):
    """Take all remaining steps of a :class:`~f2fd_core.training.state.Training`.

    ``writer``, in one of its processes, is told of each: a
    :class:`~f2fd_core.training.writer.Writer`. Raises :class:`~f2fd_core.training.state.Diverged`.
    """
    training.network.train()
    while not training.finished():
        began = time.monotonic()
        row = next_step(training)
        if writer:
            writer.after_step(row, time.monotonic() - began)


def next_step(training):
    """One step with what belongs to it: a check before the first, now and then, and after the last.
    Returns the row of the log."""
    found = None
    if training.step == 0 and training.config.pretrained() and training.held_out:
        found = training.check()
    row = training.take_step()
    training.step += 1
    if training.held_out and training.check_due():
        found = training.check()
    elif training.held_out and training.step == training.steps:
        found = training.check_the_end()
    if found:
        row["validation_loss"] = found.loss
        if training.config.perturbation in START_PERTURBATIONS:
            row.update(explained_power=found.power - found.loss, signal_power=found.signal)
    if training.group.size == 1 or training.step % STOP_EVERY == 0:
        training.stopped = training.group.broadcast(
            os.path.exists(stop_file(training.config.output))
        )
    if training.checkpoint_due() and not all(
        torch.isfinite(weight).all() for weight in training.network.parameters()
    ):
        raise Diverged(f"the weights became infinite or NaN at step {training.step - 1}")
    return row
