"""Wiener-like deconvolution: lifts low frequencies and undoes the CTF as far as noise allows.

The filter is that of Warp (Tegunov & Cramer, Nature Methods 16 (2019) 1146) and IsoNet (Liu et
al., Nature Communications 13 (2022) 6482). It needs the defocus, and no training.
"""

import dataclasses
import math

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.data import mrc
from f2fd_core.data.out_of_core import DiskArray, sections_of, spectrum_of
from f2fd_core.filters.ctf import contrast_transfer

FLOOR, TINY = 1e-6, 1e-30


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
    ctf = contrast_transfer(radius / (2 * voxel_size), settings.defocus, settings.phase_shift)
    if settings.phase_flipped:
        ctf = ctf.abs()
    return ctf / (ctf.square() + 1 / snr)


def deconvolved(data, voxel_size, settings, result=None):
    """A volume (Z, Y, X) filtered, float32, with the mean and standard deviation it had.

    ``data``: an array or an :class:`~f2fd_core.data.mrc.MrcVolume`. It is written into the array
    ``result``, if given. Both may be on disk; in memory is one copy of the volume, its spectrum.
    """
    shape = data.shape
    if result is None:
        result = np.empty(shape, dtype=np.float32)
    mean = (
        sum(np.asarray(data[slab], dtype=np.float64).sum() for slab in mrc.slabs(shape)) / data.size
    )
    spectrum = spectrum_of(
        lambda slab: torch.from_numpy(
            (np.asarray(data[slab], dtype=np.float64) - mean).astype(np.float32)
        ),
        shape,
    )
    z, y, x = fourier.axis_frequencies(shape)
    weights = fourier.friedel_weights(shape)
    before = after = 0.0
    for slab in mrc.slabs(shape):
        radius = 2 * torch.sqrt(z[slab, None, None] ** 2 + y[None, :, None] ** 2 + x**2)
        part = spectrum[slab]
        # By Parseval's theorem the sum of squares, up to a factor.
        before += float((part.abs().square() * weights).sum(dtype=torch.float64))
        part *= transfer(radius, voxel_size, settings)
        after += float((part.abs().square() * weights).sum(dtype=torch.float64))
    scale = math.sqrt(before / max(after, TINY))
    for slab, sections in sections_of(spectrum, shape):
        result[slab] = (sections * scale + mean).numpy()
    return result


def preparation(settings, defocus=0.0):
    """What a tomogram's voxels go through first, a function of (voxels, voxel size); None: nothing.

    ``settings``: the TrainConfig; ``defocus`` (µm), if not 0, is used instead of its own.
    """
    if not settings.deconvolve:
        return None
    own = dataclasses.replace(settings, defocus=defocus or settings.defocus)
    return lambda data, voxel_size: deconvolved(
        data, voxel_size, own, DiskArray(data.shape, np.float32).array
    )
