"""Draw what other benchmarks have found, and renew its tables in the documents.

    python benchmarks/pictures.py quality docs/data/quality.csv --picture docs/quality.png \
        --document docs/quality.md
    python benchmarks/pictures.py memory docs/data/memory.txt --picture docs/memory.png
    python benchmarks/pictures.py unusual docs/data/unusual.txt --picture docs/unusual.png
    python benchmarks/pictures.py trust docs/data/trust.json --picture docs/trust.png \
        --document docs/check.md
    python benchmarks/pictures.py wedge docs/data/wedge.txt --document docs/wedge.md

The files hold the rows of 'quality.py methods' and 'trust.py estimates', and what 'performance.py
memory', 'quality.py unusual' and 'wedge.py' printed. A document has a place for the tables between
two marks with the name of the first word.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
from quality import CHECKED, FILTERS, METHODS, SCORES
from trust import AUTOMATIC, LAMELLA, WITH_HALVES, ranked, summaries

from f2fd_core.runtime import figures


def rows_of(text):
    """The rows of the Markdown tables in a text as lists of words, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = {number for number, row in enumerate(rows) if set("".join(row)) <= set("-:")}
    return [
        row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules
    ]


def draw_bars(labels, values, axes, color, **options):
    """Horizontal bars, the first on top."""
    place = np.arange(len(labels))[::-1]
    axes.barh(place, values, color=color, **options)
    axes.set_yticks(place, labels)
    axes.spines[["top", "right"]].set_visible(False)


@figures.own_settings()
def draw_memory(rows, path):
    """Peak memory of each command, and the bound."""
    labels = [f"{command}, {shape}" for shape, _, command, *_ in rows]
    peaks, bounds = (np.array([float(row[column]) for row in rows]) for column in (3, 4))
    figure = figures.new_figure(figsize=(8, 0.38 * len(rows) + 1))
    axes = figure.subplots()
    draw_bars(labels, bounds, axes, "0.88", label="bound: 3 x the tomogram + 1.5 GiB")
    draw_bars(labels, peaks, axes, "C0", height=0.5, label="measured")
    axes.set_xlabel("peak memory (GiB)")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figures.save(figure, path)


@figures.own_settings()
def draw_unusual(rows, path):
    """The correlation with the truth for each thing that is unusual, beside the plain tomogram."""
    labels = [row[0] for row in rows]
    own, other = (np.array([float(row[column]) for row in rows]) for column in (2, 3))
    figure = figures.new_figure(figsize=(7, 0.3 * len(rows) + 1.2))
    axes = figure.subplots()
    draw_bars(labels, other, axes, "0.8", label="another, plain tomogram's model")
    draw_bars(labels, own, axes, "C0", height=0.4, label="own model")
    axes.axvline(own[labels.index("plain")], color="k", linewidth=0.8, linestyle="--")
    axes.set(xlabel="correlation with the truth (dashed: nothing unusual)", xlim=(0, 1))
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figures.save(figure, path)


