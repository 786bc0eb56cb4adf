"""How far what `f2fd check` says is to be believed.

    python benchmarks/trust.py estimates --help
    python benchmarks/trust.py verdicts --help
    python benchmarks/trust.py drawn --help

The first may be left out.
"""

import dataclasses
import glob
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

import harness
import numpy as np
import torch
from harness import read
from real import Cell
from skimage.filters import gaussian

from f2fd_core import CheckConfig, SimulateConfig, TrainConfig
from f2fd_core.checking.error import Estimate
from f2fd_core.checking.examine import DENOISED, REFERENCE, START, correlations, curves, shells_of
from f2fd_core.checking.parts import denoiser_of, parts_of
from f2fd_core.checking.reference import reference
from f2fd_core.checking.run import check
from f2fd_core.checking.shells import Whole, Windowed
from f2fd_core.checking.short import judged
from f2fd_core.checking.start import settings_of, start_of
from f2fd_core.commands.inputs import open_as_they_are
from f2fd_core.config import PRETRAINED, read_json
from f2fd_core.data import mrc
from f2fd_core.data.regions import crop
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.noise_matched import noise_of
from f2fd_core.runtime.device import choose_dtype
from f2fd_core.simulation.microscope import noise_free_volume, simulate_volumes, specimen_of

AUTOMATIC = "until it ends"
LAMELLA = "lamella"
HARDEST = "real-noise"
WITH_HALVES = AUTOMATIC + ", half-maps"
SHAPE = (64, 128, 128)
CASES = (
    "cell@0.05",
    "cell",
    "cell@0.3",
    "crowded",
    "in-situ",
    "thick",
    "sirt",
    "uneven",
    "lowpass",
    "binned",
    "int8",
    "dose-weighted",
    "spheres",
    HARDEST,
)
FEW = 25
MANY = 200
LEAST_CORRELATION = 0.3
DIFFERENT = 0.01
CPU = torch.device("cpu")
# What tomograms that are drawn at random may be, {field of SimulateConfig: values, all as likely}.
DRAWN = {
    "specimen": ("cell", "crowded", "spheres", "shapes", "matter"),
    "voxel_size": (6.0, 8.0, 10.0, 14.0, 18.0),
    "tilt_range": ((45.0,), (51.0,), (57.0,), (-50.0, 65.0), (-40.0, 60.0)),
    "tilt_step": (1.0, 2.0, 3.0, 5.0),
    "defocus": (1.5, 2.5, 4.0, 6.0),
    "dose": (0.0, 0.0, 2.0, 3.0),
}
# How they are reconstructed: {words: fields}.
RECONSTRUCTIONS = {
    "back-projection": {},
    "insertion": {"reconstruction": "insertion"},
    "CTF-corrected": {"reconstruction": "ctf-corrected"},
    "SIRT-like, 8": {"sirt_iterations": 8},
    "SIRT-like, 20": {"sirt_iterations": 20},
}
# The specimen's thickness over the volume's, 0 as one that ends with it.
DEPTHS = (0.0, 0.0, 1.5, 2.5, 4.0)
# From the lowest to the highest signal-to-noise ratio; the logarithm is drawn evenly. That of a
# specimen that extends beyond the volume is so many times as high.
SNRS = (0.02, 0.5)
BEYOND = 10.0
# Degrees between the tilts of the noise-free reconstruction that judges.
DENSE = 0.5
# The filters of which the judge's own best is taken (voxels).
SIGMAS = (0.7, 1.0, 1.5, 2.0, 3.0)


def models_of(tomograms, folder):
    """{words: path} of the models to check."""
    places = {name: os.path.join(folder, name) for name in ("auto", "many")}
    automatic = harness.trained(places["auto"], tomograms=tuple(tomograms))
    harness.trained(places["many"], tomograms=tuple(tomograms), steps=MANY, checkpoint_every=FEW)
    few, *_, many = sorted(glob.glob(os.path.join(places["many"], "checkpoints", "*.pt")))
    return {
        "pretrained": PRETRAINED,
        f"{FEW} steps": few,
        AUTOMATIC: automatic,
        f"{MANY} steps": many,
    }


