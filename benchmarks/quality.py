"""How good the results are: beside other methods, step by step, of unusual tomograms, of versions.

    python benchmarks/quality.py methods --help
    python benchmarks/quality.py curve --help
    python benchmarks/quality.py unusual --help
    python benchmarks/quality.py versions --help
    python benchmarks/quality.py oblique --help

The first may be left out. pictures.py draws what it finds.
"""

import csv
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import harness
import numpy as np
from harness import read
from real import Cell
from scipy.ndimage import rotate
from skimage.filters import gaussian
from skimage.restoration import denoise_tv_chambolle

from f2fd_core import BenchmarkConfig, SimulateConfig, TrainConfig
from f2fd_core.benchmarking.cases import Case
from f2fd_core.benchmarking.methods import run_filter
from f2fd_core.checking.examine import DENOISED, GAUSSIAN, START
from f2fd_core.checking.shells import TOMOGRAM
from f2fd_core.checking.short import judged
from f2fd_core.commands.inputs import open_volumes
from f2fd_core.config import PRETRAINED
from f2fd_core.config.tools import BENCHMARK_CASES
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation, fourier_shell_correlation
from f2fd_core.network import checkpoint
from f2fd_core.runtime.device import choose_devices, choose_dtype, prepare_cpu
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.simulation.microscope import simulate_volumes
from f2fd_core.training.start import take_initial_weights
from f2fd_core.training.state import Training
from f2fd_core.training.stopping import CHECK_EVERY
from f2fd_core.training.trainer import fit
from f2fd_core.training.writer import Writer

SHAPE = (64, 128, 128)
# The cases that need no real data.
SIMULATED = [name for name in BENCHMARK_CASES if name != "real-noise"]
CASES = (
    "cell@0.1",
    "crowded@0.1",
    "in-situ@0.1",
    "dose-weighted@0.1",
    "ctf-corrected@0.1",
    "thick@0.1",
    "sirt@0.1",
    "lowpass@0.1",
    "binned@0.1",
    "uneven@0.1",
    "real-noise@0.1",
    "spheres@0.3",
    "cell@0.3",
    "cell@1",
)
FILTERS = ("gaussian", "tv", "nlm")
# Of each: whether it learns from half-maps, and in which way.
LEARNED = {
    "default": (False, "noise_matched"),
    "half-maps": (True, "noise_matched"),
    "noise2noise": (True, "noise2noise"),
}
METHODS = ("input", *FILTERS, "pretrained", *LEARNED)
SCORES = ("correlation", "ssim", "fsc_mean", "membrane_average_precision")
COLUMNS = ("case", "seed", "method", "setting", *SCORES, "seconds")
LAMELLA = "real cell"
CHECKED = "f2fd check"
# Settings of the filters on the real cell, of which the judge's own best is taken.
SIGMAS = (1.0, 1.5, 2.0, 2.5, 3.0)
WEIGHTS = (1.0, 2.0, 3.0, 5.0, 8.0)


class Rows:
    """The rows of a file, which is written after every new one."""

    def __init__(self, path):
        self.path, self.rows = Path(path), []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as stream:
                self.rows = list(csv.DictReader(stream))

    def methods(self, case, seed):
        return {
            row["method"] for row in self.rows if (row["case"], row["seed"]) == (case, str(seed))
        }

    def add(self, **values):
        shown = {
            name: f"{value:.4f}" if isinstance(value, float) else str(value)
            for name, value in values.items()
            if value is not None
        }
        self.rows.append({name: shown.get(name, "") for name in COLUMNS})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        print(*self.rows[-1].values(), flush=True)


def steps_of(model):
    """How many steps made a model, in words."""
    return f"{checkpoint.load(model)['step']} steps"


