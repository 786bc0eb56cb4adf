"""Wiener-like deconvolution: lifts low frequencies and undoes the CTF as far as noise allows.

The filter is that of Warp (Tegunov & Cramer, Nature Methods 16 (2019) 1146) and IsoNet (Liu et
al., Nature Communications 13 (2022) 6482). It needs the defocus, and no training.
"""
import dataclasses
import math
import os

import numpy as np
import torch

from f2fd_core import fourier, mrc, report
from f2fd_core.ctf import contrast_transfer
from f2fd_core.device import set_threads

DECONVOLVED = "_deconvolved.mrc"
FLOOR = 1e-6


def transfer(radius, voxel_size, settings):
    """The filter at radii of 0 to 1 of the Nyquist frequency, a tensor.

    ctf / (ctf² + 1 / SNR), where SNR falls off exponentially and rises smoothly from zero below
    ``highpass``. ``voxel_size`` in Å; ``settings``: a configuration with the deconvolution's
    fields.
    """
    rise = 1 - torch.cos(math.pi * (radius / settings.highpass).clamp(max=1)) \
        if settings.highpass else torch.full_like(radius, 2.0)
    snr = (torch.exp(-radius * settings.snr_falloff * 100 / voxel_size)
           * 10 ** settings.strength * rise + FLOOR)
    ctf = contrast_transfer(radius / (2 * voxel_size), settings.defocus, settings.phase_shift)
    if settings.phase_flipped:
        ctf = ctf.abs()
    return ctf / (ctf.square() + 1 / snr)


def deconvolved(data, voxel_size, settings):
    """A volume (Z, Y, X) filtered, float32, with the mean and standard deviation it had."""
    volume = torch.from_numpy(np.array(data, dtype=np.float32))
    mean, std = volume.mean(), volume.std()
    radius = 2 * fourier.radial_frequency(volume.shape)
    spectrum = torch.fft.rfftn(volume - mean) * transfer(radius, voxel_size, settings)
    filtered = torch.fft.irfftn(spectrum, s=volume.shape)
    return (filtered * (std / filtered.std().clamp(min=1e-30)) + mean).numpy()


def preparation(settings, defocus=0.0):
    """What a tomogram's voxels go through first, a function of (voxels, voxel size); None: nothing.

    ``settings``: the TrainConfig; ``defocus`` (µm), if not 0, is used instead of its own.
    """
    if not settings.deconvolve:
        return None
    own = dataclasses.replace(settings, defocus=defocus or settings.defocus)
    return lambda data, voxel_size: deconvolved(data, voxel_size, own)


def deconvolve(config):
    """Filter the tomograms of a DeconvolveConfig; returns the paths of the results.

    Each ``<name>_deconvolved.mrc`` is float32 with the input's mean, standard deviation, voxel
    size, origin and start indices. Everything is checked before the first is computed; raises
    UserError.
    """
    set_threads(config.threads)
    paths = mrc.output_paths(config.tomograms, config.output, DECONVOLVED)
    mrc.refuse_existing(paths.values(), config.overwrite)
    sources = [mrc.open_volume(name, config.voxel_size) for name in config.tomograms]
    for source in sources:
        mrc.refuse_bad_voxels(source)
    mrc.make_folder(config.output)
    for source in sources:
        path = paths[source.path]
        with mrc.new_volume(path, *source.header()) as data:
            data[:] = deconvolved(source.data, config.voxel_size or source.voxel_size[0], config)
            before, after = ([np.array(values[index], dtype=np.float32)
                              for index in report.central_slices(source.shape)]
                             for values in (source.data, data))
        report.draw_slices(before, after, os.path.splitext(path)[0] + "_slices.png", source.name)
        report.say("written to %s" % path)
    return list(paths.values())
