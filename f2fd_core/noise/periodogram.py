"""Periodograms: the power of Hann-tapered windows of a tomogram (Welch's method).

Spectra are on the ``rfftn`` grid of the windows' size, see :mod:`f2fd_core.fourier`.
"""

import functools
import math
from itertools import product

import numpy as np
import torch

from f2fd_core.fourier import AXES
from f2fd_core.runtime.device import to_device

# How many windows an estimate looks at.
MAXIMUM_WINDOWS = 2048
# How many voxels in them.
MAXIMUM_VALUES = 1 << 26
# Voxels of the windows whose Fourier transforms are made in one call.
VALUES_AT_ONCE = 1 << 20
# Windows that a volume has room for, side by side, so that there is a statistic.
LEAST_WINDOWS = 16
# As few where more must be resolved.
FEW_WINDOWS = 2
# The side (voxels) that is kept all the same.
SMALLEST_WINDOW = 16


def window_corners(shape, size, maximum=MAXIMUM_WINDOWS):
    """First voxels of windows of ``size``, at least half-overlapping, that cover a volume.

    At most ``maximum`` of them, and not more than 64 million voxels in all, spread evenly.
    """
    maximum = min(maximum, max(1, MAXIMUM_VALUES // math.prod(size)))
    starts = []
    for length, side in zip(shape, size):
        count = -(-(length - side) // max(side // 2, 1)) + 1
        starts.append(np.linspace(0, length - side, count).round().astype(int).tolist())
    corners = list(product(*starts))
    chosen = np.linspace(0, len(corners) - 1, min(maximum, len(corners))).round().astype(int)
    return [corners[index] for index in chosen]


def window_size(shape, window, least=LEAST_WINDOWS):
    """Size of the estimate's windows: cubes of at most ``window``, cut where a volume of ``shape``
    is thinner, and smaller where otherwise fewer than ``least`` would fit in."""
    largest = (np.prod(shape, dtype=float) / least) ** (1 / 3)
    side = min(window, max(SMALLEST_WINDOW, int(largest) // 8 * 8))
    return tuple(min(side, length) for length in shape)


def periodograms(region, corners, size, other=None, device="cpu"):
    """Power of Hann-windowed windows, each minus its mean: tensor (windows, z, y, x // 2 + 1).

    ``region(start, size)`` returns the voxels of a window. With ``other``, which returns those of
    another volume, it is the power that both have in common: the real part of the cross-spectrum.
    It is computed on ``device``, and comes back on the CPU.
    """
    power = torch.empty((len(corners), size[0], size[1], size[2] // 2 + 1))
    for some in some_windows(corners, size):
        spectra = windowed_spectra(region, corners[some], size, device)
        partners = windowed_spectra(other, corners[some], size, device) if other else spectra
        power[some] = (spectra * partners.conj()).real.cpu()
    return power


@functools.lru_cache(maxsize=4)
def _taper(size):
    """A Hann window in three dimensions, scaled so that white noise keeps its power."""
    hann = [torch.hann_window(side, periodic=True) for side in size]
    taper = hann[0][:, None, None] * hann[1][None, :, None] * hann[2][None, None, :]
    return taper / taper.square().sum().sqrt()


def some_windows(corners, size):
    """Slices of the windows, so many in each that they are worth a call and fit into memory."""
    count = max(1, VALUES_AT_ONCE // math.prod(size))
    return [slice(first, first + count) for first in range(0, len(corners), count)]


def windowed_spectra(region, corners, size, device):
    """Spectra of Hann-windowed windows: tensor (windows, z, y, x // 2 + 1) on ``device``."""
    values = to_device(
        torch.from_numpy(np.stack([region(corner, size) for corner in corners])), device
    )
    values -= values.mean(AXES, keepdim=True)
    return torch.fft.rfftn(values * _taper(tuple(size)).to(device), dim=AXES)
