"""How well the strength of the noise over a tomogram is known, where it changes and where not.

Simulated tomograms with noise whose strength is given; the profiles are measured on windows of
several sizes, and end at the outermost windows' centres or go on to the faces. Prints the power of
the noise as it is taken to be over the true one: its mean in the outermost voxels, across the tilt
axis and along it, and its spread over the tomogram (1 and 0 if all is known).

    python benchmarks/strength.py [--cases uneven cell ...] [--windows 24 16 12]
"""

import argparse
import functools
import tempfile

import numpy as np
import torch

from f2fd_core import BenchmarkConfig
from f2fd_core.benchmarking.cases import simulated_case, uneven_strength
from f2fd_core.config.tools import BENCHMARK_CASES
from f2fd_core.data import mrc
from f2fd_core.data.regions import crop
from f2fd_core.noise import NoiseProfile, periodogram

BORDER = 8


def to_the_centres(gain):
    """The same profiles, constant beyond the outermost windows' centres."""
    return NoiseProfile(
        [
            (places[1:-1], amplitudes[1:-1]) if len(places) > 2 else (places, amplitudes)
            for places, amplitudes in gain.profiles
        ]
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument(
        "--cases", nargs="+", default=["uneven", "cell", "sirt"], choices=BENCHMARK_CASES
    )
    parser.add_argument("--windows", type=int, nargs="+", default=(24, 16, 12))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    shape = tuple(options.shape)
    print("| case | windows | profiles end at | borders, mean | spread |\n|---|---|---|---|---|")
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            case = simulated_case(
                name, BenchmarkConfig(shape=shape), options.snr, options.seed, folder
            )
            volume = np.array(mrc.open_volume(case.tomogram)[:], dtype=np.float32)
        truth = uneven_strength(shape) if name == "uneven" else np.ones(shape)
        for side in options.windows:
            size = periodogram.window_size(shape, side)
            corners = periodogram.window_corners(shape, size)
            power = periodogram.periodograms(functools.partial(crop, volume), corners, size)
            to_the_faces = NoiseProfile.measured(corners, size, power)
            for end, gain in (("centres", to_the_centres(to_the_faces)), ("faces", to_the_faces)):
                ratio = np.square(gain.at((0, 0, 0), shape).expand(shape).numpy() / truth)
                ratio /= np.median(ratio)
                outside = np.ones(shape, bool)
                outside[:, BORDER:-BORDER, BORDER:-BORDER] = False
                print(
                    (
                        f"| {name} | {side} | {end} | {ratio[outside].mean():.2f} | "
                        f"{ratio.std():.3f} |"
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
