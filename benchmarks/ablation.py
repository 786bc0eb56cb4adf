"""What each choice of the default method is worth.

    python benchmarks/ablation.py training --help
    python benchmarks/ablation.py noise --help
    python benchmarks/ablation.py profile --help
    python benchmarks/ablation.py half-maps --help

The first may be left out.
"""

import contextlib
import dataclasses
import functools
import math
import os
import sys
import tempfile
import time
from unittest import mock

import harness
import numpy as np
import torch
from harness import read
from real import BOXES

from f2fd_core import SimulateConfig, TrainConfig, fourier
from f2fd_core.benchmarking.cases import uneven_strength
from f2fd_core.commands import train as training
from f2fd_core.commands.half_maps import difference_over_noise
from f2fd_core.config import WEDGE_PRESERVING_FLIPS
from f2fd_core.data import mrc
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.regions import crop
from f2fd_core.data.volume import Volume
from f2fd_core.network.unet import UnshuffledUNet
from f2fd_core.noise import NoiseModel, NoiseProfile, NoiseSettings, periodogram, spectrum
from f2fd_core.perturbation import perturbation_for_training
from f2fd_core.perturbation.noise_matched import NoiseMatched, noise_of
from f2fd_core.runtime.device import prepare_cpu
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.simulation.microscope import simulate_volumes
from f2fd_core.training import optimizer, schedule, teaching