def result_of(method, case, pretrained, folder):
    """(path of a method's result on a Case, its row's setting and seconds of training)."""
    if method == "input":
        return case.tomogram, {}
    if method in FILTERS:
        path = os.path.join(folder, f"{method}.mrc")
        return path, dict(setting=run_filter(method, BenchmarkConfig(), case, path).setting)
    model, halves, about = pretrained, (), {}
    if method in LEARNED:
        of_halves, perturbation = LEARNED[method]
        halves = case.halves if of_halves else ()
        began = time.monotonic()
        model = harness.trained(
            os.path.join(folder, "run"),
            tomograms=() if halves else (case.tomogram,),
            half_maps=halves,
            perturbation=perturbation,
        )
        about = dict(setting=steps_of(model), seconds=time.monotonic() - began)
    (path,) = harness.results(model, [case.tomogram], os.path.join(folder, "out"), halves)
    return path, about


def compare_simulated(rows, name, seed, methods, pretrained):
    """These methods on one simulated tomogram."""
    with tempfile.TemporaryDirectory() as folder:
        case = harness.simulated(name, SHAPE, harness.SNR, seed, folder)
        scored = harness.scorer(case)
        for method in methods:
            path, about = result_of(method, case, pretrained, folder)
            scores = scored(read(path))
            about.update((key, scores.get(key)) for key in SCORES)
            rows.add(case=name, seed=seed, method=method, **about)


def compare_lamella(rows, source, folder):
    """The even halves of five boxes of a real cell, with the odd ones as the judge."""
    cell = Cell(source)

    def add(method, results, setting=None):
        score = float(cell.correlation(results))
        rows.add(case=LAMELLA, seed=0, method=method, correlation=score, setting=setting)

    def best(method, function, settings):
        units = [(box - box.mean()) / box.std() for box in cell.inputs]
        made = {value: [function(unit, value) for unit in units] for value in settings}
        setting = max(made, key=lambda value: cell.correlation(made[value]))
        add(method, made[setting], f"{setting:g}")

    known = rows.methods(LAMELLA, 0)
    if "input" not in known:
        add("input", cell.inputs)
        best("gaussian", gaussian, SIGMAS)
        best("tv", denoise_tv_chambolle, WEIGHTS)
    if "pretrained" not in known:
        add("pretrained", cell.denoised(PRETRAINED, folder))
    for method, (of_halves, perturbation) in LEARNED.items():
        if method in known:
            continue
        if of_halves:
            results = cell.left_out(folder, perturbation=perturbation)
            add(method, results, "trained on the other four boxes")
        else:
            model = harness.trained(folder, tomograms=tuple(cell.even))
            add(method, cell.denoised(model, folder), steps_of(model))


def estimate(rows, path, folder):
    """A tomogram without a judge: what `f2fd check` estimates."""
    name = f"{Path(path).stem} ({CHECKED})"
    if rows.methods(name, 0):
        return
    model = harness.trained(folder, tomograms=(path,))
    config = TrainConfig(tomograms=(path,), output=folder, device="cpu", threads=1)
    with harness.quietly():
        ((_, found),) = judged(model, config)
    for method, key in (
        ("input", TOMOGRAM),
        ("gaussian", GAUSSIAN),
        ("pretrained", START),
        ("default", DENOISED),
    ):
        interval = "{low:.2f} to {high:.2f}".format(**found[key])
        rows.add(
            case=name, seed=0, method=method, setting=interval, correlation=found[key]["estimate"]
        )


def run_methods(argv=None):
    """The README's plot: what a user gets by default and with half-maps, beside filters.

        quality.py methods docs/data/quality.csv --seeds 21 --lamella FOLDER --check tomogram.mrc

    Makes what is missing of the rows of a CSV file, one seed of all cases after the other, in an
    hour or two on one core. A row is added after every result; it begins where it stopped. Scores
    are against the noise-free reconstruction; of the real cell, against its odd halves; of a
    tomogram to check, what 'f2fd check' estimates.
    """
    parser = harness.parser(run_methods, CASES, [21])
    parser.add_argument("rows", metavar="CSV")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--pretrained", metavar="MODEL", default=PRETRAINED, help="other weights")
    parser.add_argument("--lamella", metavar="FOLDER", help="with box0_even.mrc ... box4_odd.mrc")
    parser.add_argument("--check", nargs="*", default=[], metavar="MRC")
    options = parser.parse_args(argv)
    rows = Rows(options.rows)
    for path in options.check:
        with tempfile.TemporaryDirectory() as folder:
            estimate(rows, path, folder)
    for number, seed in enumerate(options.seeds):
        for name in options.cases:
            known = rows.methods(name, seed)
            methods = [method for method in options.methods if method not in known]
            if methods:
                compare_simulated(rows, name, seed, methods, options.pretrained)
        if options.lamella and number == 0:
            with tempfile.TemporaryDirectory() as folder:
                compare_lamella(rows, options.lamella, folder)


