"""What each choice of the default method is worth, on simulated tomograms, in one run.

Every variant trains for the same number of steps and differs from the default in the settings
named; "true spectrum" is told the spectrum of all that is not in the reference, "spectrum of the
half-maps' difference" that of the noise without a thick tomogram's streaks, "half-maps" learns from
the true halves; with --predictions the default's model denoises in other ways, too. Prints a table
with the scores of the denoised tomogram, the power of the noise as estimated over the true one in
low, middle and high Fourier shells, and the seconds of training or, in rows of predictions, of
these.

    python benchmarks/ablation.py --steps 400 --seed 1 [--variants 'default' 'half-maps' ...]
        [--cases cell crowded ...] [--predictions]
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from f2fd_core import BenchmarkConfig, TrainConfig, fourier
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.commands import train as training
from f2fd_core.config import WEDGE_PRESERVING_FLIPS
from f2fd_core.config.tools import BENCHMARK_CASES
from f2fd_core.data import mrc
from f2fd_core.data.regions import crop
from f2fd_core.evaluation.membranes import Membranes
from f2fd_core.evaluation.metrics import score
from f2fd_core.network.unet import UnshuffledUNet
from f2fd_core.noise import NoiseModel, periodogram, spectrum
from f2fd_core.prediction.predictor import Predictor, denoised_region
from f2fd_core.runtime.device import prepare_cpu
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.training import optimizer, schedule

TRUE, OF_DIFFERENCE = "true spectrum", "spectrum of the half-maps' difference"
CASES = [name for name in BENCHMARK_CASES if name not in ("empty", "noisefree")]


def as_it_is(across, size):
    """In the place of spectrum.without_signal_near_axis."""
    return torch.ones_like(across)


def all_noise(power, noise, across, size):
    """In the place of spectrum.noise_share: all power may be noise."""
    grid = fourier.grid_of(size)
    return torch.ones_like(grid.frequencies, dtype=torch.double)


VARIANTS = {
    "default": {},
    TRUE: {},
    OF_DIFFERENCE: {},
    "half-maps": {"perturbation": "noise2noise"},
    "A the same at all frequencies": {"slopes": np.zeros(1)},
    "signal near the axis not looked at": {"near": as_it_is},
    "no signal told by its angles": {"share": all_noise},
    "hardly any signal left in": {"hardly_any": 1e-6},
    "noise at the lowest frequencies, too": {"fading": 0},
    "windows of 32": {"spectrum_window": 32},
    "no gain": {"noise_profile": False},
    "noise scale 1": {"noise_scale": 1.0},
    "noise scale 0.75": {"noise_scale": 0.75},
    "noise scale 0.5": {"noise_scale": 0.5},
    "noise scale 0.35": {"noise_scale": 0.35},
    "random weights": {"start": "random"},
    "constant rate": {"schedule": "constant"},
    "half the rate for what has learned": {"learned_rate": schedule.LEARNED_RATE / 2},
    "constant rate 0.005": {"schedule": "constant", "learning_rate": 5e-3},
    "constant rate 0.008": {"schedule": "constant", "learning_rate": 8e-3},
    "cosine schedule": {"schedule": "cosine"},
    "last weights": {"averaging": 0.0},
    "dropout 0.1": {"dropout": 0.1},
    "compact network": {"network": "compact"},
    "8 features": {"features": 8},
    "24 features": {"features": 24},
    "1 pooling": {"poolings": 1, "start": "random"},
    "3 poolings": {"poolings": 3, "start": "random"},
    "8 features at full resolution": {"last": 8, "start": "random"},
    "2 patches a batch": {"batch_size": 2},
    "L2 norm": {"loss": "l2norm"},
    "no augmentation": {"augmentation": "none"},
    "no mirrors": {"augmentation": "wedge"},
    "quarter flips, no mirrors": {"augmentation": "published"},
    "patches of 32": {"patch_size": 32},
    "Adam": {"optimizer": "adam", "learning_rate": 1e-3},
    "learning rate 0.005": {"learning_rate": 5e-3},
    "learning rate 0.002": {"learning_rate": 2e-3},
    "momentum 0.95": {"momentum": 0.95},
    "momentum 0.8": {"momentum": 0.8},
}
CONSTANTS = {
    "poolings": (UnshuffledUNet, "POOLINGS"),
    "last": (UnshuffledUNet, "LAST"),
    "learned_rate": (schedule, "LEARNED_RATE"),
    "slopes": (spectrum, "SLOPES"),
    "near": (spectrum, "without_signal_near_axis"),
    "share": (spectrum, "noise_share"),
    "hardly_any": (spectrum, "HARDLY_ANY"),
    "fading": (spectrum, "FADING"),
    "momentum": (optimizer, "MOMENTUM"),
}
"""Where those of the variants' settings are that no user can choose."""
PREDICTIONS = {
    "1 prediction": (1, False, WEDGE_PRESERVING_FLIPS[:1]),
    "4 noisy copies, not turned": (4, True, WEDGE_PRESERVING_FLIPS[:1]),
    "4 noisy copies": (4, True, WEDGE_PRESERVING_FLIPS),
    "16 noisy copies": (16, True, WEDGE_PRESERVING_FLIPS),
}
"""Number of predictions, whether noise is added, and flips, with the default's model."""
SHELLS = {"low": (0.02, 0.1), "middle": (0.1, 0.25), "high": (0.25, 0.5)}
SCORES = ("correlation", "psnr", "ssim", "fsc_mean", "membrane_average_precision")


