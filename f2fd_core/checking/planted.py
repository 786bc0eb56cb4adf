"""Structures that are known, added to the tomogram: what a model makes of them.

A structure p is added to the tomogram X at many places; what the model f does to it there is
f(X + p) - f(X), beside everything else that the tomogram has.
"""

import math

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.prediction.predictor import inner_of
from f2fd_core.simulation.specimen import LEAFLET_DISTANCE, LEAFLET_WIDTH, random_rotation

# In standard deviations of the tomogram, which are mostly noise.
CONTRASTS = (0.1, 0.25, 0.5, 1.0, 2.0)
PLACES = 8
# What is planted is recovered from this share of its contrast on.
RECOVERED = 0.5
# Coefficients with less than this share of the mean power of their Fourier shell are not measured.
MEASURABLE = 0.02


def _inside(distance, voxel_size):
    """1 inside of a surface, 0 outside, by the signed ``distance`` (Å); a voxel wide."""
    return np.clip(0.5 - distance / voxel_size, 0, 1)


def sphere(radius):
    """A full sphere, 1 inside; an array (Z, Y, X)."""

    def density(offsets, voxel_size):
        return _inside(np.sqrt((offsets**2).sum(0)) - radius, voxel_size)

    return density


def filament(radius, length):
    """A straight filament along Y, 1 inside; an array (Z, Y, X)."""

    def density(offsets, voxel_size):
        across = np.sqrt((offsets[1:] ** 2).sum(0)) - radius
        return _inside(np.maximum(across, np.abs(offsets[0]) - length / 2), voxel_size)

    return density


def membrane(radius):
    """A vesicle with a membrane of two leaflets; an array (Z, Y, X)."""

    def density(offsets, voxel_size):
        width = max(LEAFLET_WIDTH, 0.7 * voxel_size)
        leaflets = sum(
            np.exp(-0.5 * ((offsets[0] - side * LEAFLET_DISTANCE / 2) / width) ** 2)
            for side in (-1, 1)
        )
        around = np.sqrt((offsets[1:] ** 2).sum(0)) - radius
        return leaflets / leaflets.max() * _inside(around, voxel_size)

    return density


# {name: (diameter in Å, density of the offsets (3, ...) to the middle, in Å)}
SHAPES = {
    "sphere of 100 Å": (100, sphere(50)),
    "sphere of 250 Å, as a ribosome": (250, sphere(125)),
    "filament 70 Å thick, 400 Å long": (400, filament(35, 400)),
    "membrane, 400 Å wide": (400, membrane(200)),
}


def structure(name, voxel_size, random):
    """A structure of SHAPES, turned at random, of contrast 1: an array with equal sides."""
    diameter, density = SHAPES[name]
    side = int(math.ceil(diameter / voxel_size)) + 4
    axis = (np.arange(side) - (side - 1) / 2) * voxel_size
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    turned = np.tensordot(random_rotation(random), offsets, 1)
    return density(turned, voxel_size).astype(np.float32)


def as_measured(values, noise):
    """``values`` (Z, Y, X) without what no tilt shows: the Fourier coefficients without power in
    the tomogram whose :class:`~f2fd_core.noise.NoiseModel` this is."""
    power = fourier.resample_power(noise.total, noise.window, values.shape)
    grid = fourier.grid_of(tuple(values.shape))
    level = grid.ratio(power, torch.ones_like(power))[grid.shell]
    spectrum = torch.fft.rfftn(torch.from_numpy(values)) * (power > MEASURABLE * level)
    return torch.fft.irfftn(spectrum, s=values.shape).numpy()


def plant(denoiser, noise, sign, seed, step):
    """{structure: how much of it is recovered}, of the SHAPES that the tomogram has room for.

    ``sign`` of matter in it, 1 or -1; ``step()`` is called after each prediction. For each of the
    CONTRASTS: ``recovered``, the share of the contrast that comes out, ``likeness``, the
    correlation of what comes out with what was planted, and ``beside``, the rest of what changes,
    as a share of what was planted; each the mean over the places. ``from``: the least contrast of
    which at least half is recovered, None if there is none.
    """
    denoiser, volume = denoiser.once(), denoiser.perturbation.volume
    random = np.random.default_rng(seed)
    found = {}
    for name in fitting(volume):
        rows = np.zeros((len(CONTRASTS), 3))
        for _ in range(PLACES):
            shape = structure(name, volume.voxel_size, random)
            first = [
                int(random.integers(0, length - side + 1))
                for length, side in zip(volume.shape, shape.shape)
            ]
            part = tuple(first), shape.shape
            start, size = denoiser.context(part)
            padded = np.zeros(size, np.float32)
            padded[inner_of(part, start)] = shape
            padded = as_measured(padded, noise)
            before = denoiser.without_context((start, size))
            step()
            for number, contrast in enumerate(CONTRASTS):
                planted = sign * contrast * padded
                change = denoiser.without_context((start, size), planted) - before
                rows[number] += recovered(change, planted)
                step()
        shares = rows / PLACES
        enough = [contrast for contrast, row in zip(CONTRASTS, shares) if row[0] >= RECOVERED]
        found[name] = {
            "contrast": list(CONTRASTS),
            "from": enough[0] if enough else None,
            **{
                key: column.tolist()
                for key, column in zip(("recovered", "likeness", "beside"), shares.T)
            },
        }
    return found


def fitting(volume):
    """The SHAPES that a volume has room for."""
    return [
        name
        for name, (diameter, _) in SHAPES.items()
        if min(volume.shape) >= math.ceil(diameter / volume.voxel_size) + 4
    ]


def predictions(volume):
    """How many predictions :func:`plant` makes."""
    return len(fitting(volume)) * PLACES * (1 + len(CONTRASTS))


def recovered(change, planted):
    """(share of the contrast, correlation, the rest of the change over what was planted)."""
    power = float((planted**2).sum())
    share = float((change * planted).sum()) / power
    rest = float(((change - share * planted) ** 2).sum())
    length = math.sqrt(max(float((change**2).sum()), 1e-30))
    return share, share * math.sqrt(power) / length, math.sqrt(rest / power)