class Endless(Training):
    """A training of ``most`` steps that notes where it would have ended, and with which model."""

    most, ended = 0, None

    def finished(self):
        if self.ended is None and super().finished():
            self.ended = self.step, self.best.step
        return self.step >= self.most


class Judge(Writer):
    """Notes at every validation what the rule can't know: (step, seconds of the steps, loss,
    correlation, SSIM)."""

    def __init__(self, training, scored):
        super().__init__(training)
        self.scored, self.seconds, self.rows = scored, 0.0, []

    def after_step(self, row, seconds):
        self.seconds += seconds
        if "validation_loss" in row:
            training = self.training
            scores = self.scored(harness.denoised(training))
            training.network.train()
            found = row["validation_loss"], scores["correlation"], scores["ssim"]
            self.rows.append((training.step, self.seconds, *found))
        super().after_step(row, seconds)


def run_curve(argv=None):
    """What each step of a training is worth, and whether it ends where it should.

        quality.py curve --steps 1500 [--start random] [--initial-model MODEL]

    Trains the default on simulated tomograms beyond the point where --steps 0 (auto) would have
    ended. Prints at every validation the seconds of all steps, the loss on held-out parts, and the
    true correlation and SSIM of the denoised tomogram; then the best step by either, and where the
    rule stops.
    """
    parser = harness.parser(run_curve, ["cell"], [1], SHAPE)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--start", default=TrainConfig.start)
    parser.add_argument("--initial-model", default="", help="trained on another tomogram")
    options = parser.parse_args(argv)
    if options.steps < CHECK_EVERY:
        parser.error(f"--steps is {options.steps}; expected at least {CHECK_EVERY}, a check")
    prepare_cpu(0)
    (device,) = choose_devices("auto")
    harness.heading("case, seed", "step", "s", "loss on held-out parts", "correlation", "SSIM")
    for name, seed, case, folder in harness.simulated_cases(options):
        config = TrainConfig(
            tomograms=(case.tomogram,),
            output=folder + "/run",
            checkpoint_every=options.steps,
            start=options.start,
            initial_model=options.initial_model,
        )
        prepare_folder(config)
        training = Endless(config, open_volumes(config), [], device, choose_dtype("auto", device))
        training.most = options.steps
        take_initial_weights(training)
        with harness.quietly(), Judge(training, harness.scorer(case)) as judge:
            fit(training, judge)
        about = f"{name}, {seed}"
        for step, seconds, *scores in judge.rows:
            harness.show(about, step, f"{seconds:.0f}", *(f"{value:.4f}" for value in scores))
        lowest, highest = (
            min(judge.rows, key=lambda row: row[2])[0],
            max(judge.rows, key=lambda row: row[3])[0],
        )
        print(f"\nlowest loss: step {lowest}; highest correlation: step {highest}")
        if training.ended:
            stopped, taken = training.ended
            print(f"the rule stops at step {stopped} and takes the model of step {taken}\n")


def cells_of(result, case):
    """What is shown of a version's result on a Case."""
    noisy = read(case.tomogram)
    if not case.reference:
        return f"{float(result.std() / noisy.std()):.3f} of the contrast", ""
    clean = read(case.reference)
    change = np.subtract(
        *(fourier_shell_correlation(volume, clean)[1].numpy() for volume in (result, noisy))
    )
    return f"{correlation(result, clean):.3f}", f"{change.min():+.3f} ({change.argmin()})"


