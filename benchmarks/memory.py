"""Peak resident memory of training, denoising and deconvolution, against the tomogram's size.

Each command runs as a program of its own, on volumes of random numbers; few steps and predictions,
since their number does not matter to memory. "bound" is 3 times the tomogram's float32 size and
1.5 GiB.

    python benchmarks/memory.py --shapes 256,256,256 256,512,512 [--denoise-only 320,1024,1024]
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from f2fd_core.data import mrc

COMMANDS = {
    "train": ["train", "{tomogram}", "--steps", "3"],
    "train, masks, pool of 20": [
        "train",
        "{tomogram}",
        "--steps",
        "2",
        "--perturbation",
        "fourier_masks",
    ],
    "train, deconvolved": ["train", "{tomogram}", "--steps", "3", "--deconvolve", "--defocus", "3"],
    "denoise": ["denoise", "{model}", "{tomogram}", "--predictions", "1"],
    "denoise, standard deviation": [
        "denoise",
        "{model}",
        "{tomogram}",
        "--predictions",
        "2",
        "--std",
    ],
    "deconvolve": ["deconvolve", "{tomogram}", "--defocus", "3"],
}


def peak(arguments):
    """(peak resident GiB, seconds) of a run of the engine."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "f2fd_core", *arguments], stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed: {said[-500:]}")
    return usage.ru_maxrss / 2**20, time.monotonic() - began


def write_noise(path, shape):
    random = np.random.default_rng(0)
    with mrc.new_volume(path, shape, (10.0,) * 3) as data:
        for slab in mrc.slabs(shape):
            data[slab] = random.standard_normal(data[slab].shape, dtype=np.float32)


def sides(text):
    return tuple(int(side) for side in text.split(","))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes", type=sides, nargs="+", default=[(256,) * 3, (256, 512, 512)], metavar="Z,Y,X"
    )
    parser.add_argument("--denoise-only", type=sides, nargs="+", default=[], metavar="Z,Y,X")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--folder", help="where the volumes are written, which may be large")
    options = parser.parse_args(argv)
    print(
        "| shape (Z, Y, X) | tomogram, GiB | command | peak, GiB | bound, GiB | share of the "
        "bound | seconds |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        small, model = folder + "/small.mrc", folder + "/model/model.pt"
        write_noise(small, (48,) * 3)
        peak(["train", small, "--steps", "3", "--output", folder + "/model"])
        for shape in options.shapes + options.denoise_only:
            tomogram = folder + "/tomogram.mrc"
            write_noise(tomogram, shape)
            size = 4 * math.prod(shape) / 2**30
            names = ["denoise"] if shape in options.denoise_only else options.commands
            for name in names:
                words = [word.format(tomogram=tomogram, model=model) for word in COMMANDS[name]]
                found, seconds = peak([*words, "--output", folder + "/out", "--overwrite"])
                bound = 3 * size + 1.5
                print(
                    f"| {' x '.join(map(str, shape))} | {size:.2f} | {name} | {found:.2f} | "
                    f"{bound:.2f} | {found / bound:.2f} | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
