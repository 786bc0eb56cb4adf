"""How good the results are: all methods, versions, starting weights, unusual tomograms.

    python benchmarks/quality.py methods --help
    python benchmarks/quality.py versions --help
    python benchmarks/quality.py pretrained --help
    python benchmarks/quality.py unusual --help

The first may be left out.
"""

import argparse
import contextlib
import csv
import os
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import harness
import numpy as np
from harness import read

import f2fd_core
from f2fd_core import BenchmarkConfig, DenoiseConfig, SimulateConfig, TrainConfig, denoise, train
from f2fd_core.benchmarking.compare import MEASURED, draw, means
from f2fd_core.benchmarking.methods import run_filter
from f2fd_core.cli import main as f2fd
from f2fd_core.config import PRETRAINED
from f2fd_core.config.tools import BENCHMARK_CASES
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation, fourier_shell_correlation
from f2fd_core.simulation.microscope import simulate_volumes

# The cases that need no real data.
SIMULATED = [name for name in BENCHMARK_CASES if name != "real-noise"]


FULL = [
    "--shape",
    "96",
    "160",
    "160",
    "--snr",
    "0.1",
    "0.3",
    "1",
    "--seeds",
    "1",
    "2",
    "--cases",
    *SIMULATED,
    "--steps",
    "600",
    "--methods",
    "gaussian",
    "tv",
    "nlm",
    "deconvolve",
    "noise_matched",
    "fourier_masks",
    "self2self",
    "noise2void",
    "noise2noise",
    "published",
    "--published-steps",
    "as the others",
]


COMPACT = ("correlation", "ssim", "fsc_mean", "membrane_average_precision")


JOINED = (*COMPACT, "contrast")


