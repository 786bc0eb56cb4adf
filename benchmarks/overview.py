"""The README's plot: what a user gets by default and with half-maps, beside filters.

    python benchmarks/overview.py run docs/data/quality.csv --seeds 21 22 --lamella FOLDER \
        --check microtubule.mrc ...
    python benchmarks/overview.py plot docs/data/quality.csv --picture docs/quality.png \
        --document docs/quality.md

The first takes an hour or two on one core, adds a row to the file after every result, and begins
where it stopped. The second draws these rows and renews the tables between two marks of a document.
"""

import contextlib
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import harness
import lamella
import numpy as np
from pictures import renew
from skimage.filters import gaussian
from skimage.restoration import denoise_tv_chambolle

from f2fd_core import BenchmarkConfig, DenoiseConfig, TrainConfig, denoise, train
from f2fd_core.benchmarking.compare import scores_of
from f2fd_core.benchmarking.methods import run_filter
from f2fd_core.checking.examine import DENOISED, GAUSSIAN, START
from f2fd_core.checking.shells import TOMOGRAM
from f2fd_core.checking.short import judged
from f2fd_core.commands.evaluate import read_reference
from f2fd_core.config import PRETRAINED
from f2fd_core.network import checkpoint
from f2fd_core.runtime import figures

SHAPE = (64, 96, 96)
CASES = (
    "cell@0.1",
    "crowded@0.1",
    "in-situ@0.1",
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
LAMELLA, CHECKED = "real cell", "f2fd check"
# Settings of the filters on the real cell, of which the judge's own best is taken.
SIGMAS, WEIGHTS = (1.0, 1.5, 2.0, 2.5, 3.0), (1.0, 2.0, 3.0, 5.0, 8.0)


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


@contextlib.contextmanager
def quietly():
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def learned(case, halves, perturbation, folder):
    """(path of the result, steps, seconds of the training), all other options by default."""
    output = os.path.join(folder, "run")
    began = time.monotonic()
    model = train(
        TrainConfig(
            tomograms=() if halves else (case.tomogram,),
            half_maps=halves,
            perturbation=perturbation,
            output=output,
            device="cpu",
            threads=1,
            overwrite=True,
        )
    )
    seconds = time.monotonic() - began
    return of_model(model, case, halves, output), checkpoint.load(model)["step"], seconds


def of_model(model, case, halves, folder):
    (result,) = denoise(
        DenoiseConfig(
            model=model,
            tomograms=(case.tomogram,),
            half_maps=halves,
            output=folder,
            device="cpu",
            threads=1,
            overwrite=True,
        )
    )
    return result


def run_simulated(rows, name, seed, methods, folder):
    """These methods on one simulated tomogram."""
    short, snr = name.split("@")
    case = harness.simulated(short, SHAPE, float(snr), seed, folder)
    shape = harness.read(case.tomogram).shape
    _, membranes = read_reference(case.reference, case.membrane, shape)

    def add(method, path, **about):
        scores = scores_of(path, case, membranes)
        about.update((key, scores.get(key)) for key in SCORES)
        rows.add(case=name, seed=seed, method=method, **about)

    for method in methods:
        if method == "input":
            add(method, case.tomogram)
        elif method in FILTERS:
            path = os.path.join(folder, f"{method}.mrc")
            add(method, path, setting=run_filter(method, BenchmarkConfig(), case, path).setting)
        elif method == "pretrained":
            with quietly():
                path = of_model(PRETRAINED, case, (), folder)
            add(method, path)
        else:
            of_halves, perturbation = LEARNED[method]
            with quietly():
                path, steps, seconds = learned(
                    case, case.halves if of_halves else (), perturbation, folder
                )
            add(method, path, setting=f"{steps} steps", seconds=seconds)


def run_lamella(rows, source, folder):
    """The even halves of five boxes of a real cell, with the odd ones as the judge."""
    boxes = range(lamella.BOXES)
    even, odd, given = lamella.settings(source, boxes, os.path.join(folder, "run"), "auto", 0)
    inputs, judges = ([lamella.read(path) for path in paths] for paths in (even, odd))
    ceiling = np.sqrt(lamella.correlation(inputs, judges))

    def add(method, results, **about):
        rows.add(
            case=LAMELLA,
            seed=0,
            method=method,
            correlation=lamella.correlation(results, judges) / ceiling,
            **about,
        )

    def best(method, function, settings):
        units = [(box - box.mean()) / box.std() for box in inputs]
        made = {value: [function(unit, value) for unit in units] for value in settings}
        setting = max(made, key=lambda value: lamella.correlation(made[value], judges))
        add(method, made[setting], setting=f"{setting:g}")

    def of_others(perturbation, steps="auto"):
        results = []
        for box in boxes:
            others = [number for number in boxes if number != box]
            output = os.path.join(folder, f"{perturbation}{box}")
            first, second, options = lamella.settings(source, others, output, steps, 0)
            pairs = tuple(path for pair in zip(second, first) for path in pair)
            model = train(TrainConfig(half_maps=pairs, perturbation=perturbation, **options))
            results += lamella.denoised(model, [even[box]], output)
        return results

    known = rows.methods(LAMELLA, 0)
    if "input" not in known:
        add("input", inputs)
        best("gaussian", gaussian, SIGMAS)
        best("tv", denoise_tv_chambolle, WEIGHTS)
    if "pretrained" not in known:
        with quietly():
            add("pretrained", lamella.denoised(PRETRAINED, even, folder))
    if "default" not in known:
        with quietly():
            model = train(TrainConfig(tomograms=tuple(even), **given))
            results = lamella.denoised(model, even, given["output"])
        add("default", results, setting=f"{checkpoint.load(model)['step']} steps")
    for method, perturbation in (("half-maps", "noise_matched"), ("noise2noise", "noise2noise")):
        if method not in known:
            with quietly():
                results = of_others(perturbation)
            add(method, results, setting="trained on the other four boxes")


def run_checked(rows, path, folder):
    """A tomogram without a judge: what `f2fd check` estimates."""
    name = f"{Path(path).stem} ({CHECKED})"
    if rows.methods(name, 0):
        return
    config = TrainConfig(
        tomograms=(path,), output=os.path.join(folder, "run"), device="cpu", threads=1
    )
    with quietly():
        model = train(config)
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


def run_run(argv=None):
    """Make what is missing of the rows of a CSV file, one seed of all cases after the other."""
    parser = harness.parser(run_run)
    parser.add_argument("rows", metavar="CSV")
    parser.add_argument("--cases", nargs="*", default=CASES, metavar="CASE@SNR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--lamella", metavar="FOLDER", help="with box0_even.mrc ... box4_odd.mrc")
    parser.add_argument("--check", nargs="*", default=[], metavar="MRC")
    options = parser.parse_args(argv)
    rows = Rows(options.rows)
    for path in options.check:
        with tempfile.TemporaryDirectory() as folder:
            run_checked(rows, path, folder)
    for number, seed in enumerate(options.seeds):
        for name in options.cases:
            known = rows.methods(name, seed)
            methods = [method for method in options.methods if method not in known]
            if methods:
                with tempfile.TemporaryDirectory() as folder:
                    run_simulated(rows, name, seed, methods, folder)
        if options.lamella and number == 0:
            with tempfile.TemporaryDirectory() as folder:
                run_lamella(rows, options.lamella, folder)


# What the plot shows: what is best of these methods, its name and look.
SHOWN = (
    (("input",), "tomogram as it is", dict(color="0.75")),
    (FILTERS, "best filter", dict(color="0.5")),
    (("default",), "F2Fd, default", dict(color="C0")),
    (("half-maps",), "F2Fd, half-maps", dict(color="C2")),
    (("noise2noise",), "Noise2Noise, half-maps", dict(color="C1")),
)
NAMES = {"membrane_average_precision": "membranes", "fsc_mean": "mean FSC", "ssim": "SSIM"}


def means(rows):
    """{case: {method: {score: mean over the seeds}}}, what is not known left out."""
    found = {}
    for row in rows:
        scores = found.setdefault(row["case"], {}).setdefault(row["method"], {})
        for name in SCORES:
            if row[name]:
                scores.setdefault(name, []).append(float(row[name]))
    return {
        case: {
            method: {name: float(np.mean(values)) for name, values in scores.items()}
            for method, scores in methods.items()
        }
        for case, methods in found.items()
    }


def best_of(found, methods, score):
    """The best of these methods by a score, None if none of them has it."""
    values = [found[method][score] for method in methods if score in found.get(method, {})]
    return max(values) if values else None


def order_of(found):
    """The cases: what is real first, then by what the default gets."""
    return sorted(found, key=lambda case: ("@" in case, -found[case]["default"]["correlation"]))


@figures.own_settings()
def draw(found, path):
    """Correlation with the truth: a group of bars a case; hatched what is an estimate."""
    cases = order_of(found)
    figure = figures.new_figure(figsize=(9, 5))
    axes = figure.subplots()
    width = 0.8 / len(SHOWN)
    for number, (methods, label, look) in enumerate(SHOWN):
        for at, case in enumerate(cases):
            value = best_of(found[case], methods, "correlation")
            if value is not None:
                axes.bar(
                    at + (number - (len(SHOWN) - 1) / 2) * width,
                    value,
                    width,
                    hatch="///" if CHECKED in case else None,
                    edgecolor="white",
                    linewidth=0.4,
                    **look,
                )
        axes.bar(0, 0, label=label, **look)
    axes.bar(0, 0, color="0.9", hatch="///", edgecolor="white", label="estimated by f2fd check")
    labels = [case.split(" (")[0].replace("_", " ").replace("@", ", SNR ") for case in cases]
    axes.set_xticks(range(len(cases)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set(ylabel="correlation with the truth", ylim=(0, 1), xlim=(-0.6, len(cases) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figures.save(figure, path)


def table(found, score, methods):
    """Markdown: a row a case, a column a method; the best of a row is bold."""
    lines = [f"| case | {' | '.join(methods)} |", "|---" + "|---:" * len(methods) + "|"]
    for case in order_of(found):
        values = [found[case].get(method, {}).get(score) for method in methods]
        shown = ["" if value is None else f"{value:.3f}" for value in values]
        if not any(shown):
            continue
        shown = [f"**{text}**" if text and text == max(shown) else text for text in shown]
        lines.append(f"| {case} | {' | '.join(shown)} |")
    return "\n".join(lines)


def tables(rows):
    """A table for each score, under its name."""
    found = means(rows)
    methods = [name for name in METHODS if any(name in case for case in found.values())]
    parts = []
    for score in SCORES:
        title = NAMES.get(score, score.replace("_", " "))
        parts.append(f"### {title[0].upper()}{title[1:]}\n\n{table(found, score, methods)}")
    return "\n\n".join(parts)


def run_plot(argv=None):
    """Draw the rows of a CSV file, and renew the tables of a document."""
    parser = harness.parser(run_plot)
    parser.add_argument("rows", metavar="CSV")
    parser.add_argument("--picture", metavar="PNG")
    parser.add_argument("--document", metavar="MD")
    options = parser.parse_args(argv)
    rows = Rows(options.rows).rows
    if options.picture:
        draw(means(rows), options.picture)
    if options.document:
        renew(options.document, "quality", tables(rows))


def main(argv=None):
    return harness.run({"run": run_run, "plot": run_plot}, argv)


if __name__ == "__main__":
    sys.exit(main())
