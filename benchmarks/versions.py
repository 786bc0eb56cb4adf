"""This version beside another one, with default options on the same simulated tomograms.

    git worktree add /somewhere/else v1.1
    python benchmarks/versions.py /somewhere/else [--cases cell ...] [--seeds 3 ...]

Both train on a case's tomogram and denoise it, as programs of their own. Prints the correlation
with the noise-free reconstruction, the lowest change of the Fourier shell correlation with it over
the noisy tomogram's, the shell of that, and the seconds that the training took. Without a reference
(empty): the standard deviation that is left.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

import f2fd_core
from f2fd_core import BenchmarkConfig
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation, fourier_shell_correlation

HERE = os.path.dirname(os.path.dirname(f2fd_core.__file__))
CASES = (
    "cell",
    "crowded",
    "in-situ",
    "thick",
    "sirt",
    "uneven",
    "lowpass",
    "binned",
    "spheres",
    "empty",
    "noisefree",
)


def read(path):
    return torch.from_numpy(np.array(mrc.open_volume(path, 1.0).data, np.float32))


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


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("code", metavar="FOLDER", help="with the other version's f2fd_core")
    parser.add_argument("--cases", nargs="+", default=CASES)
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
                case = simulated_case(
                    name, BenchmarkConfig(shape=tuple(options.shape)), options.snr, seed, folder
                )
                for version, code in (("other", options.code), ("this", HERE)):
                    result, seconds = result_of(os.path.abspath(code), case.tomogram, folder)
                    print(
                        f"| {name} | {seed} | {version} | {row(result, case)} {seconds:.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