def read_rows(folders):
    """{(case, snr, seed, method): row} of the runs' scores.csv, with numbers for the scores.

    Of what several runs hold, the last one's counts. Each row has its volume's path.
    """
    rows = {}
    for folder in folders:
        with open(os.path.join(folder, "scores.csv"), newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                row.update((name, float(row[name]) if row[name] else None) for name in MEASURED)
                row["snr"] = float(row["snr"])
                place = f"{row['case']}_snr{row['snr']:g}_seed{row['seed']}"
                row["folder"] = os.path.join(folder, place)
                rows[row["case"], row["snr"], row["seed"], row["method"]] = row
    return rows


def table(title, rows, methods, scores):
    """Markdown: a row a case, a column a method, in each cell the ``scores`` that are known."""
    found = {(row["case"], row["snr"], row["method"]): row for row in means(rows.values())}
    lines = [f"| {title} | {' | '.join(methods)} |", "|---" * (1 + len(methods)) + "|"]
    for case, snr in dict.fromkeys((case, snr) for case, snr, *_ in rows):
        own = [found.get((case, snr, method), {}) for method in methods]
        cells = [
            " / ".join(f"{row[score]:.3f}" for score in scores if row.get(score) is not None)
            for row in own
        ]
        if any(cells):
            lines.append(f"| {case}, SNR {snr:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def joined(rows):
    """One table for each score of JOINED, with the methods that have it."""
    scored = {
        score: list(dict.fromkeys(row["method"] for row in rows.values() if row[score] is not None))
        for score in JOINED
    }
    return "\n\n".join(
        table(score, rows, methods, [score]) for score, methods in scored.items() if methods
    )


def draw_joined(rows, path):
    """The picture of several runs: a row a case, with the volumes of its first seed."""
    pictures, references = {}, {}
    for (case, snr, _, method), row in rows.items():
        name = "tomogram" if method == "input" else method
        volume, reference = (os.path.join(row["folder"], name + ".mrc") for name in (name, "clean"))
        if os.path.exists(volume):
            pictures.setdefault((case, snr), {}).setdefault(method, volume)
            references.setdefault((case, snr), reference)
    methods = dict.fromkeys(method for *_, method in rows)
    for case, reference in references.items():
        found = pictures[case]
        pictures[case] = {method: found[method] for method in methods if method in found}
        pictures[case]["reference"] = reference
    draw(pictures, list(rows.values()), path)


def run_methods(argv=None):
    """The tables and the figure of the README and docs/method.md: all methods side by side.

        quality.py methods --output out            # quick: within half an hour on 2 cores
        quality.py methods --output out --full     # all cases, ratios and seeds: hours
        quality.py methods --join out1 out2 ...    # a table a score, of several runs
        quality.py methods --join out1 out2 --compact input noise_matched noise2noise
                                                   # these methods, all scores in a cell
        quality.py methods --join out1 out2 --picture methods.png    # and their volumes

    Any further option goes to 'f2fd benchmark' and wins, for example --cases, --snr, --seeds,
    --steps.
    """
    parser = harness.parser(run_methods)
    parser.add_argument("--output")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--join", nargs="+", metavar="FOLDER")
    parser.add_argument("--compact", nargs="+", metavar="METHOD")
    parser.add_argument("--picture", metavar="PNG")
    options, rest = parser.parse_known_args(argv)
    if options.join:
        rows = read_rows(options.join)
        print(
            table(" / ".join(COMPACT), rows, options.compact, COMPACT)
            if options.compact
            else joined(rows)
        )
        if options.picture:
            draw_joined(rows, options.picture)
        return 0
    if not options.output:
        parser.error("--output is missing; expected a folder for tables and volumes")
    return f2fd(["benchmark", options.output, *(FULL if options.full else []), *rest])


HERE = os.path.dirname(os.path.dirname(f2fd_core.__file__))


def result_of(code, tomogram, folder):
    """(the denoised tomogram, seconds of the training) of the version in the folder ``code``."""

    def run(*words):
        subprocess.run(
            [sys.executable, "-m", "f2fd_core", *words, "--device", "cpu", "--threads", "1"],
            check=True,
            capture_output=True,
            cwd=folder,
            env=dict(os.environ, PYTHONPATH=code, OMP_NUM_THREADS="1"),
        )

    began = time.monotonic()
    run("train", tomogram, "--output", "run", "--overwrite")
    seconds = time.monotonic() - began
    run("denoise", "run/model.pt", tomogram, "--output", ".", "--overwrite")
    return read(os.path.join(folder, "tomogram_denoised.mrc")), seconds


def row(result, case):
    noisy = read(case.tomogram)
    if not case.reference:
        return f"{float(result.std() / noisy.std()):.3f} of the contrast | |"
    clean = read(case.reference)
    change = np.subtract(
        *(fourier_shell_correlation(volume, clean)[1].numpy() for volume in (result, noisy))
    )
    return f"{correlation(result, clean):.3f} | {change.min():+.3f} ({change.argmin()}) |"


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
    parser = harness.parser(run_versions)
    parser.add_argument(
        "code", metavar="FOLDER", nargs="?", help="with the other version's f2fd_core"
    )
    parser.add_argument("--cases", nargs="+", default=SIMULATED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    options = parser.parse_args(argv)
    print(
        "| case | seed | version | correlation | worst change (shell) | s |\n"
        "|---|---|---|---|---|---|"
    )
    for seed in options.seeds:
        for name in options.cases:
            with tempfile.TemporaryDirectory() as folder:
                case = harness.simulated(name, options.shape, options.snr, seed, folder)
                versions = {"other": options.code, "this": HERE}
                for version, code in versions.items():
                    if not code:
                        continue
                    result, seconds = result_of(os.path.abspath(code), case.tomogram, folder)
                    print(
                        f"| {name} | {seed} | {version} | {row(result, case)} {seconds:.0f} |",
                        flush=True,
                    )


def run_pretrained(argv=None):
    """Starting weights as they are, without a step, beside the best Gaussian and total variation.

        python benchmarks/quality.py pretrained [MODEL ...] [--cases cell ...] [--seeds 3 ...]

    MODEL: files such as f2fd_core/network/pretrained.pt, the default, with which the tomograms are
    denoised; matter is dark in the cases, as where these have learned. Prints the correlation with
    the noise-free reconstruction.
    """
    parser = harness.parser(run_pretrained)
    parser.add_argument("models", metavar="MODEL", nargs="*", default=[PRETRAINED])
    scored = [name for name in SIMULATED if name != "empty"]
    parser.add_argument("--cases", nargs="+", default=scored)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    options = parser.parse_args(argv)
    names = ["gaussian", "tv", *map(os.path.basename, options.models)]
    print(f"| case | seed | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for seed in options.seeds:
        for name in options.cases:
            with tempfile.TemporaryDirectory() as folder:
                config = BenchmarkConfig(shape=tuple(options.shape))
                case = harness.simulated(name, options.shape, options.snr, seed, folder)
                results = [
                    run_filter(method, config, case, os.path.join(folder, method)).path
                    for method in names[:2]
                ]
                for number, model in enumerate(options.models):
                    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                        results += denoise(
                            DenoiseConfig(
                                model=model,
                                tomograms=(case.tomogram,),
                                device="cpu",
                                threads=1,
                                output=os.path.join(folder, str(number)),
                            )
                        )
                reference = read(case.reference)
                shown = [f"{correlation(read(path), reference):.3f}" for path in results]
                print(f"| {name} | {seed} | {' | '.join(shown)} |", flush=True)


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


ALONG_Y, ROUND = ((0, 0), (0, 32), (0, 0)), ((16, 16), (32, 32), (32, 32))


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


def _alike(first, second):
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


def run_unusual(argv=None):
    """Tomograms as they come: beads, ice, borders, ramps, vacuum, turned; beside the plain one.

        quality.py unusual [--cases plain beads ...] [--steps 50] [--seeds 5] [--no-own]

    A simulated tomogram of 64 x 96 x 96 voxels (SNR 0.3) with what is unusual in it. Prints, for
    each case and seed, the correlation with the noise-free reconstruction where the specimen is, of
    the result minus what was laid over it: by a model trained on this very tomogram, and by one
    trained on another that has nothing unusual.
    """
    parser = harness.parser(run_unusual)
    parser.add_argument("--cases", nargs="+", default=list(UNUSUAL), choices=list(UNUSUAL))
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
                case = UNUSUAL[name](unit, clean)
                mrc.write_volume(path, case.values.astype(np.float32), VOXEL_SIZE)
                models = [other]
                if options.own:
                    models.insert(
                        0, quietly(trained_on, path, os.path.join(folder, "own"), options.steps)
                    )
                found = [
                    _alike(
                        (quietly(denoised, model, path, folder) - case.laid_over)[case.scored],
                        case.truth[case.scored],
                    )
                    for model in models
                ]
                shown = [f"{value:.3f}" for value in found]
                print(f"| {name} | {seed} | {' | '.join(shown)} |", flush=True)


def main(argv=None):
    return harness.run(
        {
            "methods": run_methods,
            "versions": run_versions,
            "pretrained": run_pretrained,
            "unusual": run_unusual,
        },
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
