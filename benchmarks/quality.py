"""The tables and the figure of the README and docs/method.md: all methods side by side.

    python benchmarks/quality.py --output out            # quick: within half an hour on 2 cores
    python benchmarks/quality.py --output out --full     # all cases, ratios and seeds: hours
    python benchmarks/quality.py --join out1 out2 ...    # a table a score, of several runs
    python benchmarks/quality.py --join out1 out2 --picture methods.png    # and their volumes

Any further option goes to 'f2fd benchmark' and wins, for example --cases, --snr, --seeds, --steps.
"""
import argparse
import csv
import os
import sys

from f2fd_core.benchmarking import MEASURED, draw, means
from f2fd_core.cli import main as f2fd

QUICK = []
FULL = ["--shape", "96", "160", "160", "--snr", "0.1", "0.3", "1", "--seeds", "1", "2",
        "--cases", "cell", "spheres", "crowded", "sirt", "uneven", "lowpass", "binned", "int8",
        "empty", "noisefree", "thick", "--steps", "600",
        "--methods", "gaussian", "tv", "nlm", "deconvolve", "spectrum", "masks", "points",
        "blindspot", "halves", "published", "--published-steps", "as the others"]
JOINED = ("correlation", "ssim", "fsc_mean", "membrane_average_precision", "contrast")


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
                place = "%s_snr%g_seed%s" % (row["case"], row["snr"], row["seed"])
                row["folder"] = os.path.join(folder, place)
                rows[row["case"], row["snr"], row["seed"], row["method"]] = row
    return rows


def joined(rows):
    """One Markdown table for each score of JOINED: a row a case, a column a method."""
    rows = list(rows.values())
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["case"], row["snr"], row["method"]): row for row in means(rows)}
    cases = list(dict.fromkeys((row["case"], row["snr"]) for row in rows))
    parts = []
    for score in JOINED:
        scored = [name for name in methods
                  if any(row["method"] == name and row[score] is not None for row in rows)]
        if not scored:
            continue
        lines = ["| %s | %s |" % (score, " | ".join(scored)), "|---" * (1 + len(scored)) + "|"]
        for case, snr in cases:
            values = [found.get((case, snr, method), {}).get(score) for method in scored]
            if any(value is not None for value in values):
                lines.append("| %s, SNR %g | %s |" % (case, snr, " | ".join(
                    "" if value is None else "%.3f" % value for value in values)))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def draw_joined(rows, path):
    """The picture of several runs: a row a case, with the volumes of its first seed."""
    pictures, references = {}, {}
    for (case, snr, _, method), row in rows.items():
        name = "tomogram" if method == "input" else method
        volume, reference = (os.path.join(row["folder"], name + ".mrc")
                             for name in (name, "clean"))
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
    parser.add_argument("--picture", metavar="PNG")
    options, rest = parser.parse_known_args(argv)
    if options.join:
        rows = read_rows(options.join)
        print(joined(rows))
        if options.picture:
            draw_joined(rows, options.picture)
        return 0
    if not options.output:
        parser.error("--output is missing; expected a folder for tables and volumes")
    return f2fd(["benchmark", options.output, *(FULL if options.full else QUICK), *rest])


if __name__ == "__main__":
    sys.exit(main())
