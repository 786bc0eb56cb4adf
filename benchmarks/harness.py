"""What the benchmarks have in common."""

import argparse
import os
import sys

import numpy as np
import torch

from f2fd_core import BenchmarkConfig
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.config import tta_flips
from f2fd_core.data import mrc
from f2fd_core.prediction.predictor import Predictor, denoised_region

TILE_SIZE = 96


def read(path):
    """A volume as a float32 tensor (Z, Y, X)."""
    return torch.from_numpy(np.array(mrc.open_volume(path, 1.0).data, dtype=np.float32))


def simulated(name, shape, snr, seed, folder):
    """A :class:`~f2fd_core.benchmarking.cases.Case` in a ``folder``."""
    return simulated_case(name, BenchmarkConfig(shape=tuple(shape)), snr, seed, folder)


def denoised(training, predictions=0, noisy=False, flips=None, number=0):
    """A training's tomogram ``number``, denoised with its model as it is, as a float32 tensor: by
    default as ``f2fd denoise`` does it; else by so many predictions, ``noisy`` ones or not, of what
    is flipped along these axes."""
    config = training.config
    flips = flips or tta_flips(config)
    predictions = predictions or len(flips)
    perturbation = training.perturbations[number]
    if not noisy:
        perturbation = perturbation.for_prediction(predictions)
    predictor = Predictor(
        training.model(), training.device, training.dtype, predictions, 1, flips=flips
    )
    volume = perturbation.volume
    region = denoised_region(
        predictor, perturbation, (0, 0, 0), volume.shape, TILE_SIZE, config.network
    )
    return torch.from_numpy(volume.destandardise(region)).float()


def parser(part):
    """A parser of the arguments of a part of a benchmark, which its docstring describes."""
    return argparse.ArgumentParser(
        prog=f"{os.path.basename(sys.argv[0])} {part.__name__[4:]}",
        description=part.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def show(*cells):
    """Print a row of a Markdown table at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def heading(*columns):
    """Print the head of a Markdown table."""
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def run(parts, argv=None):
    """Run one of the ``parts``, {name: function of the arguments}: the one that is named, else the
    first; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in parts:
        return parts[argv[0]](argv[1:])
    return next(iter(parts.values()))(argv)
