"""Simulated tomograms for the tests, made once a session by the engine."""

import functools
import os
import subprocess
import tempfile

from f2fd_scipion import engine

VOXEL_SIZE = 8.0
SHAPES = {"first": (40, 48, 48), "second": (32, 48, 40)}  # Z, Y, X


@functools.lru_cache(maxsize=None)
def simulated():
    """Folder with one folder a tomogram of SHAPES, as 'f2fd simulate' writes it.

    tomograms/ and truths/ in it hold links to the noisy and noise-free volumes, named by tsId.
    """
    # The object must live as long as the tests: it removes its folder when it goes.
    simulated.folder = tempfile.TemporaryDirectory(prefix="f2fd_simulated_")
    root = simulated.folder.name
    for seed, (name, shape) in enumerate(SHAPES.items()):
        program, arguments = engine.command(
            [
                "simulate",
                os.path.join(root, name),
                "--shape",
                *map(str, shape),
                "--seed",
                str(seed),
                "--snr",
                "0.3",
                "--voxel-size",
                str(VOXEL_SIZE),
            ],
            gpu=False,
        )
        subprocess.run(f"{program} {arguments}", shell=True, check=True)
        for folder, volume in (("tomograms", "tomogram.mrc"), ("truths", "clean.mrc")):
            os.makedirs(os.path.join(root, folder), exist_ok=True)
            os.symlink(os.path.join(root, name, volume), os.path.join(root, folder, name + ".mrc"))
    return root
