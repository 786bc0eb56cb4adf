"""``f2fd train``: tomograms -> pairs of perturbed patches -> network -> model file.

:mod:`~f2fd_core.training.state` is what a training consists of,
:mod:`~f2fd_core.training.trainer` takes its steps, :mod:`~f2fd_core.training.writer` writes and
says what there is to see of them, and :mod:`~f2fd_core.training.resuming` goes on from a
checkpoint.
"""

import contextlib
import dataclasses
import gc
import os
from typing import Any, Callable, Optional

import torch

from f2fd_core.commands.inputs import open_ground_truth, open_volumes, warn_of_voxel_sizes
from f2fd_core.config import NETWORK_MULTIPLE, TrainConfig, UserError
from f2fd_core.filters.wedge import tilt_range_of
from f2fd_core.network import checkpoint
from f2fd_core.perturbation import perturbation_for_training
from f2fd_core.perturbation.missing_wedge import Lessons
from f2fd_core.runtime import console, distributed, files
from f2fd_core.runtime.device import choose_devices, choose_dtype, prepare_cpu, reproducible
from f2fd_core.runtime.run_folder import (
    ROUNDS,
    exclusive_run,
    existing_results,
    model_in,
    prepare_folder,
    stop_file,
    wedge_folder,
    withdraw_stop,
    write_settings,
)
from f2fd_core.training.resuming import resume
from f2fd_core.training.start import take_initial_weights
from f2fd_core.training.state import SETBACK_RATE, Training
from f2fd_core.training.trainer import Diverged, fit
from f2fd_core.training.writer import Writer

MOST_SETBACKS = 3


def open_for_training(
    config,
    group=distributed.SINGLE_PROCESS,
    resumes=False,
    perturbation_of=perturbation_for_training,
):
    """A :class:`Training` at its first step, in the process's own random state.

    ``group``: the processes that train together; ``resumes``: whether there is a checkpoint to go
    on from, which is not opened yet; ``perturbation_of``: see :class:`Training`. Raises UserError
    for bad input, before anything is written.
    """
    device = group.device(choose_devices(config.device), config.device)
    dtype = choose_dtype(
        config.precision, device, config.patch_size // NETWORK_MULTIPLE[config.network]
    )
    volumes = open_volumes(config)
    if config.fill_wedge:
        for volume in volumes:  # a tomogram without a wedge is refused before anything is trained
            tilt_range_of(volume, config.tilt_range)
    training = Training(
        config, volumes, open_ground_truth(config, volumes), device, dtype, group, perturbation_of
    )
    if not resumes:
        trained_at = take_initial_weights(training)
        if trained_at:
            warn_of_voxel_sizes(volumes, trained_at, "initial model", remedy="")
    return training


def train(config: TrainConfig, finished: Optional[Callable[[Any], None]] = None) -> str:
    """Train a model and write it, its log, checkpoints and pictures into ``config.output``.

    With several devices it starts a process for each; started by torchrun or srun, it joins the
    others. From a step at which the loss is not finite it goes back to the newest checkpoint, with
    a lower learning rate, MOST_SETBACKS times.

    Parameters
    ----------
    config : TrainConfig
    finished : callable, optional
        Called at the end with the standardised tomograms, or None where other processes have
        opened them.

    Returns
    -------
    str
        The path of model.pt.

    Raises
    ------
    UserError
        For bad input, naming the option or file, if another run writes there, and when the loss
        does not stay finite.

    References
    ----------
    Lehtinen et al., ICML 2018 (Noise2Noise); Pang et al., CVPR 2021 (Recorrupted-to-Recorrupted).
    """
    devices = choose_devices(config.device)
    with distributed.joined(devices[0].type == "cuda") as group:
        size = group.size if group.size > 1 else len(devices)
        config.check_devices(size)
        if group.size < size:
            distributed.start(train, config, size)
            volumes = None
        else:
            stop = stop_file(config.output)
            volumes = _train_in(group, config, perturbation_for_training, stop)
            if config.fill_wedge:
                _learn_to_fill(group, config, stop)
            if group.rank == 0:
                withdraw_stop(config.output)
        if finished and group.rank == 0:
            finished(volumes)
    return model_in(config.output)


