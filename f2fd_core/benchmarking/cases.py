"""The tomograms on which methods are compared: simulated ones, each with its own difficulty."""

import dataclasses
import os
from typing import Any, Dict, NamedTuple, Optional

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.config import SimulateConfig, UserError
from f2fd_core.data import formats, mrc
from f2fd_core.runtime import files
from f2fd_core.simulation.microscope import noise_free_volume, simulate_volumes, specimen_of

# Degrees between the tilts of a reference where the tomogram's own are too far apart.
DENSE_STEP = 0.5
# Where the case lowpass ends, and within what it falls, in cycles per voxel.
LOW_PASS = 0.25
LOW_PASS_WIDTH = 0.03
# So many standard deviations of the case int8 are its largest number.
INT8_RANGE = 4.0
# Cells that are tilted or reconstructed in another way.
RECONSTRUCTED: Dict[str, Dict[str, Any]] = {
    "sirt": dict(sirt_iterations=10),
    "insertion": dict(reconstruction="insertion"),
    "odd-tilts": dict(tilt_range=(-50.0, 65.0)),
    "dose-weighted": dict(dose=3.0),
    "ctf-corrected": dict(reconstruction="ctf-corrected"),
}
# A lamella such as the real one among the test data; how many times as thick as the volume it is,
# and its signal-to-noise ratio over that of the other cases, at which its halves agree so well.
IN_SITU: Dict[str, Any] = dict(
    voxel_size=14.56, defocus=2.0, half_maps="tilts", tilt_range=(57.0,), specimen="crowded"
)
THICKER = 2.5
IN_SITU_SNR = 15.0
# The environment variable that names the folder of real data, how many boxes of a real cell it has,
# and their side in voxels.
REAL_DATA = "F2FD_TEST_DATA"
BOXES = 5
BOX = 64
# The variance of their signal over that of their noise.
REAL_SNR = 0.07


class Case(NamedTuple):
    """One tomogram to denoise: paths of MRC files, None or () where there is none.

    ``noise_free`` is the tomogram without its noise, ``reference`` also without the streaks of its
    tilts.
    """

    name: str
    snr: Optional[float]
    seed: Optional[int]
    tomogram: str
    halves: tuple = ()
    reference: Optional[str] = None
    membrane: Optional[str] = None
    density: Optional[str] = None
    noise_free: Optional[str] = None


def voxels(path):
    """A volume whose voxel size does not matter, (Z, Y, X), to be read by indexing."""
    return formats.open_volume(path, 1.0)


def uneven_strength(shape):
    """What the noise of the case ``uneven`` is multiplied by, an array (Z, Y, X).

    It is 1.6 times as strong in one half of the depth and falls towards the borders.
    """
    z, y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    return (
        (1 + 0.3 * np.tanh(3 * z))[:, None, None]
        * (1 - 0.4 * y**4)[None, :, None]
        * (1 - 0.4 * x**4)[None, None, :]
    )


def _uneven(volumes):
    strength = uneven_strength(volumes["clean"].shape)
    for name in ("odd", "even", "tomogram"):
        volumes[name] = volumes["clean"] + strength * (volumes[name] - volumes["clean"])


def _low_pass(volumes):
    radius = fourier.radial_frequency(volumes["clean"].shape)
    transfer = torch.sigmoid((LOW_PASS - radius) / LOW_PASS_WIDTH * 4)
    transfer[radius > LOW_PASS + LOW_PASS_WIDTH] = 0
    for name in ("odd", "even", "tomogram", "clean"):
        spectrum = torch.fft.rfftn(torch.from_numpy(volumes[name])) * transfer
        volumes[name] = torch.fft.irfftn(spectrum, s=volumes[name].shape).numpy()


def _bin(volumes):
    for name, volume in volumes.items():
        z, y, x = (side // 2 for side in volume.shape)
        volumes[name] = volume.reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))


def _round(volumes):
    for name in ("odd", "even", "tomogram"):
        step = INT8_RANGE * volumes[name].std() / 127
        volumes[name] = np.clip(np.round(volumes[name] / step), -128, 127).astype(np.float32)