class Checked:
    """A tomogram and what several models, {words: path}, make of it."""

    def __init__(self, tomogram, models, folder, half_maps=()):
        loaded = {
            name: checkpoint.restore(checkpoint.load(path), path) for name, path in models.items()
        }
        self.models, (_, trained) = models, next(iter(loaded.values()))
        (self.volume,) = open_as_they_are(
            TrainConfig(output=folder, tomograms=(tomogram,), half_maps=half_maps), trained
        )
        settings = settings_of(CheckConfig(device="cpu", threads=1), folder)
        self._measure(loaded, trained, settings)
        self.by_half_maps = Estimate(self.shells[Whole], self.results).by_half_maps
        if half_maps and not self.by_half_maps:
            self.volume = self.volume.alone()
            self._measure(loaded, trained, settings)

    def _measure(self, loaded, trained, settings):
        dtype = choose_dtype("auto", CPU)
        networks = {
            **loaded,
            START: (start_of(self.volume, settings, CPU, dtype), settings),
            REFERENCE: (reference(self.volume, settings, CPU, dtype, lambda: None), settings),
        }
        denoisers = {
            name: denoiser_of(self.volume, *made, CPU, dtype) for name, made in networks.items()
        }
        self.results, self.parts = list(denoisers), []
        self.shells = shells_of(
            denoisers,
            noise_of(self.volume, trained, CPU),
            0,
            lambda: None,
            parts_of(self.volume.shape),
            lambda *part: self.parts.append(part),
        )

    def estimated(self, name):
        return correlations(self.shells[Whole], [name, START, REFERENCE])[name]

    def correlation(self, name, truth):
        """The true one, in the parts that were checked."""
        pairs = [(crop(truth, *part).ravel(), arrays[name].ravel()) for part, arrays in self.parts]
        return float(np.corrcoef(*map(np.concatenate, zip(*pairs)))[0, 1])

    def shell_error(self, name, truth):
        """The mean difference of the estimated Fourier shell correlation from the true one."""
        (_, size), _ = self.parts[0]
        true = Windowed(size)
        pairs = [("truth", "truth"), ("result", "result"), ("result", "truth")]
        for part, arrays in self.parts:
            true.add({"truth": crop(truth, *part), "result": arrays[name]}, pairs)
        curve = true[pairs[2]] / np.sqrt(true[pairs[0]] * true[pairs[1]])
        estimate = np.array(
            curves(self.shells[Windowed], [name, START, REFERENCE], self.volume.voxel_size)["fsc"]
        )
        below = np.flatnonzero(curve < LEAST_CORRELATION)
        seen = slice(0, below[0] if len(below) else None)
        return float(np.abs(estimate - curve)[seen].mean()) if len(curve[seen]) else 0.0


def rows_of(name, seed, case, folder):
    """Rows of a simulated Case."""
    models = models_of([case.tomogram], folder)
    checked = Checked(case.tomogram, models, folder)
    with_halves = Checked(case.tomogram, {AUTOMATIC: models[AUTOMATIC]}, folder, case.halves)
    for source, words in ((checked, ""), (with_halves, ", half-maps")):
        # Streaks that both half-maps have are signal to them.
        judge = case.noise_free if source.by_half_maps else case.reference
        truth = read(judge).numpy()
        for model in source.models:
            yield dict(
                case=name,
                seed=seed,
                model=model + words,
                true=source.correlation(model, truth),
                shells=source.shell_error(model, truth),
                **source.estimated(model),
            )


