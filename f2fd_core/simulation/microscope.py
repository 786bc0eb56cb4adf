"""Synthetic tomograms with ground truth: tilt series of a specimen, noise, reconstruction.

Volumes are (Z, Y, X), tilt series (tilts, Y, X); the tilt axis is Y. Density is positive for
matter; projections and reconstructions have the contrast of the microscope, matter dark.
"""

import math

import numpy as np
import torch
from torch.nn import functional

from f2fd_core.filters.ctf import contrast_transfer
from f2fd_core.fourier import TINY
from f2fd_core.runtime.randomness import derived_seed
from f2fd_core.simulation.reconstruction import reconstruct
from f2fd_core.simulation.specimen import build_specimen

# The dose (e/Å²) after which a signal of so many cycles per Å is down to its e-th part in power, a
# k^b + c, at 300 kV (Grant & Grigorieff, eLife 4 (2015) e06980).
CRITICAL_DOSE = 0.24499, -1.6649, 2.8141

FILES = ("tomogram", "odd", "even", "clean", "density", "membrane")


def project(volume, angles):
    """Projections (tilts, Y, X) of a volume (Z, Y, X) tilted about Y by ``angles`` (radians).

    A detector pixel u sums the volume along z = s, x = u / cos(a) - s tan(a), with steps of at
    most one voxel along the ray and bilinear interpolation; outside the volume is nothing.
    """
    depth, _, width = volume.shape
    slices = volume.permute(1, 0, 2)[None]
    detector = torch.arange(width) - (width - 1) / 2
    projections = []
    for angle in angles:
        cosine, tangent = math.cos(angle), math.tan(angle)
        samples = depth * math.ceil(1 / cosine)
        height = (torch.arange(samples) + 0.5) * depth / samples - depth / 2
        x = detector[None, :] / cosine - height[:, None] * tangent
        grid = torch.stack([2 * x / width, (2 * height / depth)[:, None].expand_as(x)], -1)
        rays = functional.grid_sample(slices, grid[None], align_corners=False)
        projections.append(rays[0].sum(1) * (depth / samples / cosine))
    return torch.stack(projections)


def projection_frequencies(shape):
    """The frequencies (cycles per pixel) of the rfft grid of projections: along Y, (Y, 1), and X,
    (X,)."""
    return torch.fft.fftfreq(shape[0])[:, None], torch.fft.rfftfreq(shape[1])


def phase_flipped_transfer(y, x, voxel_size, defocus):
    """Phase-flipped CTF (negative: matter is dark) at frequencies (cycles per pixel) along Y,
    (Y, 1), and X, (X,).

    ``voxel_size`` in Å, ``defocus`` in µm.
    """
    return -contrast_transfer((y**2 + x**2).sqrt() / voxel_size, defocus).abs()


def dose_filter(config, y, x):
    """What radiation has left of the amplitudes of each tilt, (tilts, Y, X), at such frequencies.

    In half of the tilt's own dose and all of those before it, from the untilted one outwards. 1
    without a dose.
    """
    frequency = (y**2 + x**2).sqrt() / config.voxel_size
    factor, exponent, least = CRITICAL_DOSE
    critical = factor * frequency.clamp(min=TINY) ** exponent + least
    angles = torch.tensor(_angles(config), dtype=torch.float64)
    turn = angles.abs().argsort(stable=True).argsort()
    return torch.exp(-config.dose * (turn + 0.5)[:, None, None] / (2 * critical)).float()


def filtered(images, transfer):
    """Images (..., Y, X) times a transfer function on their rfft grid."""
    return torch.fft.irfftn(
        torch.fft.rfftn(images, dim=(-2, -1)) * transfer, s=images.shape[-2:], dim=(-2, -1)
    )


