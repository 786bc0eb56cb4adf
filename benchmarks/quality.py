"""The table and the figure of the README and docs/method.md: all methods side by side.

    python benchmarks/quality.py --output out            # quick: within half an hour on 2 cores
    python benchmarks/quality.py --output out --full     # all cases, ratios and seeds: hours

Any further option goes to 'f2fd benchmark' and wins, for example --cases, --snr, --seeds, --steps.
"""
import argparse
import sys

from f2fd_core.cli import main as f2fd

QUICK = []
FULL = ["--shape", "96", "160", "160", "--snr", "0.1", "0.3", "1", "--seeds", "1", "2",
        "--cases", "cell", "spheres", "crowded", "sirt", "uneven", "lowpass", "binned", "int8",
        "empty", "noisefree", "--steps", "600",
        "--methods", "gaussian", "tv", "nlm", "deconvolve", "spectrum", "masks", "points",
        "blindspot", "halves", "published", "--published-steps", "same time"]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    parser.add_argument("--full", action="store_true")
    options, rest = parser.parse_known_args(argv)
    return f2fd(["benchmark", options.output, *(FULL if options.full else QUICK), *rest])


if __name__ == "__main__":
    sys.exit(main())
