"""The tables and the figure of the README and docs/method.md: all methods side by side.

    python benchmarks/quality.py --output out            # quick: within half an hour on 2 cores
    python benchmarks/quality.py --output out --full     # all cases, ratios and seeds: hours
    python benchmarks/quality.py --join out1 out2 ...    # a table a score, of several runs
    python benchmarks/quality.py --join out1 out2 --compact input spectrum halves
                                        # one table of these methods, all scores in a cell
    python benchmarks/quality.py --join out1 out2 --picture methods.png    # and their volumes

Any further option goes to 'f2fd benchmark' and wins, for example --cases, --snr, --seeds, --steps.
"""

import argparse
import csv
import os
import sys

from f2fd_core.benchmarking.compare import MEASURED, draw, means
from f2fd_core.cli import main as f2fd

QUICK = []
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
    "cell",
    "spheres",
    "crowded",
    "sirt",
    "uneven",
    "lowpass",
    "binned",
    "int8",
    "empty",
    "noisefree",
    "thick",
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


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    return f2fd(["benchmark", options.output, *(FULL if options.full else QUICK), *rest])


if __name__ == "__main__":
    sys.exit(main())