def noise_transfer(shape):
    """Amplitude of the detector noise on the rfft grid of projections (Y, X), mean power 1.

    Shot noise is white up to the detector's and the interpolation's gentle fall towards Nyquist:
    so it is in the halves of a real cell, and nothing rises at low frequencies there.
    """
    y, x = projection_frequencies(shape)
    amplitude = torch.exp(-1.2 * (y**2 + x**2))
    full = torch.cat([amplitude, amplitude[:, 1 : (shape[1] + 1) // 2]], 1)
    return amplitude / full.square().mean().sqrt()


def _beyond_the_volume(config):
    """(voxels above and below, voxels to the left and right) of the volume that the specimen
    fills, too: as far as the rays through the volume go in it."""
    above = max(config.thickness - config.shape[0], 0) // 2
    return above, math.ceil(above * math.tan(math.radians(max(map(abs, config.tilt_range)))))


def specimen_of(config):
    """The Specimen of a simulation, which reaches as far beyond the volume as its rays do."""
    above, beside = _beyond_the_volume(config)
    depth, height, width = config.shape
    return build_specimen(
        (depth + 2 * above, height, width + 2 * beside),
        config.voxel_size,
        config.specimen,
        config.seed,
    )


def _angles(config):
    """Tilt angles in radians."""
    return [math.radians(tilt) for tilt in config.tilts()]


def _noise_free_series(config, specimen):
    """Projections (tilts, Y, X) of a specimen as the microscope would show them without noise,
    weighted by dose."""
    y, x = projection_frequencies(specimen.shape[1:])
    transfer = phase_flipped_transfer(y, x, config.voxel_size, config.defocus)
    if config.dose:
        # Once by the radiation, and once by the weights.
        transfer = transfer * dose_filter(config, y, x) ** 2
    return filtered(project(torch.from_numpy(specimen.density), _angles(config)), transfer)


def _reconstructed(config, series, every=slice(None)):
    """Volumes (..., Z, Y, X) as numpy arrays, of ``every`` tilt of series (..., tilts, Y, X)."""
    _, beside = _beyond_the_volume(config)
    depth, _, width = config.shape
    volumes = reconstruct(
        series[..., every, :, :],
        _angles(config)[every],
        depth,
        config,
        # Phases are flipped already.
        lambda y, x: -phase_flipped_transfer(y, x, config.voxel_size, config.defocus)[None],
        lambda y, x: dose_filter(config, y, x)[every],
    )
    return volumes[..., beside : beside + width].numpy()


def noise_free_volume(config, specimen):
    """What :func:`simulate_volumes` calls clean, alone, (Z, Y, X)."""
    return _reconstructed(config, _noise_free_series(config, specimen))


def simulate_volumes(config, specimen=None):
    """The simulated volumes as numpy arrays: {name: (Z, Y, X)} for the names in FILES.

    clean is the reconstruction of the projections without noise. With ``half_maps`` "noise", odd
    and even are reconstructions of all tilts with independent noise of twice the variance, and
    tomogram is their mean; with "tilts", they are reconstructions of every other tilt, and tomogram
    of all. ``specimen``: the one that :func:`specimen_of` gives, if it is there already.
    """
    specimen = specimen or specimen_of(config)
    angles = _angles(config)
    clean = _noise_free_series(config, specimen)
    untilted = clean[min(range(len(angles)), key=lambda number: abs(angles[number]))]
    sigma = (float(untilted.std()) or 1.0) / math.sqrt(config.snr)
    # Fewer electrons come through the longer path of a tilted specimen.
    sigmas = torch.tensor([sigma / math.sqrt(math.cos(angle)) for angle in angles])
    generator = torch.Generator().manual_seed(derived_seed(config.seed))
    noise = torch.randn((2,) + clean.shape, generator=generator)
    transfer = noise_transfer(clean.shape[1:])
    if config.dose:
        transfer = transfer * dose_filter(config, *projection_frequencies(clean.shape[1:]))
    noise = filtered(noise, transfer)
    noise = noise * (math.sqrt(2) * sigmas[:, None, None])
    if config.half_maps == "tilts":
        series = clean + noise[0] / math.sqrt(2)
        clean, tomogram = _reconstructed(config, torch.stack([clean, series]))
        even, odd = (_reconstructed(config, series, slice(first, None, 2)) for first in (0, 1))
    else:
        clean, odd, even = _reconstructed(config, torch.cat([clean[None], clean + noise]))
        tomogram = (odd + even) / 2
    above, beside = _beyond_the_volume(config)
    depth, _, width = config.shape
    inside = (slice(above, above + depth), slice(None), slice(beside, beside + width))
    return {
        "tomogram": tomogram,
        "odd": odd,
        "even": even,
        "clean": clean,
        "density": specimen.density[inside],
        "membrane": specimen.membrane[inside].astype(np.float32),
    }
