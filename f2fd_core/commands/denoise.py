"""``f2fd denoise``: files in, denoised files out."""

import copy
import dataclasses
import itertools
import json
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

import numpy as np
import torch

from f2fd_core.commands.filling import fill_tomogram
from f2fd_core.commands.inputs import as_trained, open_as_they_are, share_of, warn_of_voxel_sizes
from f2fd_core.config import PRETRAINED, DenoiseConfig, UserError, tta_flips
from f2fd_core.data import formats
from f2fd_core.data.storage import refuse_coarse
from f2fd_core.data.volume import Standardised
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_core.filters.wedge import tilt_range_of
from f2fd_core.network import checkpoint
from f2fd_core.perturbation import perturbation_for_prediction
from f2fd_core.prediction.memory import fit_to_memory
from f2fd_core.prediction.predictor import Predictor
from f2fd_core.prediction.tomogram import box_of, denoise_tomogram
from f2fd_core.runtime import console, distributed, figures, files, lock
from f2fd_core.runtime.device import (
    choose_devices,
    choose_dtype,
    prepare_cpu,
    reproducible,
    runs_asynchronously,
)
from f2fd_core.runtime.mapped import DiskArray
from f2fd_core.runtime.workers import Prefetcher, map_ordered
from f2fd_core.training.contrast import in_contrast

OTHERS = {"model": "another model", "tomogram": "another tomogram", "settings": "other settings"}


def denoise(config: DenoiseConfig, finished: Optional[Callable[[Any], None]] = None) -> List[str]:
    """Denoise tomograms with a model.

    Each ``<name>_denoised.mrc`` is float32 in the input's units, with its voxel size, origin and
    start indices. Everything is checked before the first is computed. Tasks that torchrun or srun
    have started share the tomograms; one that dies loses only its own.

    Parameters
    ----------
    config : DenoiseConfig
    finished : callable, optional
        Called at the end with the standardised tomograms that were denoised.

    Returns
    -------
    list of str
        The paths of the denoised files, those that were finished before included; of several tasks
        this one's.

    Raises
    ------
    UserError
        For bad input, naming the option or file.
    """
    prepare_cpu(config.threads)
    group, _ = distributed.from_environment(os.environ)
    devices = choose_devices(config.device)
    if group.size > 1:
        devices = [group.device(devices, config.device)]
    dtype = choose_dtype(config.precision, devices[0])
    state = checkpoint.load(config.model)
    network, trained = checkpoint.restore(state, config.model, config.precision)
    filler = checkpoint.restore_filler(state, config.model) if config.fill_wedge else None
    asked, config = config, config.for_model(trained)
    plans = [_plan(each, trained, group, config) for each in (config, *config.of_halves())]
    opened = [_open(plan, trained) for plan in plans]
    for plan in plans:
        files.make_folder(plan.config.output)

    console.announce_devices(devices, dtype, "denoising")
    predictors, fillers = (
        [_predictor(each, device, dtype, config, trained) for device in devices if each]
        for each in (network, filler)
    )
    tile_size = fit_to_memory(predictors, asked, config, trained)
    config = dataclasses.replace(config, tile_size=tile_size)
    _say_what_the_model_is(config, state["voxel_size"], opened[0])
    with reproducible(config.deterministic):
        tomograms = list(itertools.chain(*opened))
        _denoise_all(tomograms, predictors, fillers, config, trained, state["voxel_size"])
    if finished:
        finished([tomogram.volume for tomogram in opened[0]])
    return list(plans[0].paths.values())


def _say_what_the_model_is(config, voxel_size, tomograms):
    """Say if it was not trained on tomograms like these; ``voxel_size``: the model's, in Å."""
    if config.model == PRETRAINED:
        console.say(
            "the model is the pretrained weights as they are; a training on these tomograms "
            "('f2fd train') usually gives better results"
        )
    elif not config.rescale:
        warn_of_voxel_sizes([tomogram.volume for tomogram in tomograms], voxel_size)


class Plan(NamedTuple):
    """What is to be done for a DenoiseConfig.

    ``config`` has the tomograms of this task, and no results among them; ``paths``
    {tomogram: path of its result}; ``made_of`` {tomogram: what that is made of}; ``todo``: the
    tomograms that are left to do.
    """

    config: DenoiseConfig
    paths: Dict[str, str]
    made_of: Dict[str, str]
    todo: Set[str]


class Tomogram(NamedTuple):
    """A tomogram that is denoised: its ``box``, into the file ``path``; see :func:`box_of`.

    ``tilt_range``: where its missing wedge is to be filled, the first and the last tilt (degrees).
    """

    volume: Standardised
    box: Tuple[Any, Any]
    path: str
    made_of: str
    tilt_range: Optional[Tuple[float, float]]


def _open(plan, trained):
    """The tomograms that a Plan leaves to do; raises UserError for what can't be read."""
    volumes = open_as_they_are(plan.config.without(set(plan.paths) - plan.todo), trained)
    tomograms = []
    for volume in volumes:
        name = volume.source.path
        refuse_coarse(plan.config.dtype, name, volume.mean, volume.std)
        box = box_of(volume, plan.config.region)
        tilt_range = (
            tilt_range_of(volume, plan.config.tilt_range) if plan.config.fill_wedge else None
        )
        tomograms.append(Tomogram(volume, box, plan.paths[name], plan.made_of[name], tilt_range))
    return tomograms