def run_versions(argv=None):
    """This version beside another one, with default options on the same simulated tomograms.

        git worktree add /somewhere/else v1.1
        python benchmarks/quality.py versions /somewhere/else [--cases cell ...] [--seeds 3 ...]
        python benchmarks/quality.py versions [--cases cell ...]     # this version alone

    They train on a case's tomogram and denoise it, as programs of their own. Prints the correlation
    with the noise-free reconstruction, the lowest change of the Fourier shell correlation with it
    over the noisy tomogram's, the shell of that, and the seconds that the training took. Without a
    reference (empty): the standard deviation that is left.
    """
    parser = harness.parser(run_versions, SIMULATED, [3], SHAPE)
    harness.add_other_version(parser)
    options = parser.parse_args(argv)
    harness.heading("case", "seed", "version", "correlation", "worst change (shell)", "s")
    for name, seed, case, folder in harness.simulated_cases(options):
        for version, code in harness.versions(options.code).items():
            (result,), seconds = harness.by_version(code, [case.tomogram], folder)
            harness.show(name, seed, version, *cells_of(read(result), case), f"{seconds:.0f}")


def oblique(volume, degrees, binned=True):
    """The middle of a volume (Z, Y, X), rotated by so many ``degrees`` about Z, at twice the voxel
    size, so that what interpolation spoils is beyond the new Nyquist; or not ``binned``."""
    rotated = rotate(volume, degrees, axes=(1, 2), reshape=False, order=3 if binned else 1)
    y, x = (side // 6 for side in volume.shape[1:])
    middle = rotated[:, y:-y, x:-x]
    if not binned:
        return middle
    spectrum = np.fft.fftshift(np.fft.fftn(middle))
    kept = (slice(side // 4, side // 4 + side // 2) for side in spectrum.shape)
    return np.fft.ifftn(np.fft.ifftshift(spectrum[tuple(kept)])).real.astype(np.float32)


def run_oblique(argv=None):
    """A tilt axis that is so many degrees from Y: this version, beside another one, or by itself.

        quality.py oblique [/somewhere/else] [--angles 0 15 30 -50] [--interpolated]
                           [--seeds 3] [--shape 64 128 128]

    A simulated cell of twice the shape and half the voxel size is rotated about Z, cropped and
    binned; with --interpolated one of this shape is rotated and cropped, so that its noise has
    another form. Prints the correlation with the noise-free reconstruction, rotated alike, and its
    lowest change over the noisy tomogram's by shell; of the pretrained weights as they are, too.
    """
    parser = harness.parser(run_oblique, seeds=[3], shape=SHAPE)
    harness.add_other_version(parser)
    parser.add_argument("--angles", type=float, nargs="+", default=(0, 15, 30, -50))
    parser.add_argument("--interpolated", action="store_true")
    options = parser.parse_args(argv)
    # A quarter of the noise is left by binning.
    finer, left = (1, 1) if options.interpolated else (2, 1 / 4)
    harness.heading("seed", "degrees", "version", "correlation", "worst change (shell)", "s")
    for seed in options.seeds:
        config = SimulateConfig(
            shape=tuple(finer * side for side in options.shape),
            voxel_size=VOXEL_SIZE / finer,
            snr=harness.SNR * left,
            seed=seed,
        )
        volumes = simulate_volumes(config)
        for degrees in options.angles:
            with tempfile.TemporaryDirectory() as folder:
                paths = [os.path.join(folder, f"{part}.mrc") for part in ("tomogram", "clean")]
                for path, part in zip(paths, ("tomogram", "clean")):
                    turned = oblique(volumes[part], degrees, binned=not options.interpolated)
                    mrc.write_volume(path, turned, VOXEL_SIZE)
                case = Case("oblique", harness.SNR, seed, paths[0], reference=paths[1])
                (result,) = harness.results(PRETRAINED, paths[:1], os.path.join(folder, "start"))
                about = seed, f"{degrees:g}"
                harness.show(*about, "pretrained", *cells_of(read(result), case), "")
                for version, code in harness.versions(options.code).items():
                    (result,), seconds = harness.by_version(code, paths[:1], folder)
                    harness.show(*about, version, *cells_of(read(result), case), f"{seconds:.0f}")


VOXEL_SIZE = 10.0


def balls(shape, count, radius, random, faces=False):
    """Whether a voxel lies in one of so many balls, at random places or at the faces along Z."""
    z, y, x = np.ogrid[tuple(slice(side) for side in shape)]
    inside = np.zeros(shape, bool)
    for centre in random.uniform(radius, np.array(shape) - radius, (count, 3)):
        if faces:
            centre[0] = shape[0] * (centre[0] > shape[0] / 2)
        inside |= (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
    return inside


class Unusual(NamedTuple):
    """A tomogram, (Z, Y, X) as the rest: its ``truth``, where that is ``scored``, and what was laid
    over the specimen."""

    values: np.ndarray
    truth: np.ndarray
    scored: np.ndarray
    laid_over: np.ndarray


def laid(where, level):
    """``level`` (standard deviations) ``where`` that holds; there is nothing to score."""
    return lambda unit, clean: Unusual(
        np.where(where(unit), level, unit), clean, ~where(unit), 0 * unit
    )


def above(added):
    """``added`` to every voxel."""
    return lambda unit, clean: Unusual(
        unit + added(unit), clean, np.ones(unit.shape, bool), added(unit) + 0 * unit
    )


def within(pad, level):
    """In a constant border."""

    def made(unit, clean):
        padded = np.pad(clean, pad)
        return Unusual(
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
    return lambda unit, clean: Unusual(
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


ALONG_Y = ((0, 0), (0, 32), (0, 0))
ROUND = ((16, 16), (32, 32), (32, 32))
DEPTH = ((32, 32), (0, 0), (0, 0))
UNUSUAL = {
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


def unusual_source(seed):
    """(tomogram in its standard deviations, noise-free reconstruction)."""
    volumes = simulate_volumes(SimulateConfig(shape=SHAPE, snr=0.3, seed=seed))
    tomogram = volumes["tomogram"].astype(np.float64)
    return (tomogram - tomogram.mean()) / tomogram.std(), volumes["clean"].astype(np.float64)


def run_unusual(argv=None):
    """Tomograms as they come: beads, ice, borders, ramps, vacuum, turned; beside the plain one.

        quality.py unusual [--cases plain beads ...] [--steps 50] [--seeds 5]

    A simulated tomogram of 64 x 128 x 128 voxels (SNR 0.3) with what is unusual in it. Prints, for
    each case and seed, the correlation with the noise-free reconstruction where the specimen is, of
    the result minus what was laid over it: by a model trained on this very tomogram, and by one
    trained on another that has nothing unusual.
    """
    parser = harness.parser(run_unusual, seeds=[5])
    parser.add_argument("--cases", nargs="+", default=list(UNUSUAL), choices=list(UNUSUAL))
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args(argv)
    harness.heading("case", "seed", "own model", "other tomogram's model")
    with tempfile.TemporaryDirectory() as folder:
        path, own, other = (os.path.join(folder, name) for name in ("tomogram.mrc", "own", "other"))
        settings = dict(tomograms=(path,), steps=options.steps)
        for seed in options.seeds:
            unit, clean = unusual_source(seed)
            mrc.write_volume(path, unusual_source(seed + 100)[0].astype(np.float32), VOXEL_SIZE)
            harness.trained(other, **settings)
            for name in options.cases:
                case = UNUSUAL[name](unit, clean)
                mrc.write_volume(path, case.values.astype(np.float32), VOXEL_SIZE)
                harness.trained(own, **settings)
                cells = []
                for place in (own, other):
                    (result,) = harness.results(place + "/model.pt", [path], folder)
                    left = read(result).double().numpy() - case.laid_over
                    found = np.corrcoef(left[case.scored], case.truth[case.scored])[0, 1]
                    cells.append(f"{found:.3f}")
                harness.show(name, seed, *cells)


def main(argv=None):
    parts = {
        "methods": run_methods,
        "curve": run_curve,
        "unusual": run_unusual,
        "versions": run_versions,
        "oblique": run_oblique,
    }
    return harness.run(parts, argv)


if __name__ == "__main__":
    sys.exit(main())
