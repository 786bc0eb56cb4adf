"""Wiener-like deconvolution: lifts low frequencies and undoes the CTF as far as noise allows.

The filter is that of Warp (Tegunov & Cramer, Nature Methods 16 (2019) 1146) and IsoNet (Liu et
al., Nature Communications 13 (2022) 6482). It needs the defocus, and no training.
"""

import dataclasses
import math

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.config import CTF
from f2fd_core.data.out_of_core import sections_of, spectrum_of
from f2fd_core.data.source import slabs
from f2fd_core.filters.ctf import contrast_transfer
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_core.runtime.mapped import DiskArray

# The least signal-to-noise ratio.
FLOOR = 1e-6


def transfer(radius, voxel_size, settings):
    """The filter at radii of 0 to 1 of the Nyquist frequency, a tensor.

    ctf / (ctf² + 1 / SNR), where SNR falls off exponentially and rises smoothly from zero below
    ``highpass``. ``voxel_size`` in Å; ``settings``: a configuration with the deconvolution's
    fields.
    """
    rise = (
        1 - torch.cos(math.pi * (radius / settings.highpass).clamp(max=1))
        if settings.highpass
        else torch.full_like(radius, 2.0)
    )
    snr = (
        torch.exp(-radius * settings.snr_falloff * 100 / voxel_size) * 10**settings.strength * rise
        + FLOOR
    )
    ctf = contrast_transfer(
        radius / (2 * voxel_size), **{name: getattr(settings, name) for name in CTF}
    )
    if settings.phase_flipped:
        ctf = ctf.abs()
    return ctf / (ctf.square() + 1 / snr)


def deconvolved(data, voxel_size, settings, result=None):
    """A volume (Z, Y, X) filtered, float32, with the mean and standard deviation it had.

    ``data``: an array or a :class:`~f2fd_core.data.source.Source`. It is written into the array
    ``result``, if given. Both may be on disk; in memory is one copy of the volume, its spectrum.
    """
    shape = data.shape
    if result is None:
        result = np.empty(shape, dtype=np.float32)
    mean = sum(np.asarray(data[slab], dtype=np.float64).sum() for slab in slabs(shape)) / data.size
    spectrum = spectrum_of(
        lambda slab: torch.from_numpy(
            (np.asarray(data[slab], dtype=np.float64) - mean).astype(np.float32)
        ),
        shape,
    )
    z, y, x = fourier.axis_frequencies(shape)
    weights = fourier.friedel_weights(shape)
    before = after = 0.0
    for slab in slabs(shape):
        radius = 2 * torch.sqrt(z[slab, None, None] ** 2 + y[None, :, None] ** 2 + x**2)
        part = spectrum[slab]
        # By Parseval's theorem the sum of squares, up to a factor.
        before += float((part.abs().square() * weights).sum(dtype=torch.float64))
        part *= transfer(radius, voxel_size, settings)
        after += float((part.abs().square() * weights).sum(dtype=torch.float64))
    scale = math.sqrt(before / max(after, fourier.TINY))
    for slab, sections in sections_of(spectrum, shape):
        result[slab] = (sections * scale + mean).numpy()
    return result


def preparation(path, settings, own=None):
    """What the voxels of the tomogram ``path`` go through first, a function of (voxels, voxel
    size); None: nothing.

    ``settings``: the TrainConfig; ``own``: as for
    :func:`~f2fd_core.filters.ctf_table.ctf_of`, which says what it raises.
    """
    if not settings.deconvolve:
        return None
    settings = dataclasses.replace(settings, **ctf_of(path, settings, own))
    return lambda data, voxel_size: deconvolved(
        data, voxel_size, settings, DiskArray(data.shape, np.float32).array
    )
