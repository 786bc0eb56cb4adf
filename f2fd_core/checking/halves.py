"""Both half-maps of a tomogram, each denoised by a model of its own: what they agree in."""

import dataclasses
import os

import numpy as np
import torch

from f2fd_core.commands.denoise import denoise
from f2fd_core.commands.train import train
from f2fd_core.config import DenoiseConfig
from f2fd_core.data import formats, mrc
from f2fd_core.evaluation import metrics
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_core.runtime import files

SIDES = ("odd", "even")
# The usual threshold for the correlation between half-maps (Rosenthal & Henderson, 2003).
THRESHOLD = 0.143


def independent_halves(config, volume, trained, folder):
    """Train a model on each of the half-maps of a ``volume`` alone, as the TrainConfig ``trained``
    says, and denoise that half with it; if they are rescaled, as they then are.

    Returns the Fourier shell correlation between both, and between them as they are, by shell:
    {"frequency" (1/Å), "fsc", "fsc_before", "resolution" (Å)}.
    """
    paths, results, voxel_size = [], [], volume.voxel_size
    # The halves have the CTF of their tomogram, by whose name it is found.
    ctf = dict(ctf_of(volume.source.path, trained, config), ctf="") if trained.deconvolve else {}
    for side, half in zip(SIDES, volume.halves):
        place = os.path.join(folder, side)
        path = _file_of(half, place)
        own = dict(
            device=config.device,
            threads=config.threads,
            precision=config.precision,
            output=place,
            overwrite=True,
            seed=config.seed,
        )
        model = train(
            dataclasses.replace(
                trained,
                tomograms=(path,),
                half_maps=(),
                ground_truth=(),
                sampling_masks=(),
                initial_model="",
                perturbation="noise_matched",
                resume=False,
                voxel_size=voxel_size,
                **own,
                **ctf,
            )
        )
        paths.append(path)
        results += denoise(
            DenoiseConfig(
                model=model,
                tomograms=(path,),
                voxel_size=voxel_size,
                tile_size=config.tile_size,
                **own,
            )
        )
    before, after = (
        metrics.fourier_shell_correlation(*map(_read, pair)) for pair in (paths, results)
    )
    crossing = metrics.crossing(after[0], after[1], THRESHOLD)
    return {
        "frequency": (after[0] / voxel_size).tolist(),
        "fsc": after[1].tolist(),
        "fsc_before": before[1].tolist(),
        "resolution": None if crossing is None else voxel_size / crossing,
    }


def _file_of(half, folder):
    """The file of a half-map: its own, or a new one in the ``folder`` if it is rescaled."""
    if half.resampled is None:
        return half.source.path
    files.make_folder(folder)
    path = os.path.join(folder, half.source.name + files.MRC)
    mrc.write_volume(path, half.resampled, half.voxel_size)
    return path


def _read(path):
    return torch.from_numpy(np.array(formats.open_volume(path, 1.0)[:], np.float32))
