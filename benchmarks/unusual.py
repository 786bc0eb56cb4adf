"""Tomograms as they come: beads, ice, borders, ramps, vacuum, turned; each beside the plain one.

    python benchmarks/unusual.py [--cases plain beads ...] [--steps 50] [--seeds 5] [--no-own]

A simulated tomogram of 64 x 96 x 96 voxels (SNR 0.3) with what is unusual in it. Prints, for each
case and seed, the correlation with the noise-free reconstruction where the specimen is, of the
result minus what was laid over it: by a model trained on this very tomogram, and by one trained on
another that has nothing unusual.
"""

import argparse
import contextlib
import os
import tempfile
from typing import NamedTuple

import numpy as np

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, train
from f2fd_core.data import mrc
from f2fd_core.simulation.microscope import simulate_volumes

SHAPE, VOXEL_SIZE = (64, 96, 96), 10.0


def balls(shape, count, radius, random, faces=False):
    """Whether a voxel lies in one of so many balls, at random places or at the faces along Z."""
    z, y, x = np.ogrid[tuple(slice(side) for side in shape)]
    inside = np.zeros(shape, bool)
    for centre in random.uniform(radius, np.array(shape) - radius, (count, 3)):
        if faces:
            centre[0] = shape[0] * (centre[0] > shape[0] / 2)
        inside |= (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
    return inside


class Case(NamedTuple):
    """A tomogram, (Z, Y, X) as the rest: its ``truth``, where that is ``scored``, and what was laid
    over the specimen."""

    values: np.ndarray
    truth: np.ndarray
    scored: np.ndarray
    laid_over: np.ndarray


def laid(where, level):
    """``level`` (standard deviations) ``where`` that holds; there is nothing to score."""
    return lambda unit, clean: Case(
        np.where(where(unit), level, unit), clean, ~where(unit), 0 * unit
    )


def above(added):
    """``added`` to every voxel."""
    return lambda unit, clean: Case(
        unit + added(unit), clean, np.ones(unit.shape, bool), added(unit) + 0 * unit
    )


def within(pad, level):
    """In a constant border."""

    def made(unit, clean):
        padded = np.pad(clean, pad)
        return Case(
            np.pad(unit, pad, constant_values=level),
            padded,
            np.pad(np.ones(unit.shape, bool), pad),
            0 * padded,
        )

    return made


def in_vacuum(unit, clean):
    quiet = np.random.default_rng(0).normal(0, 0.1, (32, *unit.shape[1:]))
    return within(DEPTH, 0.0)(unit, clean)._replace(values=np.concatenate([quiet, unit, quiet]))


def changed(change):
    """Tomogram and specimen, both changed."""
    return lambda unit, clean: Case(
        change(unit), change(clean), change(0 * unit) == 0, change(0 * unit)
    )


def beads(count, faces=False, radius=5):
    return lambda unit: balls(unit.shape, count, radius, np.random.default_rng(1), faces)


def edge(height, width):
    return lambda unit: (
        height / (1 + np.exp(-(np.arange(unit.shape[2]) - unit.shape[2] / 2) / width))
    )


def cubes(unit):
    inside, random = np.zeros(unit.shape, bool), np.random.default_rng(1)
    for corner in random.integers(0, np.array(unit.shape) - 16, (24, 3)):
        inside[tuple(slice(at, at + 16) for at in corner)] = True
    return inside


ALONG_Y, ROUND = ((0, 0), (0, 32), (0, 0)), ((16, 16), (32, 32), (32, 32))
DEPTH = ((32, 32), (0, 0), (0, 0))
CASES = {
    "plain": above(lambda unit: 0 * unit),
    "bead": laid(beads(1), -25.0),
    "beads": laid(beads(12), -25.0),
    "strong beads": laid(beads(12), -100.0),
    "hot voxels": laid(lambda unit: np.random.default_rng(1).random(unit.shape) < 0.002, 60.0),
    "ice": laid(beads(20, True, 10), -8.0),
    "erased beads": laid(beads(12), 0.0),
    "erased cubes": laid(cubes, 0.0),
    "border at the mean": within(ROUND, 0.0),
    "border at -5": within(ALONG_Y, -5.0),
    "border at -100": within(ALONG_Y, -100.0),
    "half the depth": within(DEPTH, -5.0),
    "masked slab": laid(
        lambda unit: (
            np.abs(np.arange(len(unit)) - len(unit) / 2)[:, None, None] + 0 * unit > len(unit) / 4
        ),
        -5.0,
    ),
    "ramp": above(lambda unit: np.linspace(-5, 5, unit.shape[2])),
    "lens": above(
        lambda unit: (
            6
            * (
                np.linspace(-1, 1, unit.shape[2]) ** 2
                + np.linspace(-1, 1, unit.shape[1])[:, None] ** 2
            )
        )
    ),
    "carbon": above(edge(-6.0, 2.0)),
    "vacuum": in_vacuum,
    "tilt axis along X": changed(lambda values: values.swapaxes(1, 2)),
    "depth along Y": changed(lambda values: values.swapaxes(0, 1)),
    "bright matter": changed(np.negative),
}


def correlation(first, second):
    return np.corrcoef(first, second)[0, 1]


def trained_on(path, folder, steps):
    train(TrainConfig(tomograms=(path,), output=folder, steps=steps, threads=1, overwrite=True))
    return os.path.join(folder, "model.pt")


def denoised(model, path, folder):
    (result,) = denoise(
        DenoiseConfig(model=model, tomograms=(path,), output=folder, threads=1, overwrite=True)
    )
    return np.array(mrc.open_volume(result).data, np.float64)


def simulated(seed):
    """(tomogram in its standard deviations, noise-free reconstruction)."""
    volumes = simulate_volumes(SimulateConfig(shape=SHAPE, snr=0.3, seed=seed))
    tomogram = volumes["tomogram"].astype(np.float64)
    return (tomogram - tomogram.mean()) / tomogram.std(), volumes["clean"].astype(np.float64)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5])
    parser.add_argument(
        "--own",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with a model of each case's own",
    )
    options = parser.parse_args(argv)
    columns = ["case", "seed", *["own model"] * options.own, "other tomogram's model"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tomogram.mrc")

        def quietly(function, *arguments):
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(
                nowhere
            ), contextlib.redirect_stderr(nowhere):
                return function(*arguments)

        for seed in options.seeds:
            unit, clean = simulated(seed)
            mrc.write_volume(path, simulated(seed + 100)[0].astype(np.float32), VOXEL_SIZE)
            other = quietly(trained_on, path, os.path.join(folder, "other"), options.steps)
            for name in options.cases:
                case = CASES[name](unit, clean)
                mrc.write_volume(path, case.values.astype(np.float32), VOXEL_SIZE)
                models = [other]
                if options.own:
                    models.insert(
                        0, quietly(trained_on, path, os.path.join(folder, "own"), options.steps)
                    )
                found = [
                    correlation(
                        (quietly(denoised, model, path, folder) - case.laid_over)[case.scored],
                        case.truth[case.scored],
                    )
                    for model in models
                ]
                shown = [f"{value:.3f}" for value in found]
                print(f"| {name} | {seed} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