@figures.own_settings()
def draw_trust(rows, path):
    """Estimates with their intervals against the truth."""
    figure = figures.new_figure(figsize=(6, 6))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    for words, chosen in (
        ("without half-maps", lambda row: "half" not in row["model"] and row["case"] != LAMELLA),
        ("with half-maps", lambda row: "half" in row["model"]),
        ("a real cell", lambda row: row["case"] == LAMELLA),
    ):
        some = [row for row in rows if chosen(row)]
        true, value, low, high = (
            np.array([row[key] for row in some]) for key in ("true", "estimate", "low", "high")
        )
        axes.errorbar(true, value, (value - low, high - value), fmt=".", linewidth=0.8, label=words)
    axes.set(
        xlabel="correlation with the truth",
        ylabel="estimate without the truth",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    axes.legend(frameon=False)
    figures.save(figure, path)


def trust_tables(rows):
    """Markdown: how far all estimates are off, and those of the models that ended by themselves."""
    lines = [
        "| | models | mean error | largest | intervals that hold the truth |",
        "|---|" + 4 * "---:|",
    ]
    for words, (count, mean, largest, held) in summaries(rows).items():
        lines.append(f"| {words} | {count} | {mean:.3f} | {largest:.3f} | {100 * held:.0f} % |")
    right, pairs = ranked([row for row in rows if "half-maps" not in row["model"]])
    lines += [
        "",
        f"Of two models of one tomogram, the better is known in {right} of {pairs} pairs.",
        "",
    ]
    lines += ["| case | true | estimate (interval) | with half-maps |"]
    lines.append(4 * "|---" + "|")
    for case in dict.fromkeys(row["case"] for row in rows):
        own, halves = (
            [row for row in rows if (row["case"], row["model"]) == (case, model)]
            for model in (AUTOMATIC, WITH_HALVES)
        )
        cells = [
            f"{row['estimate']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for row in own + halves
        ]
        name = "real cell" if case == LAMELLA else case
        lines.append(f"| {name} | {own[0]['true']:.3f} | {' | '.join((cells + [''])[:2])} |")
    return "\n".join(lines)


def wedge_table(rows):
    """Markdown: what was found inside the wedge, denoised → filled, and what the check says; means
    over the seeds."""
    columns = {"100 Å": 3, "60 Å": 4, "flat membranes": 8}
    lines = [f"| case | {' | '.join(columns)} | `f2fd check` says |", 5 * "|---" + "|"]
    cases = [row[0].split(", ")[0] for row in rows]

    def mean(case, what, column):
        found = [row for row, name in zip(rows, cases) if (name, row[1]) == (case, what)]
        return f"{np.mean([float(row[column]) for row in found]):.3f}"

    for case in dict.fromkeys(cases):
        cells = [
            f"{mean(case, 'denoised', column)} → {mean(case, 'filled', column)}"
            for column in columns.values()
        ]
        lines.append(f"| {case} | {' | '.join(cells)} | {mean(case, 'f2fd check says', 2)} |")
    return "\n".join(lines)


# What the plot shows: what is best of these methods, its name and look.
SHOWN = (
    (("input",), "tomogram as it is", dict(color="0.75")),
    (FILTERS, "best filter", dict(color="0.5")),
    (("default",), "F2Fd, default", dict(color="C0")),
    (("half-maps",), "F2Fd, half-maps", dict(color="C2")),
    (("noise2noise",), "Noise2Noise, half-maps", dict(color="C1")),
)
# The scores of which the page has a table.
TABULATED = ("correlation", "membrane_average_precision")
NAMES = {"membrane_average_precision": "membranes"}


def means_of(text):
    """{case: {method: {score: mean over the seeds}}} of the text of a CSV file, what is not known
    left out."""
    found = {}
    for row in csv.DictReader(text.splitlines()):
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
def draw_quality(found, path):
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


def table(found, score, columns):
    """Markdown: a row a case, a column for the best of some methods, {name: methods}; the best of
    a row is bold."""
    lines = [f"| case | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for case in order_of(found):
        values = [best_of(found[case], methods, score) for methods in columns.values()]
        shown = ["" if value is None else f"{value:.3f}" for value in values]
        if not any(shown):
            continue
        shown = [f"**{text}**" if text and text == max(shown) else text for text in shown]
        lines.append(f"| {case} | {' | '.join(shown)} |")
    return "\n".join(lines)


def tables(found):
    """A table for each of the scores TABULATED, under its name."""
    known = [name for name in METHODS if any(name in case for case in found.values())]
    names = {name: "best filter" if name in FILTERS else name for name in known}
    columns = {
        column: [name for name in known if names[name] == column] for column in names.values()
    }
    parts = []
    for score in TABULATED:
        title = NAMES.get(score, score.replace("_", " "))
        parts.append(f"### {title[0].upper()}{title[1:]}\n\n{table(found, score, columns)}")
    return "\n\n".join(parts)


# Of each: what is read of the text, how it is drawn, and what of it is put into the document.
PICTURES = {
    "quality": (means_of, draw_quality, tables),
    "memory": (rows_of, draw_memory, None),
    "unusual": (rows_of, draw_unusual, None),
    "trust": (json.loads, draw_trust, trust_tables),
    "wedge": (rows_of, None, wedge_table),
}


def renew(document, name, text):
    """Put a text between the two marks of a document."""
    path = Path(document)
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    found = re.compile(f"(?<={begin}\n).*(?={end})", re.DOTALL)
    changed, count = found.subn(lambda _: f"\n{text.strip()}\n\n", path.read_text(encoding="utf-8"))
    if count != 1:
        sys.exit(f"{path} has no place for {name}")
    path.write_text(changed, encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=PICTURES)
    parser.add_argument("found", help="file with what the benchmark found")
    parser.add_argument("--picture", metavar="PNG")
    parser.add_argument("--document", metavar="MD")
    options = parser.parse_args(argv)
    read, draw, written = PICTURES[options.what]
    text = Path(options.found).read_text(encoding="utf-8")
    if options.picture:
        draw(read(text), options.picture)
    if options.document:
        if not written:
            parser.error(f"--document: there are no tables of {options.what}")
        renew(options.document, options.what, written(read(text)))


if __name__ == "__main__":
    main()