CPU = torch.device("cpu")
SHAPE = (64, 128, 128)
TRUE = "true spectrum"
OF_DIFFERENCE = "spectrum of the half-maps' difference"
VARIANTS = {
    "default": {},
    TRUE: {},
    OF_DIFFERENCE: {},
    "half-maps": {"perturbation": "noise2noise"},
    "all that is left out": {"noise": NoiseSettings(counted=1.0)},
    "signal that varies not looked at": {"noise": NoiseSettings(varying=False)},
    "all noise taken to be left out": {"noise": NoiseSettings(removed=False)},
    "signal near the axis not looked at": {"noise": NoiseSettings(near_axis=False)},
    "hardly any signal left in": {"noise": NoiseSettings(hardly_any=1e-6)},
    "windows of 32": {"noise": NoiseSettings(window=32)},
    "no profile": {"noise_profile": False},
    "noise scale 1": {"noise_scale": 1.0},
    "noise scale 0.75": {"noise_scale": 0.75},
    "noise scale 0.5": {"noise_scale": 0.5},
    "noise scale 0.35": {"noise_scale": 0.35},
    "no lessons": {"lessons": math.inf},
    "half of the patches are lessons": {"lessons": 2},
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
    "quarter turns, no mirrors": {"augmentation": "published"},
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
    "lessons": (teaching, "EVERY"),
    "learned_rate": (schedule, "LEARNED_RATE"),
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
    noise_settings = settings.pop("noise", NoiseSettings())
    halves = settings.get("perturbation") == "noise2noise"
    if halves:
        settings["half_maps"] = case.halves
    config = TrainConfig(**settings)
    prepare_folder(config)

    noise = None
    if not halves:
        # Before anything is changed that the pretrained network is made of, too.
        own = dataclasses.replace(noise_settings, profile=config.noise_profile)
        noise = noise_of(Volume(case.tomogram), config, CPU, own)

    def with_settings(volume, config, device):
        return NoiseMatched(volume, config, device, noise)

    with contextlib.ExitStack() as stack:
        for constant in constants:
            stack.enter_context(mock.patch.object(*constant))
        run = training.open_for_training(
            config, perturbation_of=perturbation_for_training if halves else with_settings
        )
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


def run_training(argv=None):
    """What each choice of the default method is worth, on simulated tomograms, in one run.

    Every variant trains for the same number of steps and differs from the default in the settings
    named; "true spectrum" is given the spectrum of all that is not in the reference, "spectrum of
    the half-maps' difference" that of the noise without a thick tomogram's streaks, "half-maps"
    learns from the true halves; with --predictions the default's model denoises in other ways, too.
    Prints a table with the scores of the denoised tomogram, the power of the noise as estimated
    over the true one in low, middle and high Fourier shells, and the seconds of training or, in
    rows of predictions, of these.

        python benchmarks/ablation.py training --steps 400 --seeds 1 [--cases cell crowded ...]
            [--variants 'default' 'half-maps' ...] [--predictions]
    """
    parser = harness.parser(run_training, ["cell"], [1], (96, 160, 160))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument(
        "--predictions",
        action="store_true",
        help="denoise in other ways with the default's model, too",
    )
    options = parser.parse_args(argv)
    prepare_cpu(0)
    shells = ["noise, " + name for name in SHELLS]
    harness.heading("case, seed", "variant", *SCORES, *shells, "seconds")
    for given, seed, case, folder in harness.simulated_cases(options):
        compare(f"{given}, {seed}", case, options, folder)


def compare(given, case, options, folder):
    """Print the rows of a Case."""
    scored = harness.scorer(case)

    def show(name, volume, *rest):
        scores = scored(volume)
        cells = [f"{scores[column]:.3f}" if column in scores else "" for column in SCORES]
        harness.show(given, name, *cells, *rest)

    for number, name in enumerate(options.variants):
        run, ratios, seconds = trained(name, case, os.path.join(folder, str(number)), options.steps)
        show(name, harness.denoised(run), *ratios, f"{seconds:.0f}")
        if name == "default" and options.predictions:
            for name, settings in PREDICTIONS.items():
                began = time.monotonic()
                volume = harness.denoised(run, *settings)
                show(name, volume, "", "", "", f"{time.monotonic() - began:.0f}")


NOISE_CASES = (
    "cell",
    "cell@1",
    "crowded",
    "crowded@1",
    "sirt",
    "insertion",
    "odd-tilts",
    "dose-weighted",
    "ctf-corrected",
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
NOISE_VARIANTS = {
    "all that is left out": NoiseSettings(counted=1.0),
    "signal that varies not looked at": NoiseSettings(varying=False),
    "all noise taken to be left out": NoiseSettings(removed=False),
    "signal near the axis not looked at": NoiseSettings(near_axis=False),
    "hardly any signal left in": NoiseSettings(hardly_any=1e-6),
    "default": NoiseSettings(),
}


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


def over_the_windows(model, shape):
    """What a NoiseModel's power in a volume of ``shape`` is in the mean of the windows that measure
    it, over where its profile is 1."""
    corners = periodogram.window_corners(shape, model.window)
    return float(model.profile.of_windows(corners, model.window).mean())


def run_noise(argv=None):
    """How well the noise is separated from the signal, before there is a network.

    Simulated tomograms of several seeds, in which signal and noise are known. Prints for each
    Fourier band the noise over all power, and the noise as it is taken to be over what it is, for
    the default and for variants of how signal is separated from noise; and for each the highest
    ratio of all, and the lowest where noise is more than half of the power, above 0.1 cycles per
    voxel. And how often the default's interval holds the noise, to within 3 %.

        python benchmarks/ablation.py noise [--cases cell crowded@1 ...] [--seeds 2 3 ...]
    """
    options = harness.parser(run_noise, NOISE_CASES, (2, 3, 5), SHAPE).parse_args(argv)
    torch.set_num_threads(1)
    print(f"cycles per voxel: {', '.join(f'{low:g} to {high:g}' for low, high in BANDS)}\n")
    harness.heading("case, seed", "noise over all", *NOISE_VARIANTS)
    highest, lowest = ({name: [] for name in NOISE_VARIANTS} for _ in range(2))
    above = np.array([low >= KNOWN_FROM for low, _ in BANDS])
    held = []
    for given, seed, case, _ in harness.simulated_cases(options):
        noise = (read(case.tomogram) - read(case.reference)).numpy() / Volume(case.tomogram).std
        config = TrainConfig(tomograms=(case.tomogram,))
        models = {
            name: noise_of(Volume(case.tomogram), config, CPU, settings)
            for name, settings in NOISE_VARIANTS.items()
        }
        first = models["default"]
        truth = bands(true_power(noise, first.window), first.window)
        truth /= over_the_windows(first, noise.shape)
        share = truth / bands(first.total, first.window)
        shell = fourier.grid_of(first.window).shell
        least, most = (bands(ends[shell], first.window) for ends in (first.lower, first.upper))
        held += ((least <= 1.03 * truth) & (truth <= 1.03 * most)).tolist()
        cells = []
        for name, model in models.items():
            ratio = bands(model.power, model.window) / truth
            highest[name] += ratio[above].tolist()
            lowest[name] += ratio[above & (share > 0.5)].tolist()
            cells.append(ratio)
        shown = [" ".join(f"{value:.2f}" for value in cell) for cell in [share, *cells]]
        harness.show(f"{given}, {seed}", *shown)
    for title, function, values in (("highest", max, highest), ("lowest", min, lowest)):
        shown = [f"{function(values[name], default=1.0):.2f}" for name in NOISE_VARIANTS]
        harness.show(title, "", *shown)
    print(f"\nthe default's interval holds the noise in {sum(held)} of {len(held)} bands")


BORDER = 8


def to_the_centres(profile):
    """The same profiles, constant beyond the outermost windows' centres."""
    return NoiseProfile(
        [
            (places[1:-1], amplitudes[1:-1]) if len(places) > 2 else (places, amplitudes)
            for places, amplitudes in profile.profiles
        ]
    )


def run_profile(argv=None):
    """How well the strength of the noise over a tomogram is known, where it changes and where not.

    Simulated tomograms with noise whose strength is given; the profiles are measured on windows of
    several sizes, and end at the outermost windows' centres or go on to the faces. Prints the power
    of the noise as it is taken to be over the true one: its mean in the outermost voxels, across
    the tilt axis and along it, and its spread over the tomogram (1 and 0 if all is known).

        python benchmarks/ablation.py profile [--cases uneven cell ...] [--windows 24 16 12]
    """
    parser = harness.parser(run_profile, ["uneven", "cell", "sirt"], [2], SHAPE)
    parser.add_argument("--windows", type=int, nargs="+", default=(24, 16, 12))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    shape = tuple(options.shape)
    harness.heading("case, seed", "windows", "profiles end at", "borders, mean", "spread")
    for name, seed, case, _ in harness.simulated_cases(options):
        volume = read(case.tomogram).numpy()
        truth = uneven_strength(shape) if name == "uneven" else np.ones(shape)
        for side in options.windows:
            size = periodogram.window_size(shape, side)
            corners = periodogram.window_corners(shape, size)
            power = periodogram.periodograms(functools.partial(crop, volume), corners, size)
            to_the_faces = NoiseProfile.measured(corners, size, power)
            for end, profile in (
                ("centres", to_the_centres(to_the_faces)),
                ("faces", to_the_faces),
            ):
                ratio = np.square(profile.at((0, 0, 0), shape).expand(shape).numpy() / truth)
                ratio /= np.median(ratio)
                outside = np.ones(shape, bool)
                outside[:, BORDER:-BORDER, BORDER:-BORDER] = False
                borders = f"{ratio[outside].mean():.2f}"
                harness.show(f"{name}, {seed}", side, end, borders, f"{ratio.std():.3f}")


# Tomograms whose half-maps are of odd and even tilts: {words: fields of SimulateConfig}, the
# thickness over the volume's.
OF_TILTS = {
    "cell": dict(specimen="cell"),
    "crowded": dict(specimen="crowded"),
    "cell, 2.5 times as thick": dict(specimen="cell", thickness=2.5),
    "crowded, 2.5 times as thick": dict(specimen="crowded", thickness=2.5),
    "crowded, 2.5 times as thick, tilts 2 degrees apart": dict(
        specimen="crowded", thickness=2.5, tilt_step=2.0
    ),
}


def run_half_maps(argv=None):
    """What half-maps differ by, beside the noise that their tomogram can have.

        python benchmarks/ablation.py half-maps [--cases cell in-situ ...] [--seeds 6]
            [--lamella FOLDER]

    Prints the power of half the difference over the most that the noise may have, by which a
    training decides whether half-maps are used: of simulated tomograms with half-maps of frames
    (in-situ: of tilts), of others with half-maps of odd and even tilts and of frames (SNR 0.3), and
    of the real cell's boxes, box0_odd.mrc and so on, in FOLDER.
    """
    parser = harness.parser(run_half_maps, NOISE_CASES, [6], SHAPE)
    parser.add_argument("--lamella", metavar="FOLDER")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    harness.heading("case, seed", "half-maps of", "difference over noise")

    noises = functools.partial(noise_of, config=TrainConfig(), device=CPU)

    def row(words, kind, paths):
        halves = HalfMaps([Volume(path) for path in paths])
        ratio = difference_over_noise(halves, noises)
        harness.show(words, kind, f"{ratio:.3f}")

    for name, seed, case, _ in harness.simulated_cases(options):
        row(f"{name}, {seed}", "tilts" if name.startswith("in-situ") else "frames", case.halves)
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{half}.mrc") for half in ("odd", "even")]
        for seed in options.seeds:
            for words, fields in OF_TILTS.items():
                thickness = round(fields.get("thickness", 0) * options.shape[0])
                fields = dict(fields, shape=tuple(options.shape), thickness=thickness, snr=0.3)
                for kind, made in (("tilts", "tilts"), ("frames", "noise")):
                    config = SimulateConfig(seed=seed, half_maps=made, **fields)
                    volumes = simulate_volumes(config)
                    for path, half in zip(paths, ("odd", "even")):
                        mrc.write_volume(path, volumes[half], config.voxel_size)
                    row(f"{words}, {seed}", kind, paths)
    for number in range(BOXES if options.lamella else 0):
        halves = (f"box{number}_{half}.mrc" for half in ("odd", "even"))
        row(f"real cell, {number}", "tilts", [os.path.join(options.lamella, one) for one in halves])


def main(argv=None):
    parts = {
        "training": run_training,
        "noise": run_noise,
        "profile": run_profile,
        "half-maps": run_half_maps,
    }
    return harness.run(parts, argv)


if __name__ == "__main__":
    sys.exit(main())
