"""Draw what other benchmarks have printed, and renew its tables in the documents.

    python benchmarks/pictures.py memory docs/data/memory.txt --picture docs/memory.png \
        --document docs/performance.md
    python benchmarks/pictures.py rate docs/data/rate.txt --document docs/performance.md
    python benchmarks/pictures.py unusual docs/data/unusual.txt --picture docs/unusual.png \
        --document docs/reliability.md

The text files hold what 'performance.py memory', 'performance.py rate' and 'quality.py unusual'
printed. A document has a place for the tables between two marks with the name of the first word.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

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
    labels, values = [row[0] for row in rows], [float(row[-1]) for row in rows]
    figure = figures.new_figure(figsize=(7, 0.3 * len(rows) + 0.8))
    axes = figure.subplots()
    draw_bars(labels, values, axes, "C0")
    axes.axvline(values[labels.index("plain")], color="k", linewidth=0.8, linestyle="--")
    axes.set(xlabel="correlation with the truth (dashed: nothing unusual)", xlim=(0, 1))
    figures.save(figure, path)


PICTURES = {"memory": draw_memory, "rate": None, "unusual": draw_unusual}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=PICTURES)
    parser.add_argument("printed", help="file with what the benchmark printed")
    parser.add_argument("--picture", metavar="PNG")
    parser.add_argument("--document", metavar="MD")
    options = parser.parse_args(argv)
    text = Path(options.printed).read_text(encoding="utf-8")
    if options.picture:
        PICTURES[options.what](rows_of(text), options.picture)
    if options.document:
        renew(options.document, options.what, text)


def renew(document, name, text):
    """Put a text between the two marks of a document."""
    path = Path(document)
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    found = re.compile(f"(?<={begin}\n).*(?={end})", re.DOTALL)
    changed, count = found.subn(lambda _: f"\n{text.strip()}\n\n", path.read_text(encoding="utf-8"))
    if count != 1:
        sys.exit(f"{path} has no place for {name}")
    path.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    main()
