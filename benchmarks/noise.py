"""How well the noise is told from the signal, before there is a network.

Simulated tomograms of several seeds, in which signal and noise are known. Prints for each Fourier
band the noise over all power, and the noise as it is taken to be over what it is, for the default
and for variants of how signal is told from noise; and for each the highest ratio of all, and the
lowest where noise is more than half of the power, above 0.1 cycles per voxel.

    python benchmarks/noise.py [--cases cell crowded@1 ...] [--seeds 2 3 ...]

CASE@SNR is a case at another signal-to-noise ratio than 0.1.
"""

import argparse
import contextlib
import tempfile
from unittest import mock

import numpy as np
import torch
from ablation import all_noise, as_it_is, read, true_power

from f2fd_core import BenchmarkConfig, fourier
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.data.volume import Volume
from f2fd_core.noise import estimate_noise, spectrum

CASES = (
    "cell",
    "cell@1",
    "crowded",
    "crowded@1",
    "sirt",
    "binned",
    "lowpass",
    "spheres@0.3",
    "thick",
    "in-situ",
)
BANDS = (
    (0.03, 0.06),
    (0.06, 0.1),
    (0.1, 0.14),
    (0.14, 0.18),
    (0.18, 0.22),
    (0.22, 0.27),
    (0.27, 0.33),
    (0.33, 0.42),
)
KNOWN_FROM = 0.1
VARIANTS = {
    "no signal told by its angles": {"noise_share": all_noise},
    "A the same at all frequencies": {"SLOPES": np.zeros(1)},
    "signal near the axis not looked at": {"without_signal_near_axis": as_it_is},
    "hardly any signal left in": {"HARDLY_ANY": 1e-6},
    "default": {},
}
"""What differs in each: {name in f2fd_core.noise.spectrum: value}."""


def bands(power, size):
    """Mean power in each of BANDS."""
    grid = fourier.grid_of(size)
    return np.array(
        [
            float((power * inside * grid.weights).sum() / (inside * grid.weights).sum())
            for low, high in BANDS
            for inside in [(grid.radius >= low) & (grid.radius < high)]
        ]
    )


def estimated(path, settings):
    """The NoiseModel of a tomogram."""
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(mock.patch.object(spectrum, name, value))
        return estimate_noise(Volume(path))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CASE[@SNR]")
    parser.add_argument("--seeds", type=int, nargs="+", default=(2, 3, 5))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"cycles per voxel: {', '.join(f'{low:g} to {high:g}' for low, high in BANDS)}\n")
    print(
        f"| case, seed | noise over all | {' | '.join(VARIANTS)} |\n|{'---|' * (2 + len(VARIANTS))}"
    )
    highest, lowest = ({name: [] for name in VARIANTS} for _ in range(2))
    above = np.array([low >= KNOWN_FROM for low, _ in BANDS])
    for seed in options.seeds:
        for given in options.cases:
            case, _, snr = given.partition("@")
            with tempfile.TemporaryDirectory() as folder:
                made = simulated_case(
                    case,
                    BenchmarkConfig(shape=tuple(options.shape)),
                    float(snr or 0.1),
                    seed,
                    folder,
                )
                noise = (read(made.tomogram) - read(made.reference)).numpy()
                noise /= Volume(made.tomogram).std
                models = {
                    name: estimated(made.tomogram, settings) for name, settings in VARIANTS.items()
                }
            first = models["default"]
            truth = bands(true_power(noise, first.window), first.window)
            share = truth / bands(first.total, first.window)
            cells = []
            for name, model in models.items():
                ratio = bands(model.power, model.window) / truth
                highest[name] += ratio[above].tolist()
                lowest[name] += ratio[above & (share > 0.5)].tolist()
                cells.append(ratio)
            shown = [" ".join(f"{value:.2f}" for value in cell) for cell in [share, *cells]]
            print(f"| {given}, {seed} | {' | '.join(shown)} |", flush=True)
    for title, function, values in (("highest", max, highest), ("lowest", min, lowest)):
        shown = [f"{function(values[name], default=1.0):.2f}" for name in VARIANTS]
        print(f"| {title} | | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