def rows_of_lamella(source, folder):
    """Rows of a real cell, of all its boxes together."""
    cell = Cell(source)
    models = models_of(cell.even, folder)
    boxes = [Checked(path, models, folder) for path in cell.even]
    for name in models:
        results = [box.parts[0][1][name].astype(float) * box.volume.std for box in boxes]
        estimates = [box.estimated(name) for box in boxes]
        yield dict(
            case=LAMELLA,
            seed="",
            model=name,
            shells=float("nan"),
            true=cell.correlation(results),
            **{
                key: float(np.mean([one[key] for one in estimates]))
                for key in ("estimate", "low", "high")
            },
        )


def ranked(rows):
    """(how many pairs of models of one tomogram have the right order, how many there are), of those
    whose true correlations differ by DIFFERENT or more."""
    signs = []
    for one, other in itertools.combinations(rows, 2):
        true, estimate = (one[key] - other[key] for key in ("true", "estimate"))
        if (one["case"], one["seed"]) == (other["case"], other["seed"]) and abs(true) >= DIFFERENT:
            signs.append(true * estimate > 0)
    return sum(signs), len(signs)


def run_estimates(argv=None):
    """What `f2fd check` estimates beside the truth: simulated tomograms, and a real cell's halves.

        trust.py estimates [--cases cell@0.1 ...] [--seeds 3 ...] [--lamella FOLDER]
                           [--output docs/data/trust.json]

    Of each simulated tomogram four models are checked: the pretrained weights
    as they are, and what they learn in 25 and in 200 steps and until the training ends by itself;
    the latter with half-maps, too. Prints the correlation with the noise-free reconstruction (from
    dense tilts, where a thick specimen leaves streaks between them; with half-maps, to which these
    are signal, from the tomogram's own), the estimate and its interval, and the mean difference by
    Fourier shell up to where the true correlation falls below 0.3; then how far all estimates are
    off, how many intervals hold the truth, and of how many pairs of models of one tomogram, whose
    true correlations differ, the better is known.

    FOLDER holds box0_even.mrc ... box4_odd.mrc: models that learn from the even halves are checked
    on these, and the odd ones judge, by the correlation in the middle of all boxes together over
    the root of that between both halves.
    """
    parser = harness.parser(run_estimates, CASES, [3], SHAPE)
    parser.add_argument("--lamella", metavar="FOLDER")
    parser.add_argument("--output", help="file for the rows as JSON, kept up to date")
    arguments = parser.parse_args(argv)
    rows = []
    harness.heading("case", "seed", "model", "true", "estimated", "interval", "shells")

    def take(found):
        for row in found:
            rows.append(row)
            true, estimate, low, high, shells = (
                f"{row[key]:.3f}" for key in ("true", "estimate", "low", "high", "shells")
            )
            about = (row[key] for key in ("case", "seed", "model"))
            harness.show(*about, true, estimate, f"{low} to {high}", shells)
        if arguments.output:
            Path(arguments.output).write_text(json.dumps(rows, indent=1), encoding="utf-8")

    for name, seed, case, folder in harness.simulated_cases(arguments):
        take(rows_of(name, seed, case, folder))
    if arguments.lamella:
        with tempfile.TemporaryDirectory() as folder:
            take(rows_of_lamella(arguments.lamella, folder))
    summarise(rows)


def summaries(rows):
    """{words: (models, mean error, largest error, share of the intervals that hold the truth)} of
    all estimates without and with half-maps, and of those but for the case of real noise."""
    found = {}
    for words, but in itertools.product(("without half-maps", "with half-maps"), (None, HARDEST)):
        some = [
            row
            for row in rows
            if ("half-maps" in row["model"]) == words.startswith("with ") and row["case"] != but
        ]
        if some:
            error = np.abs([row["estimate"] - row["true"] for row in some])
            held = np.mean([row["low"] <= row["true"] <= row["high"] for row in some])
            name = f"{words}, but for {but}" if but else words
            found[name] = len(some), float(error.mean()), float(error.max()), float(held)
    return found


