"""Starting weights as they are, without a step, beside the best Gaussian and total variation.

    python benchmarks/pretrained.py [MODEL ...] [--cases cell ...] [--seeds 3 ...]

MODEL: files such as f2fd_core/network/pretrained.pt, the default, with which the tomograms are
denoised; matter is dark in the cases, as where these have learned. Prints the correlation with the
noise-free reconstruction.
"""

import argparse
import contextlib
import os
import tempfile

import numpy as np
import torch

from f2fd_core import BenchmarkConfig, DenoiseConfig, denoise
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.benchmarking.methods import run_filter
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.network.checkpoint import PRETRAINED

CASES = (
    "cell",
    "crowded",
    "in-situ",
    "thick",
    "sirt",
    "lowpass",
    "uneven",
    "binned",
    "int8",
    "spheres",
    "noisefree",
)


def read(path):
    return torch.from_numpy(np.array(mrc.open_volume(path, 1.0).data, np.float32))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODEL", nargs="*", default=[PRETRAINED])
    parser.add_argument("--cases", nargs="+", default=CASES)
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
                case = simulated_case(name, config, options.snr, seed, folder)
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


if __name__ == "__main__":
    main()
