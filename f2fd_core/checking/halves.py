"""Both half-maps of a tomogram, each denoised by a model of its own: what they agree in."""

import dataclasses
import os

import numpy as np
import torch

from f2fd_core.commands.denoise import denoise
from f2fd_core.commands.train import train
from f2fd_core.config import DenoiseConfig
from f2fd_core.data import formats
from f2fd_core.evaluation import metrics

SIDES = ("odd", "even")
# The usual threshold for the correlation between half-maps (Rosenthal & Henderson, 2003).
THRESHOLD = 0.143


def independent_halves(config, paths, trained, voxel_size, folder):
    """Train a model on each of the half-maps alone, as the TrainConfig ``trained`` says, and
    denoise that half with it.

    Returns the Fourier shell correlation between both, and between them as they are, by shell:
    {"frequency" (1/Å), "fsc", "fsc_before", "resolution" (Å)}.
    """
    results = []
    for side, path in zip(SIDES, paths):
        place = os.path.join(folder, side)
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
            )
        )
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


def _read(path):
    return torch.from_numpy(np.array(formats.open_volume(path, 1.0)[:], np.float32))