def summarise(rows):
    """Print how far all estimates are off, and how often the better model is known."""
    for words, (count, mean, largest, held) in summaries(rows).items():
        print(
            f"\n{words}: {count} rows, mean error {mean:.3f}, largest {largest:.3f}; "
            f"{100 * held:.0f} % of the intervals hold the truth"
        )
    right, pairs = ranked([row for row in rows if "half-maps" not in row["model"]])
    print(f"of {right} of {pairs} pairs the better is known")


SMALL = (32, 64, 64)
OVERTRAINED = 1500


def report(words, model, tomogram, folder, half_maps=(), **settings):
    output = os.path.join(folder, "check")
    check(
        CheckConfig(
            model=model,
            tomograms=(tomogram,),
            half_maps=half_maps,
            output=output,
            device="cpu",
            threads=1,
            overwrite=True,
            **settings,
        )
    )
    (numbers,) = read_json(os.path.join(output, "report.json")).values()
    marks = [entry["mark"] for entry in numbers["verdict"]]
    harness.show(words, *marks, numbers["verdict"][0]["sentence"])


def negative(path, folder):
    result = os.path.join(folder, "negative.mrc")
    mrc.write_volume(result, -np.asarray(read(path), np.float32), 10.0)
    return result


def run_verdicts(argv=None):
    """The marks that `f2fd check` gives to models of which it is known whether they are good.

        python benchmarks/trust.py verdicts [--lamella FOLDER --other FOLDER_OF_VERSION_1.1]

    Good: trained on this tomogram, with default options. Bad: of another specimen, overtrained
    (from random weights on a small tomogram), of the other contrast, with tiles so small that they
    show; and, with --lamella (box0_even.mrc ...) and a checkout of version 1.1, what that made of a
    real cell.
    """
    parser = harness.parser(run_verdicts)
    parser.add_argument("--lamella", metavar="FOLDER")
    parser.add_argument("--other", metavar="FOLDER")
    arguments = parser.parse_args(argv)
    harness.heading("model", "better?", "right?", "invented?", "found?", "lost?", "")
    with tempfile.TemporaryDirectory() as folder:
        place = os.path.join(folder, "run")

        def simulated(name, shape):
            return harness.simulated(name, shape, harness.SNR, 3, os.path.join(folder, name))

        cell, spheres, crowded = (simulated(name, SHAPE) for name in ("cell", "spheres", "crowded"))
        good = harness.trained(place, tomograms=(cell.tomogram,))
        report("trained on this tomogram", good, cell.tomogram, folder)
        report("the same, with half-maps", good, cell.tomogram, folder, cell.halves)
        report("of the other contrast", good, negative(cell.tomogram, folder), folder)
        report("with tiles of 16 voxels", good, cell.tomogram, folder, tile_size=16)
        other = harness.trained(place, tomograms=(spheres.tomogram,))
        report("of another specimen", other, crowded.tomogram, folder)
        small = simulated("cell", SMALL).tomogram
        over = harness.trained(place, tomograms=(small,), start="random", steps=OVERTRAINED)
        report(f"overtrained, {OVERTRAINED} steps", over, small, folder)
        if arguments.lamella:
            boxes = Cell(arguments.lamella).even
            model = harness.trained(place, tomograms=tuple(boxes))
            report("a real cell, trained on it", model, boxes[0], folder)
            if arguments.other:
                words = ("train", *boxes, "--output", place, "--overwrite")
                harness.program(arguments.other, folder, *words)
                for number, box in enumerate(boxes):
                    report(f"the same, version 1.1, box {number}", model, box, folder)


