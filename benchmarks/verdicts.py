"""The marks that `f2fd check` gives to models of which it is known whether they are good.

    python benchmarks/verdicts.py [--lamella FOLDER --other FOLDER_OF_VERSION_1.1]

Good: trained on this tomogram, with default options. Bad: of another specimen, overtrained (from
random weights on a small tomogram), of the other contrast, with tiles so small that they show; and,
with --lamella (box0_even.mrc ...) and a checkout of version 1.1, what that made of a real cell.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
from lamella import BOXES, read

from f2fd_core import BenchmarkConfig, CheckConfig, TrainConfig, train
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.checking.run import check
from f2fd_core.config import read_json
from f2fd_core.data import mrc

SHAPE, SMALL = (64, 96, 96), (32, 64, 64)
OVERTRAINED = 1500


def simulated(name, shape, folder, seed=3):
    place = os.path.join(folder, f"{name}_{shape[0]}")
    return simulated_case(name, BenchmarkConfig(output=place, shape=shape), 0.1, seed, place)


def trained(tomograms, folder, **settings):
    return train(
        TrainConfig(
            tomograms=tuple(tomograms),
            output=folder,
            device="cpu",
            threads=1,
            overwrite=True,
            **settings,
        )
    )


def tell(words, model, tomogram, folder, half_maps=(), **settings):
    output = os.path.join(folder, "check")
    check(
        CheckConfig(
            model=model,
            tomograms=(tomogram,),
            half_maps=half_maps,
            output=output,
            device="cpu",
            threads=1,
            overwrite=True,
            **settings,
        )
    )
    (numbers,) = read_json(os.path.join(output, "report.json")).values()
    marks = [entry["mark"] for entry in numbers["verdict"]]
    print(f"| {words} | {' | '.join(marks)} | {numbers['verdict'][0]['sentence']} |", flush=True)


def negative(path, folder):
    result = os.path.join(folder, "negative.mrc")
    mrc.write_volume(result, -np.asarray(read(path), np.float32), 10.0)
    return result


def of_version(code, tomograms, folder):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "f2fd_core",
            "train",
            *tomograms,
            "--output",
            folder,
            "--device",
            "cpu",
            "--threads",
            "1",
            "--overwrite",
        ],
        check=True,
        env=dict(os.environ, PYTHONPATH=code),
        cwd=folder,
    )
    return os.path.join(folder, "model.pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lamella")
    parser.add_argument("--other")
    arguments = parser.parse_args()
    print("| model | better? | right? | invented? | found? | lost? | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        places = {name: os.path.join(folder, name) for name in ("cell", "other", "small", "old")}
        cell, spheres = (simulated(name, SHAPE, folder) for name in ("cell", "spheres"))
        crowded = simulated("crowded", SHAPE, folder)
        good = trained([cell.tomogram], places["cell"])
        tell("trained on this tomogram", good, cell.tomogram, folder)
        tell("the same, with half-maps", good, cell.tomogram, folder, cell.halves)
        other = trained([spheres.tomogram], places["other"])
        tell("of another specimen", other, crowded.tomogram, folder)
        tell("of the other contrast", good, negative(cell.tomogram, folder), folder)
        tell("with tiles of 16 voxels", good, cell.tomogram, folder, tile_size=16)
        small = simulated("cell", SMALL, folder)
        over = trained([small.tomogram], places["small"], start="random", steps=OVERTRAINED)
        tell(f"overtrained, {OVERTRAINED} steps", over, small.tomogram, folder)
        if arguments.lamella:
            boxes = [
                os.path.join(arguments.lamella, f"box{number}_even.mrc") for number in range(BOXES)
            ]
            tell("a real cell, trained on it", trained(boxes, places["cell"]), boxes[0], folder)
            if arguments.other:
                os.makedirs(places["old"])
                old = of_version(arguments.other, boxes, places["old"])
                for number, box in enumerate(boxes):
                    tell(f"the same, version 1.1, box {number}", old, box, folder)


if __name__ == "__main__":
    main()
