"""The short form of a check: the error alone, measured on a part of a tomogram, in a sentence."""

import json
import math

from f2fd_core.checking.error import Estimate
from f2fd_core.checking.examine import (
    DENOISED,
    GAUSSIAN,
    START,
    correlations,
    shells_of,
    unfit_half_maps,
)
from f2fd_core.checking.parts import LEAST_VOXELS, denoiser_of
from f2fd_core.checking.shells import TOMOGRAM, Whole
from f2fd_core.checking.start import settings_of, start_of
from f2fd_core.checking.verdict import WORSE
from f2fd_core.commands.inputs import as_trained, open_silently
from f2fd_core.config import START_PERTURBATIONS
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.noise_matched import noise_of
from f2fd_core.runtime import console, files
from f2fd_core.runtime.device import choose_devices, choose_dtype, reproducible
from f2fd_core.training.contrast import in_contrast

# The side (voxels) of the part.
SIDE = 64


def judged(model, config, volumes=None):
    """What the model (path) makes of a part of each tomogram of a TrainConfig or DenoiseConfig.

    Yields (tomogram, as its training prepares it, {result: {"estimate", "low", "high"}}), as
    :func:`~f2fd_core.checking.examine.correlations` has it; nothing for a tomogram that is too
    small or has hardly any noise, and for a model whose predictions are made from perturbed copies.
    ``volumes``: the tomograms, standardised, if they are open.
    """
    state = checkpoint.load(model)
    network, trained = checkpoint.restore(state, model, config.precision)
    if trained.perturbation not in START_PERTURBATIONS:
        return
    device = choose_devices(config.device)[0]
    dtype = choose_dtype(config.precision, device)
    settings = settings_of(config, config.output)
    network.to(device)
    for volume in open_silently(config, trained) if volumes is None else volumes:
        volume = as_trained(volume, trained, config, state["voxel_size"] * config.rescale)
        if math.prod(volume.shape) < LEAST_VOXELS:
            continue
        noise = noise_of(volume, trained, device)
        if noise.hardly_any():
            continue
        with reproducible(), in_contrast([network], volume, trained, device, dtype, silent=True):
            yield volume, _correlations(volume, noise, network, trained, settings, device, dtype)


def _correlations(volume, noise, network, trained, settings, device, dtype):
    size = tuple(min(SIDE, length) for length in volume.shape)
    start = tuple((length - side) // 2 for length, side in zip(volume.shape, size))
    denoisers = {
        DENOISED: denoiser_of(volume, network, trained, device, dtype).once(),
        START: denoiser_of(
            volume, start_of(volume, settings, device, dtype), settings, device, dtype
        ).once(),
    }
    shells = shells_of(denoisers, noise, settings.seed, lambda: None, [(start, size)])[Whole]
    results = list(denoisers)
    if unfit_half_maps(volume, Estimate(shells, results).by_half_maps):
        volume = volume.alone()
        noise = noise_of(volume, trained, device)
        return _correlations(volume, noise, network, trained, settings, device, dtype)
    return correlations(shells, results)


def sentence(volume, found):
    """The verdict on a tomogram in a sentence, and whether the model is worse than what it should
    improve on."""
    rescaled = "" if volume.rescaling is None else f", at {volume.voxel_size:g} Å,"
    value = found[DENOISED]
    others = [found[other]["estimate"] for other in (TOMOGRAM, GAUSSIAN, START)]
    worse = value["estimate"] < max(others) - WORSE
    tomogram, gaussian, start = others
    return (
        f"{volume.source.path}: the estimated correlation with the truth{rescaled} is "
        f"{value['estimate']:.2f} ({value['low']:.2f} to {value['high']:.2f}); that of the "
        f"tomogram as it is {tomogram:.2f}, of the best Gaussian filter {gaussian:.2f}, of the "
        f"pretrained weights {start:.2f}"
        + (": the model is worse than what it should improve on" if worse else "")
    ), worse


def report(model, config, volumes=None, write=False):
    """Say the verdict on each tomogram of a TrainConfig or DenoiseConfig, see :func:`judged`; with
    ``write`` the numbers also go to ``<name>_check.json`` in its output folder."""
    for volume, found in judged(model, config, volumes):
        words, worse = sentence(volume, found)
        (console.warn if worse else console.say)(words)
        if write:
            (result,) = files.output_paths(
                [volume.source.path], config.output, config.result_file
            ).values()
            path = files.companion(result, files.VERDICT)
            with files.replaced(path) as partial, open(partial, "w", encoding="utf-8") as stream:
                json.dump(dict(found, worse=worse), stream, indent=1)