def read(path):
    return torch.from_numpy(np.array(mrc.open_volume(path).data, dtype=np.float32))


def true_power(noise, window):
    """Mean power of the windows of a volume of pure noise, a numpy array."""
    corners = periodogram.window_corners(noise.shape, window)
    return periodogram.periodograms(
        lambda start, size: crop(noise, start, size), corners, window
    ).mean(0)


def use(perturbation, power):
    """Let a perturbation take this power for its noise's."""
    window = perturbation.noise.window
    level = fourier.grid_of(window).ratio(power, torch.ones_like(power))
    perturbation.noise = NoiseModel(
        window, spectrum.Spectrum(power, level, level), perturbation.noise.total
    )


def power_ratios(perturbation, truth):
    """The estimated over the true power, means over the shells of SHELLS."""
    frequency, found = fourier.shell_means(perturbation.noise.power, perturbation.noise.window)
    ratio = found / fourier.shell_means(truth, perturbation.noise.window)[1]
    return [
        f"{float(ratio[(frequency >= low) & (frequency < high)].mean()):.2f}"
        for low, high in SHELLS.values()
    ]


def denoised(run, predictions=0, noisy=False, flips=None):
    """The tomogram, denoised by the model of a Training: by default as ``f2fd denoise`` does."""
    flips = flips or run.config.tta_flips()
    predictions = predictions or len(flips)
    (perturbation,) = run.perturbations
    if not noisy:
        perturbation = perturbation.for_prediction(predictions)
    predictor = Predictor(run.model(), run.device, run.dtype, predictions, 1, flips=flips)
    volume = perturbation.volume
    return torch.from_numpy(
        volume.destandardise(
            denoised_region(
                predictor, perturbation, (0, 0, 0), volume.shape, 96, run.config.network
            )
        )
    ).float()


def trained(name, case, folder, steps):
    """Train a variant on a Case; returns (the Training, power ratios, seconds)."""
    settings = dict(
        VARIANTS[name],
        tomograms=(case.tomogram,),
        steps=steps,
        output=folder,
        checkpoint_every=steps,
    )
    constants = [
        (*CONSTANTS[setting], settings.pop(setting)) for setting in set(settings) & set(CONSTANTS)
    ]
    halves = settings.get("perturbation") == "noise2noise"
    if halves:
        settings["half_maps"] = case.halves
    config = TrainConfig(**settings)
    prepare_folder(config)
    with contextlib.ExitStack() as stack:
        for constant in constants:
            stack.enter_context(mock.patch.object(*constant))
        run = training.open_for_training(config)
        (perturbation,) = run.perturbations
        if not halves:
            noise = (read(case.tomogram) - read(case.reference)).numpy() / perturbation.volume.std
            truth = true_power(noise, perturbation.noise.window)
        if name == TRUE:
            use(perturbation, truth)
        elif name == OF_DIFFERENCE:
            odd, even = (read(path).numpy() for path in case.halves)
            noise = (odd - even) / (2 * perturbation.volume.std)
            use(perturbation, true_power(noise, perturbation.noise.window))
        began = time.monotonic()
        training.fit_and_save(run)
        seconds = time.monotonic() - began
    ratios = ["", "", ""] if halves else power_ratios(perturbation, truth)
    return run, ratios, seconds


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 160, 160))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--cases", nargs="+", default=["cell"], choices=CASES)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument(
        "--predictions",
        action="store_true",
        help="denoise in other ways with the default's model, too",
    )
    options = parser.parse_args(argv)
    prepare_cpu(0)
    columns = [*SCORES, *("noise, " + name for name in SHELLS), "seconds"]
    print(f"| case | variant | {' | '.join(columns)} |\n{'|---' * (2 + len(columns))}|")
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            case = simulated_case(
                name, BenchmarkConfig(shape=tuple(options.shape)), options.snr, options.seed, folder
            )
            compare(case, options, folder)


def compare(case, options, folder):
    """Print the rows of a Case."""
    clean = read(case.reference)
    membranes = Membranes(clean, read(case.membrane) > 0.5) if case.membrane else None

    def show(name, volume, *rest):
        scores = score(volume, clean, membranes)
        cells = [f"{scores[column]:.3f}" if column in scores else "" for column in SCORES]
        print(f"| {case.name} | {name} | {' | '.join([*cells, *rest])} |", flush=True)

    for number, name in enumerate(options.variants):
        run, ratios, seconds = trained(name, case, str(Path(folder) / str(number)), options.steps)
        show(name, denoised(run), *ratios, f"{seconds:.0f}")
        if name == "default" and options.predictions:
            for name, settings in PREDICTIONS.items():
                began = time.monotonic()
                volume = denoised(run, *settings)
                show(name, volume, "", "", "", f"{time.monotonic() - began:.0f}")


if __name__ == "__main__":
    main()
