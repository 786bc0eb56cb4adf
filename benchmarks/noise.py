"""How well the first estimate tells the noise's spectrum, before there is a network.

Simulated tomograms of several seeds, in which signal and noise are known. Prints the noise as it is
taken to be over what it is, in bands of frequencies, for the default and for variants of how signal
is told from noise; and for each, over all tomograms in the bands below the upper octave, the root
mean square of the ratios' logarithms and their mean (0 and 0 if all is known).

    python benchmarks/noise.py [--cases cell crowded@1 ...] [--seeds 2 3 ...]

CASE@SNR is a case at another signal-to-noise ratio than 0.1.
"""
import argparse
import contextlib
import tempfile
from unittest import mock

import numpy as np
import torch
from ablation import all_noise, read, true_power

from f2fd_core import BenchmarkConfig, TrainConfig, fourier, noise_spectrum
from f2fd_core.cases import simulated_case
from f2fd_core.perturbation import spectrum
from f2fd_core.volume import Volume

CASES = ("cell", "cell@1", "crowded", "crowded@1", "sirt", "binned", "lowpass", "spheres@0.3",
         "thick")
BANDS = ((0.1, 0.14), (0.14, 0.18), (0.18, 0.25), (0.25, 0.33))
BELOW_THE_OCTAVE = 3
VARIANTS = {
    "level beside the axis": {(noise_spectrum, "noise_share"): all_noise},
    "no signal in the octave": {(noise_spectrum, "LITTLE_SIGNAL"): 0.5},
    "the median fitted": {(noise_spectrum, "QUANTILE"): 0.5},
    "no caution": {(noise_spectrum, "CAUTION"): 0.0},
    "large windows only": {(spectrum, "LEVEL_WINDOWS"): ()},
    "default": {},
}
"""What differs in each: {(module, name): value}."""


def ratios(path, noise, settings):
    """The first estimate over the power of the ``noise`` (numpy), means over BANDS."""
    config = TrainConfig(tomograms=(path,), output="none")
    with contextlib.ExitStack() as stack:
        for place, value in settings.items():
            stack.enter_context(mock.patch.object(*place, value))
        estimate = spectrum.Spectrum(Volume(path), config)
    size = estimate.window
    frequency, found = fourier.shell_means(estimate.first, size)
    truth = fourier.shell_means(true_power(noise / estimate.volume.std, size), size)[1]
    return [float((found / truth)[(frequency >= low) & (frequency < high)].mean())
            for low, high in BANDS]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CASE[@SNR]")
    parser.add_argument("--seeds", type=int, nargs="+", default=(2, 3, 5))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("cycles per voxel: %s\n" % ", ".join("%g to %g" % band for band in BANDS))
    print("| case, seed | %s |\n|%s" % (" | ".join(VARIANTS), "---|" * (1 + len(VARIANTS))))
    logarithms = {name: [] for name in VARIANTS}
    for seed in options.seeds:
        for given in options.cases:
            case, _, snr = given.partition("@")
            with tempfile.TemporaryDirectory() as folder:
                made = simulated_case(case, BenchmarkConfig(shape=tuple(options.shape)),
                                      float(snr or 0.1), seed, folder)
                noise = (read(made.tomogram) - read(made.reference)).numpy()
                row = {name: ratios(made.tomogram, noise, settings)
                       for name, settings in VARIANTS.items()}
            for name, values in row.items():
                logarithms[name] += np.log(values[:BELOW_THE_OCTAVE]).tolist()
            print("| %s, %d | %s |" % (given, seed, " | ".join(
                " ".join("%.2f" % value for value in row[name]) for name in VARIANTS)), flush=True)
    for title, statistic in (("root mean square", lambda values: np.sqrt(np.square(values).mean())),
                             ("mean", np.mean)):
        print("| %s of logarithms | %s |" % (title, " | ".join(
            "%.3f" % statistic(logarithms[name]) for name in VARIANTS)))


if __name__ == "__main__":
    main()