def _learn_to_fill(group, config, stop):
    """Train a second network, which fills the missing wedge, and add it to the model.

    Each round is a training with a folder of its own, which resumes as any other; of the second on,
    the teachers are filled by the one before. Once the file ``stop`` is there, no round begins, and
    what has been learned by then is added, if there is something.
    """
    model = model_in(config.output)
    _, state = group.agreed(
        lambda: checkpoint.newest(checkpoint.folder_in(config.output), console.warn)
    )
    filler = ""
    for number in range(1, ROUNDS + 1):
        if group.broadcast(os.path.exists(stop)):
            break
        if group.rank == 0:
            console.say(f"learning to fill the missing wedge: round {number} of {ROUNDS}")
        own = dataclasses.replace(
            config,
            output=wedge_folder(config.output, number),
            initial_model=filler or model,
            start="automatic",
            ground_truth=(),
            steps=state["step"],
            epochs=0,
            fill_wedge=False,
        )
        lessons = Lessons(model, filler, config.tilt_range, state["noise"])
        _train_in(group, own, lessons, stop)
        filler = model_in(own.output)
    if group.rank == 0 and filler:
        checkpoint.add_filler(model, filler)
        console.say(f"{model} can fill the missing wedge: 'f2fd denoise --fill-wedge'")
    elif group.rank == 0:
        console.warn(
            f"{model} can't fill the missing wedge: the training was ended before it learned that; "
            "--resume goes on"
        )


def _train_in(group, config, perturbation_of, stop):
    """The whole of a training in one of its processes; returns its tomograms. The file ``stop``
    ends it after its step."""
    prepare_cpu(config.threads)
    results = files.results_among(config.tomograms)
    if results:
        raise UserError(
            f"{results[0]} is, by its name, a result of another of the tomograms; "
            "expected it left out"
        )
    if group.rank == 0:
        existing_results(config)
    with reproducible(config.deterministic), contextlib.ExitStack() as stack:
        training = open_for_training(
            config, group, config.resume and checkpoint.exists(config.output), perturbation_of
        )
        if group.rank == 0:
            stack.enter_context(exclusive_run(config))
            prepare_folder(config)
        group.broadcast(None)  # nobody looks into the folder before it is prepared
        if training.validated or not training.matched():  # else they are known from before
            console.announce_devices([training.device], training.dtype, "training")
        if config.resume:
            resume(training)
        if group.rank == 0:
            write_settings(config)
        while True:
            training.stop = stop
            try:
                fit_and_save(training)
                break
            except Diverged as error:
                setbacks = training.setbacks + 1
                if setbacks > MOST_SETBACKS:
                    raise UserError(
                        f"{error}, after {MOST_SETBACKS} lower learning rates; "
                        "expected finite ones: try --precision float32 or a lower "
                        f"--learning-rate than {config.learning_rate:g}"
                    )
                if group.rank == 0:
                    console.warn(
                        f"{error}; going back, with a learning rate of "
                        f"{SETBACK_RATE**setbacks:g} times {config.learning_rate:g}"
                    )
            except torch.cuda.OutOfMemoryError:
                raise UserError(
                    f"the memory of {training.device} does not suffice for a step of "
                    f"{config.batch_size * config.samples_per_patch} patches of "
                    f"{config.patch_size} voxels; expected a smaller --batch-size, "
                    "--samples-per-patch or --patch-size"
                )
            training = None  # there may be no room for two; it refers to itself
            gc.collect()
            training = open_for_training(
                config, group, checkpoint.exists(config.output), perturbation_of
            )
            resume(training)
            training.slow_down(setbacks)
        return training.volumes


def fit_and_save(training):
    """All remaining steps; one process writes."""
    if training.group.rank:
        fit(training)
        return
    with Writer(training) as writer:
        fit(training, writer)
    writer.save_model()
