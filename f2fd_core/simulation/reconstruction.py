"""Tomograms from tilt series: weighted back-projection and direct Fourier insertion.

Volumes are (Z, Y, X), tilt series (tilts, Y, X), angles in radians; the tilt axis is Y, so that
each XZ plane is reconstructed from one row of every tilt.
"""

import math

import torch

SIRT_STEP = 0.00195
# How many times as large a plane is, in each direction, where transforms are inserted; matter that
# lies outside of it is folded in.
PADDING = 2


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

    The transform of a row at tilt a is that of its XZ plane along k (cos a, sin a). On the grid of
    a plane that is PADDING times as large, each coefficient is shared by the four around it with
    bilinear weights; their sums are divided by those of the weights, and the plane by the taper
    that this interpolation gives it (gridding; O'Sullivan, IEEE Trans. Med. Imaging 4 (1985) 200).
    Between slices that don't overlap there is nothing.
    """
    width = series.shape[-1]
    sides, shape = (PADDING * depth, PADDING * width), (depth, width)
    frequency = torch.fft.fftfreq(PADDING * max(shape))
    rows = torch.fft.fft(series, n=len(frequency)).movedim((-3, -1), (0, 1))  # (tilts, k, ..., Y)

    def along(values):
        return values.reshape((-1,) + (1,) * (rows.ndim - 2))

    rows = rows * along(torch.exp(1j * math.pi * (width - 1) * frequency))
    plane, weights = rows.new_zeros((math.prod(sides),) + rows.shape[2:]), torch.zeros(sides)
    for row, angle in zip(rows, angles):
        for place, weight in _neighbours(angle, frequency, sides):
            weights.view(-1).index_add_(0, place, weight)
            plane.index_add_(0, place, row * along(weight))
    plane /= along(weights.clamp(min=1e-6))
    plane = plane.unflatten(0, sides)
    for side, count in zip(sides, shape):  # Z, and then X in its place
        shift = torch.exp(-1j * math.pi * (count - 1) * torch.fft.fftfreq(side))
        spread = torch.sinc((torch.arange(count) - (count - 1) / 2) / side).square()
        part = torch.fft.ifft(plane * along(shift)[..., None], dim=0)[:count]
        plane = (part / along(spread)[..., None]).transpose(0, 1)
    return plane.real.movedim((0, 1), (-3, -1)).contiguous()


def reconstruct(series, angles, depth, config):
    """The volumes (..., Z, Y, X) of tilt series, as the SimulateConfig says."""
    if config.reconstruction == "insertion":
        return insert(series, angles, depth)
    return back_project(series, angles, depth, config.sirt_iterations)
