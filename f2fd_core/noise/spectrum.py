"""The power spectrum of the noise, separated from the signal's.

Power is on the ``rfftn`` grid of the windows in which it was measured, see
:mod:`f2fd_core.fourier`; the tilt axis is Y. docs/method.md ("The noise") says why each step is
what it is, and what it was measured to be worth.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from f2fd_core.data.orientation import USUAL, back
from f2fd_core.fourier import TINY, axis_frequencies, grid_of, rotated_power, turned_power
from f2fd_core.noise.orientation import axes_of, tilt_axis_angle

# Distance to the tilt axis (cycles per voxel) within which the signal of all tilts adds up.
FULL_OF_SIGNAL = 0.15
# From this frequency on the noise near the axis is compared with that farther out.
COMPARED_FROM = 0.2
# It is not too much if it is so many times as high there, as SIRT-like filters and the correction
# of the CTF make it.
RISES = 1.2
# Of the noise a network removes no less; what it removes less of it says nothing about.
LEAST_REMOVED = 0.2
# Zones of angles in which noise and all power are compared.
ZONES = 6


class Spectrum(NamedTuple):
    """What is known of the noise: ``power`` on the rfft grid, and by Fourier shell (see RfftGrid)
    the lowest and the highest power that it may have."""

    power: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor


def by_shell(power, size):
    """Mean power of each Fourier shell."""
    return grid_of(size).ratio(power, torch.ones_like(power))


def censored_exponential_mean(power, share):
    """Mean power of the noise from the power of windows, (windows, ...), some of them with signal.

    At every frequency the power of noise over n windows is exponentially distributed, and signal
    lifts the upper tail. The mean of an exponential distribution from its k = ``share`` n smallest
    draws x_1 <= ... <= x_k, unbiased and with the relative variance 1 / k, is
    (x_1 + ... + x_k + (n - k) x_k) / k (Epstein & Sobel, J. Am. Stat. Assoc. 48 (1953) 486).
    The windows' order in ``power`` is changed.
    """
    count = len(power)
    kept = min(max(1, round(share * count)), count)
    smallest = power.numpy()
    smallest.partition(kept - 1, axis=0)
    smallest = smallest[:kept]
    total = smallest.sum(axis=0, dtype=np.float64) + (count - kept) * smallest[-1]
    return torch.from_numpy((total / kept).astype(np.float32))


def filled_share(power, size):
    """Share of the Fourier coefficients that power on the rfft grid of ``size`` fills.

    It is (mean of P)² / mean of P² over all coefficients, the participation ratio: 1 for white
    noise, f for power that is even in a part f and nothing elsewhere; 0 where there is no power.
    """
    weights = grid_of(size).weights / math.prod(size)
    mean, square = ((values.double() * weights).sum() for values in (power, power.square()))
    return float(mean**2 / square) if square > 0 else 0.0


def level_left_out(left_out, total, size, settings):
    """The power of the noise in what a network leaves out of the windows of ``size``.

    ``left_out``: the power of that in each window, (windows, ...), which is sorted here; ``total``:
    the mean of all power; ``settings``: :class:`~f2fd_core.noise.settings.NoiseSettings`. It is
    noise, and signal that the network does not know. The windows with the least of it give the
    level. The more the others have, the more of it is signal, of which these windows are taken to
    have half as much as all have on average.
    """
    grid, mean = grid_of(size), left_out.mean(0)
    level = censored_exponential_mean(left_out, settings.share)
    if settings.varying:
        level = level * (2 - grid.ratio(mean, level)).clamp(0, 1)[grid.shell].float()
    return torch.minimum(level, total)


def noise_left_out(level, left_out, removed, total, size, settings):
    """The :class:`Spectrum` of the noise by its ``level`` in what a network leaves out, of which
    ``left_out`` is the mean power.

    ``removed``: by shell, what share of the noise the network removes. One that does its best
    leaves out as much of all power as it removes of the noise (Stein, see
    :mod:`f2fd_core.checking.error`): level / removed is the noise. One that takes noise for signal
    leaves out less; so the upper end allows for that.
    """
    grid = grid_of(size)
    known = settings.counted * level / removed.clamp(min=LEAST_REMOVED)[grid.shell].float()
    noise = torch.minimum(known, total)
    most, whole = by_shell(left_out, size), by_shell(total, size)
    share = (most / whole.clamp(min=TINY)).clamp(max=1)
    if settings.near_axis:
        noise = without_signal_near_axis(noise, share, size, axes_of(total, size) or USUAL)
    noise = _with_hardly_any_signal(noise, total, size, settings.hardly_any)
    found, doubt = by_shell(noise, size), share.sqrt()
    # What it leaves out has at least (1 - t)² N, as the rest of it does not depend on the noise.
    bound = torch.where(removed > LEAST_REMOVED, most / removed.square(), 0)
    upper = torch.maximum(whole * doubt, torch.minimum(bound, whole))
    return Spectrum(noise, found * doubt, torch.maximum(found, upper))


def without_signal_near_axis(noise, left_out, size, axes):
    """The noise, see :func:`noise_fraction_near_axis`, of a volume that lies along ``axes``.

    Below COMPARED_FROM it is between that and what it was, by the share of all power that the
    network has ``left_out``, by shell: the higher, the less signal there can be in it.
    """
    upright, upright_size = turned_power(noise, size, axes)
    angle = tilt_axis_angle(upright, upright_size)
    along_y = rotated_power(upright, upright_size, angle) if angle else upright
    share = noise_fraction_near_axis(along_y, upright_size)
    if angle:
        share = rotated_power(share, upright_size, -angle)
    limited = turned_power(upright * share, upright_size, back(axes))[0]
    grid = grid_of(size)
    between = limited + (noise - limited) * left_out.square()[grid.shell].float()
    return torch.where(grid.radius < COMPARED_FROM, between, limited)


def noise_fraction_near_axis(level, size):
    """The share of the ``level`` that is noise within FULL_OF_SIGNAL of the tilt axis, on the grid.

    There all tilts add up, so that a full specimen has signal up to Nyquist, which networks do not
    know. The noise that back-projection gives falls towards the axis at least as the root of the
    distance; that of SIRT-like filters rises, as may that of corrected CTFs: where the level does,
    it stays.
    """
    grid = grid_of(size)
    part = ((grid.radius >= COMPARED_FROM) & (grid.radius < 0.5)).float()
    usual = by_shell(level, size)[grid.shell].float()
    plane = (level * part).sum(1) / (usual * part).sum(1).clamp(min=TINY)
    distance, weights = grid.from_axis[:, 0], grid.weights[:, 0]

    def mean(low, high):
        ring = (distance >= low * FULL_OF_SIGNAL) & (distance < high * FULL_OF_SIGNAL)
        return float((plane * weights)[ring].sum() / weights[ring].sum().clamp(min=1))

    if mean(1 / 3, 2 / 3) >= RISES * mean(1, 4 / 3):
        return torch.ones_like(level)
    z, _, x = axis_frequencies(size)
    factors = (1.0, 1.15, 1.3)
    bound = torch.zeros_like(plane)
    for factor in factors:  # the same direction, a little farther out than FULL_OF_SIGNAL
        scale = factor * FULL_OF_SIGNAL / distance.clamp(min=1e-6)
        row = (z[:, None] * scale * size[0]).round().long() % size[0]
        column = (x[None, :] * scale * size[2]).round().long().clamp(max=size[2] // 2)
        bound += plane[row, column] / math.sqrt(factor) / len(factors)
    bound *= (distance / FULL_OF_SIGNAL).sqrt()
    share = (bound / plane.clamp(min=TINY)).clamp(max=1)
    return torch.where(distance < FULL_OF_SIGNAL, share, 1.0)[:, None].expand(level.shape)


def _with_hardly_any_signal(noise, total, size, hardly_any):
    """The noise, and of zones where less than the share ``hardly_any`` of the power is signal more
    and more of that: it can't be recovered, but noise would be passed."""
    grid = grid_of(size)
    zone = grid.shell * (ZONES + 1) + (grid.along_axis * ZONES).long()
    known = grid.ratio(noise, total, zone)[zone].float().clamp(max=1)
    filled = 1 - (1 - known) * ((1 - known) / hardly_any).clamp(max=1)
    return (noise * filled / known.clamp(min=TINY)).float()