def _predictor(network, device, dtype, config, trained):
    """A :class:`Predictor` with a copy of the network on a device, for a DenoiseConfig."""
    return Predictor(
        copy.deepcopy(network).to(device, memory_format=torch.channels_last_3d),
        device,
        dtype,
        config.predictions,
        config.batch_size,
        config.seed,
        config.compile,
        tta_flips(trained),
        config.std,
    )


def _plan(config, trained, group, asked):
    """The :class:`Plan` for a DenoiseConfig, before anything is computed.

    ``group``: the tasks that share the tomograms; ``asked``: the DenoiseConfig of all that is done,
    by which half-maps have the CTF of their tomogram. Raises UserError if a result must not be
    written.
    """
    left_out = files.results_among(config.names(), config.result_file)
    console.warn_of_results(left_out)
    config = config.without(left_out)
    files.output_paths(
        config.names(), config.output, config.result_file
    )  # two of one name, anywhere
    config = share_of(config, group)
    paths = files.output_paths(config.names(), config.output, config.result_file)
    results = []
    for path in paths.values():
        results += files.volumes_of(path, config.std, config.fill_wedge)
        results += [files.companion(path, files.PICTURE), files.companion(path, files.VERDICT)]
    files.refuse_existing(
        results,
        config.overwrite or config.resume,
        "--overwrite to replace it or --resume to skip finished tomograms",
    )
    made_of = _fingerprints(config, trained, asked)
    files.refuse_inputs(
        results, [config.model, *itertools.chain(*config.inputs()), *formats.originals(left_out)]
    )
    todo = {
        name
        for name, path in paths.items()
        if not (config.resume and _finished(path, config, made_of[name]))
    }
    lock.refuse_held(path for name, path in paths.items() if name in todo)
    return Plan(config, paths, made_of, todo)


def _fingerprints(config, trained, asked):
    """{tomogram: what its result is made of, in few words}; ``asked``: see :func:`_plan`. Raises
    UserError for files that can't be read."""
    model = files.fingerprint(config.model)
    found = {}
    for name, paths in zip(config.names(), config.inputs()):
        for path in paths:  # what is no tomogram may have no end
            formats.open_volume(path, config.voxel_size)
        about = config.settings()
        if trained.deconvolve:
            about["ctf"] = ctf_of(name, trained, asked)
        settings = files.fingerprint(text=json.dumps(about))
        found[name] = f"model={model} tomogram={files.fingerprint(*paths)} settings={settings}"
    return found


def _finished(path, config, made_of):
    """Whether nothing is left to do for a result, which is then reported.

    Raises UserError if what is there was made of something else, or is a picture of the user's.
    """
    names = files.volumes_of(path, config.std, config.fill_wedge)
    there = [name for name in names if os.path.exists(name)]
    for name in there:
        noted = formats.open_volume(name, voxel_size=1.0).made_of
        others = [OTHERS[part.split("=")[0]] for part in made_of.split() if part not in noted]
        if others:
            raise UserError(
                f"{name} was made of "
                f"{(' and '.join(others) if noted else 'what it does not say')}; it "
                "is kept: give --overwrite to replace it, or another output folder"
            )
    if there == names:
        console.say(f"{path} is finished: skipped")
        return True
    picture = files.companion(path, files.PICTURE)
    if os.path.exists(picture):  # as of a run that was killed before the tomogram had its name
        files.refuse_existing([picture], figures.drew(picture))
    return False


def _denoise_all(tomograms, predictors, fillers, config, trained, voxel_size):
    """Denoise ``tomograms``, a list of :class:`Tomogram`, on all devices; ``voxel_size`` (Å) is
    the model's. ``fillers``: predictors that fill the missing wedge, one a device, or none.

    Each device has tomograms of its own while there is one for every device; of the rest, they
    share the tiles.
    """
    count, devices = len(tomograms), len(predictors)
    # A pool of masked copies takes a tomogram's memory several times: one at a time.
    pools = trained.perturbation == "fourier_masks"
    apart = 0 if devices == 1 or pools else count - count % devices

    def perturbation_of(number):
        volume = tomograms[number].volume
        # Prepared voxels take a temporary file as large as the tomogram: only when its turn comes.
        return perturbation_for_prediction(
            as_trained(volume, trained, config, voxel_size if config.rescale else 0),
            trained,
            predictors[0].device,
            config.predictions,
            config.pool_size,
        )

    ahead = Prefetcher(perturbation_of, runs_asynchronously(predictors[0].device) and not pools)

    def denoise_number(workers, number):
        volume, box, path, made_of, tilt_range = tomograms[number]
        filling = [fillers[predictors.index(worker)] for worker in workers if tilt_range]
        console.say(f"tomogram {number + 1} of {count}: {volume.source.path}")
        with lock.held(path):
            perturbation = ahead.get(number)
            if apart <= number < count - 1:
                ahead.prefetch(number + 1)
            with in_contrast(
                [predictor.network for predictor in workers + filling],
                perturbation.volume,
                trained,
                workers[0].device,
                workers[0].dtype,
            ):
                whole = (config, trained, made_of)
                copy = DiskArray(box[1], np.float32).array if filling else None
                denoise_tomogram(box, perturbation, path, workers, *whole, copy)
                if filling:
                    fill_tomogram(box, perturbation, copy, path, filling, *whole, tilt_range)

    def dismiss():
        for predictor in predictors + fillers:
            predictor.dismissed.set()

    for _ in map_ordered(
        lambda predictor, number: denoise_number([predictor], number),
        range(apart),
        predictors,
        dismiss,
    ):
        pass
    for number in range(apart, count):
        denoise_number(predictors, number)