def drawn(seed, shape):
    """(SimulateConfig, what is special about it in words) of a tomogram drawn at random."""
    random = np.random.default_rng(seed)

    def one_of(values):
        return values[random.integers(len(values))]

    fields = {name: one_of(values) for name, values in DRAWN.items()}
    depth, reconstruction = one_of(DEPTHS), one_of(list(RECONSTRUCTIONS))
    snr = np.exp(random.uniform(*np.log(SNRS))) * (BEYOND if depth else 1)
    config = SimulateConfig(
        shape=shape,
        seed=seed,
        snr=float(snr),
        thickness=round(depth * shape[0]),
        **fields,
        **RECONSTRUCTIONS[reconstruction],
    )
    words = f"{config.specimen}, {config.voxel_size:g} Å, {reconstruction}, SNR {snr:.2f}"
    words += f", {config.dose:g} e/Å² a tilt" if config.dose else ""
    return config, words + (f", {depth:g} times as thick" if depth else "")


def run_drawn(argv=None):
    """Tomograms of which everything is drawn at random: the default, and what it says of itself.

        trust.py drawn [--seeds 220 221 ...] [--shape 64 128 128]

    Specimen, voxel size, tilts, defocus, dose, thickness, reconstruction and noise. Prints the
    correlation with the noise-free reconstruction from tilts half a degree apart of the tomogram,
    the best Gaussian filter, the pretrained weights and the result of a training on it, and what
    the short check after the training estimates of the result; then how often the result is worse
    than the others, and how far the estimates are off.
    """
    parser = harness.parser(run_drawn, seeds=range(220, 240), shape=SHAPE)
    options = parser.parse_args(argv)
    harness.heading("seed", "", "input", "Gaussian", "pretrained", "default", "estimated")
    rows = []
    for seed in options.seeds:
        config, words = drawn(seed, tuple(options.shape))
        specimen = specimen_of(config)
        noisy = simulate_volumes(config, specimen)["tomogram"]
        clean = noise_free_volume(
            dataclasses.replace(
                config, tilt_step=DENSE, dose=config.dose * DENSE / config.tilt_step
            ),
            specimen,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "tomogram.mrc")
            mrc.write_volume(path, noisy, config.voxel_size)
            model = harness.trained(os.path.join(folder, "run"), tomograms=(path,))
            results = [
                read(harness.results(one, [path], folder)[0]).numpy() for one in (PRETRAINED, model)
            ]
            trained = TrainConfig(tomograms=(path,), output=folder, device="cpu", threads=1)
            with harness.quietly():
                found = [each[DENOISED] for _, each in judged(model, trained)]
        filtered = [gaussian(noisy, sigma) for sigma in SIGMAS]
        values = [
            max(np.corrcoef(one.ravel(), clean.ravel())[0, 1] for one in some)
            for some in ([noisy], filtered, *([one] for one in results))
        ]
        # Where the noise is not known, nothing is estimated.
        about = found[0] if found else dict.fromkeys(("estimate", "low", "high"), np.nan)
        rows.append((*values, *(about[key] for key in ("estimate", "low", "high"))))
        harness.show(
            seed,
            words,
            *(f"{value:.3f}" for value in values),
            "{estimate:.2f} ({low:.2f} to {high:.2f})".format(**about),
        )
    table = np.array(rows).T
    result, estimate, low, high = table[3:]
    print()
    for words, other in zip(("input", "best Gaussian filter", "pretrained weights"), table):
        print(
            f"the result beside the {words}: "
            f"{(result - other).mean():+.3f}, lowest {(result - other).min():+.3f}; worse by more "
            f"than {DIFFERENT:g}: {int((result < other - DIFFERENT).sum())} of {len(rows)}"
        )
    print(
        f"the estimate: mean error {np.nanmean(np.abs(estimate - result)):.3f}, largest "
        f"{np.nanmax(np.abs(estimate - result)):.3f}; "
        f"{100 * ((low <= result) & (result <= high)).mean():.0f} % of the intervals hold the truth"
    )


def main(argv=None):
    parts = {"estimates": run_estimates, "verdicts": run_verdicts, "drawn": run_drawn}
    return harness.run(parts, argv)


if __name__ == "__main__":
    sys.exit(main())
