"""Tomograms from tilt series: weighted back-projection and Fourier insertion (with a CTF, too).

Volumes are (Z, Y, X), tilt series (tilts, Y, X), angles in radians; the tilt axis is Y, so that
each XZ plane is reconstructed from one row of every tilt.
"""

import math

import torch

SIRT_STEP = 0.00195
# How many times as large a plane is, in each direction, where transforms are inserted; matter that
# lies outside of it is folded in.
PADDING = 2
# Of a reconstruction that corrects the CTF: the default of relion_tomo_reconstruct_tomogram --ctf.
CORRECTED_SNR = 10.0
# No fewer weights than these are divided by.
LEAST_WEIGHT = 1e-6


def back_project(series, angles, depth, sirt_iterations=0):
    """Weighted back-projection of (..., tilts, Y, X) to (..., Z, Y, X) with ``depth`` sections.

    The weight is the ramp |k| across the tilt axis with a Gaussian roll-off from 0.4 cycles per
    pixel (Radermacher, in Electron Tomography, 1992). With ``sirt_iterations`` n above 0 it is
    multiplied by 1 - (1 - a / |k|)^n, what n iterations of SIRT let through (IMOD's SIRT-like
    filter).
    """
    width = series.shape[-1]
    frequency = torch.fft.rfftfreq(width)
    ramp = frequency.clamp(min=0.25 / width) * torch.exp(
        -0.5 * ((frequency - 0.4).clamp(min=0) / 0.05) ** 2
    )
    if sirt_iterations:
        left = (1 - SIRT_STEP / frequency.clamp(min=SIRT_STEP)) ** sirt_iterations
        ramp = ramp * (1 - left)
    weighted = torch.fft.irfft(torch.fft.rfft(series) * ramp, n=width)
    z = torch.arange(depth)[:, None] - (depth - 1) / 2
    x = torch.arange(width)[None, :] - (width - 1) / 2
    flat = weighted.new_zeros(series.shape[:-3] + (series.shape[-2], depth * width))
    for number, angle in enumerate(angles):
        position = (x * math.cos(angle) + z * math.sin(angle) + (width - 1) / 2).flatten()
        below = position.floor().long().clamp(0, width - 2)
        weight = position - below
        inside = (position >= 0) & (position <= width - 1)
        image = weighted[..., number, :, :]
        flat += image[..., below] * ((1 - weight) * inside) + image[..., below + 1] * (
            weight * inside
        )
    volume = flat.unflatten(-1, (depth, width)) * (math.pi / len(angles))
    return volume.transpose(-3, -2)


def _neighbours(angle, frequency, sides):
    """The coefficients of a plane of ``sides`` (Z, X) around those of a row at a tilt ``angle``:
    four times (their indices, their bilinear weights)."""
    z, x = frequency * (math.sin(angle) * sides[0]), frequency * (math.cos(angle) * sides[1])
    for up, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = z.floor() + up, x.floor() + right
        weight = (1 - (z - row).abs()) * (1 - (x - column).abs())
        yield row.long() % sides[0] * sides[1] + column.long() % sides[1], weight


def insert(series, angles, depth):
    """Direct Fourier insertion of (..., tilts, Y, X) to (..., Z, Y, X) with ``depth`` sections.

    Between slices that don't overlap there is nothing.
    """
    everywhere = torch.ones(1, 1, PADDING * max(depth, series.shape[-1]))
    return _inserted(series, angles, depth, everywhere, everywhere).real.contiguous()


def insert_corrected(series, angles, depth, transfer, weights):
    """The same with the CTF corrected, as RELION does it: the tilts' transforms are multiplied by
    their CTF, and the sum is divided by that of its squares plus 1 / CORRECTED_SNR.

    ``transfer`` and ``weights``: functions of frequencies (cycles per pixel) along Y, (Y, 1), and
    X, (X,), that give the CTF of the tilts and what they were weighted with before, (tilts or 1, Y,
    X).
    """
    rows = torch.fft.fft(series, dim=-2)
    y = torch.fft.fftfreq(series.shape[-2])[:, None]
    x = torch.fft.fftfreq(PADDING * max(depth, series.shape[-1]))
    ctf, weight = transfer(y, x), weights(y, x)
    plane = _inserted(rows, angles, depth, ctf, (ctf * weight).square(), 1 / CORRECTED_SNR)
    return torch.fft.ifft(plane, dim=-2).real.contiguous()


def _inserted(series, angles, depth, factor, weight, offset=0.0):
    """Series (..., tilts, Y, X) as a complex volume (..., Z, Y, X).

    The transform of a row at tilt a is that of its XZ plane along k (cos a, sin a). On the grid of
    a plane that is PADDING times as large, each coefficient is shared by the four around it with
    bilinear weights; their sums are divided by those of the weights, and the plane by the taper
    that this interpolation gives it (gridding; O'Sullivan, IEEE Trans. Med. Imaging 4 (1985) 200).
    ``factor`` and ``weight`` of the transforms: (tilts or 1, Y or 1, k); ``offset`` is added to the
    sums of the weights.
    """
    width = series.shape[-1]
    sides, shape = (PADDING * depth, PADDING * width), (depth, width)
    frequency = torch.fft.fftfreq(PADDING * max(shape))
    rows = torch.fft.fft(series, n=len(frequency)).movedim((-3, -1), (0, 1))  # (tilts, k, ..., Y)

    def along(values):
        return values.reshape((-1,) + (1,) * (rows.ndim - 2))

    def by_row(values):
        """(..., Y, k) as (..., k, ..., Y)."""
        values = values.transpose(-1, -2)
        between = (1,) * (rows.ndim - 3)
        return values.reshape(values.shape[:-1] + between + values.shape[-1:])

    rows = rows * along(torch.exp(1j * math.pi * (width - 1) * frequency)) * by_row(factor)
    weights = by_row(weight)
    weights = weights.expand(len(angles), *weights.shape[1:])
    plane, total = (
        torch.zeros((math.prod(sides), *each.shape[2:]), dtype=each.dtype)
        for each in (rows, weights)
    )
    for row, own, angle in zip(rows, weights, angles):
        for place, share in _neighbours(angle, frequency, sides):
            total.index_add_(0, place, own * along(share))
            plane.index_add_(0, place, row * along(share))
    plane /= (total + offset).clamp(min=LEAST_WEIGHT)
    plane = plane.unflatten(0, sides)
    for side, count in zip(sides, shape):  # Z, and then X in its place
        shift = torch.exp(-1j * math.pi * (count - 1) * torch.fft.fftfreq(side))
        spread = torch.sinc((torch.arange(count) - (count - 1) / 2) / side).square()
        part = torch.fft.ifft(plane * along(shift)[..., None], dim=0)[:count]
        plane = (part / along(spread)[..., None]).transpose(0, 1)
    return plane.movedim((0, 1), (-3, -1))


def reconstruct(series, angles, depth, config, transfer, weights):
    """The volumes (..., Z, Y, X) of tilt series, as the SimulateConfig says; ``transfer`` and
    ``weights``: see :func:`insert_corrected`."""
    if config.reconstruction == "insertion":
        return insert(series, angles, depth)
    if config.reconstruction == "ctf-corrected":
        return insert_corrected(series, angles, depth, transfer, weights)
    return back_project(series, angles, depth, config.sirt_iterations)