def _take_noise_away(volumes):
    for name in ("odd", "even", "tomogram"):
        volumes[name] = volumes["clean"]


CHANGES = {
    "uneven": _uneven,
    "lowpass": _low_pass,
    "binned": _bin,
    "int8": _round,
    "noisefree": _take_noise_away,
}


def _simulation(name, config, snr, seed):
    """The SimulateConfig of a case."""
    shape, voxel_size = config.shape, 10.0
    if name == "real-noise":
        return SimulateConfig(
            shape=(BOX,) * 3,
            snr=snr,
            seed=seed,
            voxel_size=14.56,
            defocus=2.0,
            specimen="crowded",
            tilt_range=(57.0,),
        )
    if name == "in-situ":
        return SimulateConfig(
            shape=shape,
            snr=IN_SITU_SNR * snr,
            seed=seed,
            thickness=round(THICKER * shape[0]),
            **IN_SITU,
        )
    if name == "binned":
        shape, voxel_size = tuple(2 * side for side in shape), 5.0
    elif name == "thick":
        shape = (3 * shape[0], shape[1] // 2, 3 * shape[2])
    return SimulateConfig(
        shape=shape,
        voxel_size=voxel_size,
        snr=snr,
        seed=seed,
        defocus=config.defocus,
        specimen=name if name in ("spheres", "crowded", "empty") else "cell",
        **RECONSTRUCTED.get(name, {}),
    )


def _put_into_real_noise(volumes, snr, seed):
    """Noise of a real cell, half the difference of a box's reconstructions from every other tilt.

    The tomogram has that of one box; the halves, twice as strong, that of this box and of another,
    which have nothing in common. Raises UserError without the data.
    """
    folder = os.path.join(os.environ.get(REAL_DATA, ""), "lamella")
    if not os.path.isdir(folder):
        raise UserError(
            f"--cases names real-noise and {REAL_DATA} is "
            f"'{os.environ.get(REAL_DATA, '')}'; expected a folder that holds the "
            "folder lamella with real half-maps"
        )
    noises = []
    for number in (seed % BOXES, (seed + 1) % BOXES):
        even, odd = (
            voxels(os.path.join(folder, f"box{number}_{half}.mrc"))[:] for half in ("even", "odd")
        )
        noise = np.asarray(even, np.float32) - np.asarray(odd, np.float32)
        noises.append(noise / noise.std())
    clean, (first, second) = volumes["clean"], noises
    strength = np.float32(clean.std() / np.sqrt(REAL_SNR * snr / 0.1))
    half = np.float32(np.sqrt(2))
    for name, noise in (("tomogram", first), ("odd", half * first), ("even", half * second)):
        volumes[name] = clean + strength * noise


def simulated_case(name, config, snr, seed, folder):
    """Simulate a case's volumes into ``folder``."""
    files.make_folder(folder)
    simulation = _simulation(name, config, snr, seed)
    specimen = specimen_of(simulation)
    volumes = simulate_volumes(simulation, specimen)
    if name in ("thick", "in-situ"):
        # Where slices don't overlap, much of a noise-free reconstruction is the streaks of what
        # lies above and below: it can't show what is right.
        dense = dataclasses.replace(simulation, tilt_step=DENSE_STEP)
        volumes["noise_free"] = volumes["clean"]
        volumes["clean"] = noise_free_volume(dense, specimen)
    if name == "real-noise":
        _put_into_real_noise(volumes, snr, seed)
    if name in CHANGES:
        CHANGES[name](volumes)
    voxel_size = simulation.voxel_size * simulation.shape[0] / volumes["clean"].shape[0]
    paths = {}
    for key, volume in volumes.items():
        paths[key] = os.path.join(folder, key + ".mrc")
        mrc.write_volume(paths[key], volume, voxel_size)
    # Without noise both halves are the same volume, which is no pair of half-maps.
    halves = () if name == "noisefree" else (paths["odd"], paths["even"])
    return Case(
        name,
        snr,
        seed,
        paths["tomogram"],
        halves,
        paths["clean"] if volumes["clean"].std() > 0 else None,
        paths["membrane"] if volumes["membrane"].any() else None,
        paths["density"],
        paths.get("noise_free", paths["clean"]),
    )
