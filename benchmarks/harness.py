"""What the benchmarks have in common."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

import f2fd_core
from f2fd_core import BenchmarkConfig, DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.config import tta_flips
from f2fd_core.data import mrc
from f2fd_core.evaluation.membranes import Membranes
from f2fd_core.evaluation.metrics import score
from f2fd_core.prediction.predictor import Predictor, denoised_region

TILE_SIZE = 96
SNR = 0.1
HERE = os.path.dirname(os.path.dirname(f2fd_core.__file__))


def versions(other):
    """{name: folder of its code} of this version, and before it of the ``other`` one, if any."""
    return {"other": other, "this": HERE} if other else {"this": HERE}


def read(path):
    """A volume as a float32 tensor (Z, Y, X)."""
    return torch.from_numpy(np.array(mrc.open_volume(path, 1.0).data, dtype=np.float32))


def simulated(name, shape, snr, seed, folder):
    """A :class:`~f2fd_core.benchmarking.cases.Case` in a ``folder``; with the name CASE@SNR at that
    signal-to-noise ratio."""
    name, _, own = name.partition("@")
    config = BenchmarkConfig(shape=tuple(shape), cases=(name,))
    return simulated_case(name, config, float(own or snr), seed, folder)


def simulated_cases(options):
    """(name, seed, Case, its folder for as long as it is looked at) of all that the options of a
    :func:`parser` name, one seed after the other."""
    for seed in options.seeds:
        for name in options.cases:
            with tempfile.TemporaryDirectory() as folder:
                yield name, seed, simulated(name, options.shape, SNR, seed, folder), folder


def scorer(case):
    """A function of a volume: its scores against the noise-free reconstruction of a Case. Raises
    UserError for one that is empty."""
    if not case.reference:
        raise UserError(
            f"--cases names {case.name}; expected cases with a noise-free reconstruction"
        )
    clean = read(case.reference)
    membranes = Membranes(clean, read(case.membrane) > 0.5) if case.membrane else None
    return lambda volume: score(volume, clean, membranes)


@contextlib.contextmanager
def quietly():
    """Without what the engine says meanwhile."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def trained(folder, **settings):
    """Path of a model that a training makes in a ``folder``, on one core."""
    config = TrainConfig(output=folder, device="cpu", threads=1, overwrite=True, **settings)
    with quietly():
        return train(config)


def results(model, tomograms, folder, half_maps=()):
    """Paths of what a model (path) makes of tomograms in a ``folder``, on one core."""
    config = DenoiseConfig(
        model=model,
        tomograms=tuple(tomograms),
        half_maps=half_maps,
        output=folder,
        device="cpu",
        threads=1,
        overwrite=True,
    )
    with quietly():
        return denoise(config)


def program(code, folder, *words):
    """Run the version of F2Fd in the folder ``code`` on one core, in another ``folder``."""
    subprocess.run(
        [sys.executable, "-m", "f2fd_core", *words, "--device", "cpu", "--threads", "1"],
        check=True,
        capture_output=True,
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=os.path.abspath(code), OMP_NUM_THREADS="1"),
    )


def by_version(code, tomograms, folder):
    """(paths of what the version in the folder ``code`` makes of tomograms by a model of them, in
    another ``folder``; seconds of the training)."""
    began = time.monotonic()
    program(code, folder, "train", *tomograms, "--output", "run", "--overwrite")
    seconds = time.monotonic() - began
    program(code, folder, "denoise", "run/model.pt", *tomograms, "--output", ".", "--overwrite")
    names = (os.path.basename(os.path.splitext(path)[0]) for path in tomograms)
    return [os.path.join(folder, f"{name}_denoised.mrc") for name in names], seconds


def denoised(training, predictions=0, noisy=False, flips=None):
    """A training's first tomogram, denoised with its model as it is, as a float32 tensor: by
    default as ``f2fd denoise`` does it; else by so many predictions, ``noisy`` ones or not, of what
    is flipped along these axes."""
    config = training.config
    flips = flips or tta_flips(config)
    predictions = predictions or len(flips)
    perturbation = training.perturbations[0]
    if not noisy:
        perturbation = perturbation.for_prediction(predictions)
    predictor = Predictor(
        training.model(), training.device, training.dtype, predictions, 1, flips=flips
    )
    volume = perturbation.volume
    region = denoised_region(
        predictor, perturbation, (0, 0, 0), volume.shape, TILE_SIZE, config.network
    )
    return torch.from_numpy(volume.destandardise(region)).float()


def parser(part, cases=(), seeds=(), shape=()):
    """A parser of the arguments of a part of a benchmark, which its docstring describes; where
    defaults are given, with options for simulated tomograms."""
    made = argparse.ArgumentParser(
        prog=f"{os.path.basename(sys.argv[0])} {part.__name__[4:]}",
        description=part.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if cases:
        made.add_argument(
            "--cases",
            nargs="*",
            default=cases,
            metavar="CASE[@SNR]",
            help=f"of 'f2fd benchmark'; signal-to-noise ratio {SNR} where it is not given",
        )
    if seeds:
        made.add_argument("--seeds", type=int, nargs="+", default=seeds)
    if shape:
        made.add_argument("--shape", type=int, nargs=3, default=shape, metavar=("Z", "Y", "X"))
    return made


def add_other_version(made):
    """Add the argument ``code`` to a :func:`parser`."""
    made.add_argument("code", metavar="CODE", nargs="?", help="folder of another version's code")


def show(*cells):
    """Print a row of a Markdown table at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def heading(*columns):
    """Print the head of a Markdown table."""
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def run(parts, argv=None):
    """Run one of the ``parts``, {name: function of the arguments}: the one that is named, else the
    first; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    part = next(iter(parts.values()))
    if argv and argv[0] in parts:
        part, argv = parts[argv[0]], argv[1:]
    try:
        return part(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
