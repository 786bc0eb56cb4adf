"""The noise's power spectrum, separated from the signal's by what back-projection does to both.

Power is on the ``rfftn`` grid of the windows in which it was measured, see
:mod:`f2fd_core.fourier`; the tilt axis is Y. docs/method.md ("The noise") says why each step is
what it is, and what it was measured to be worth.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from f2fd_core.data.orientation import USUAL, back
from f2fd_core.fourier import TINY, grid_of, rotated_power, turned_power
from f2fd_core.noise.form import fit_form, tilt_axis_angle
from f2fd_core.noise.orientation import axes_of

# Less than this share of what is usual is no power.
NO_POWER = 0.05
# A low-pass filter ends where there is none beside the highest shell from this share of the
# frequency on. What falls more slowly is the end of a strong signal.
OCTAVE = 0.5
# A falls towards Nyquist by at most exp(1), as interpolation and binning make it fall.
SLOPES = np.linspace(0, 1, 41)
# The quantile of the shells' levels that A goes through.
LOW_QUANTILE = 0.25
# The shells that it is fitted to, as shares of the band's end.
FITTED = (0.4, 0.94)
# Below this share of the band's end A is flat along the tilt axis.
FLAT_BELOW = 0.84
# |k_y| / |k| from which on a coefficient is near the tilt axis: there the signal of all tilts adds
# up.
NEAR_AXIS = 0.75
# |k_y| / |k| up to which it is far from the axis.
FAR_FROM_AXIS = 0.5
# How far the share of noise may be off, for the square of the signal's share.
DOUBT = 0.75
# Distance to the tilt axis (cycles per voxel) within which signal reaches up to Nyquist.
FULL_OF_SIGNAL = 0.15
# It does not where B is so many times as high there as farther out, as SIRT-like filters make it.
FALLS = 1.7
# Of what a network leaves out so much counts as noise: in crowded cells it leaves out signal, too.
LEFT_OUT_NOISE = 0.9
# Zones of angles in which noise and all power are compared.
ZONES = 6


class Spectrum(NamedTuple):
    """What is known of the noise: ``power`` on the rfft grid, and by Fourier shell (see RfftGrid)
    the lowest and the highest power that it may have."""

    power: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor


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


def band_end(power, size, lowest, nyquist=0.5):
    """Where a low-pass filter ends: the frequency of the first shell above ``lowest`` with less
    than NO_POWER times the power of one a little below, if the last one has less than the square of
    that: where a strong signal falls, noise goes on. Without one ``nyquist``, that of the voxels
    that were measured."""
    grid = grid_of(size)
    mean = grid.ratio(power, torch.ones_like(power))
    known = (grid.frequencies >= lowest) & (grid.frequencies <= nyquist)
    frequencies, mean = grid.frequencies[known], mean[known]
    for frequency, value in zip(frequencies, mean):
        before = mean[(frequencies >= OCTAVE * frequency) & (frequencies <= frequency)].max()
        if value < NO_POWER * before and mean[-1] < NO_POWER**2 * before:
            return float(frequency)
    return nyquist


def fit_level(power, B, size, end, slopes=SLOPES):
    """A on the grid: log A = a - b k², through the lower quartile of the shells' levels.

    Signal only adds to a shell, so a quantile regression (Koenker & Bassett, Econometrica 46 (1978)
    33) passes below what has some. Where neighbouring tilts' slices overlap, near the tilt axis,
    nothing but signal falls along k_y, and A stays what it is near Nyquist.
    """
    grid = grid_of(size)
    far = (grid.along_axis <= FAR_FROM_AXIS).float()
    level = grid.ratio(power * far, B * far).numpy()
    frequency = grid.frequencies.numpy()
    fitted = (frequency >= FITTED[0] * end) & (frequency <= FITTED[1] * end) & (level > 0)
    if fitted.sum() < 2:
        return torch.ones_like(power)
    square, logarithm = frequency[fitted] ** 2, np.log(level[fitted])
    weight = square / square.sum()  # as many coefficients as a shell has
    best = (math.inf, 0.0, 0.0)
    for slope in slopes / end**2:
        lifted = logarithm + slope * square
        order = np.argsort(lifted)
        place = np.searchsorted(np.cumsum(weight[order]), LOW_QUANTILE)
        rest = lifted - lifted[order][min(place, len(order) - 1)]
        loss = (weight * np.maximum(LOW_QUANTILE * rest, (LOW_QUANTILE - 1) * rest)).sum()
        best = min(best, (loss - 1e-12, slope, lifted[order][min(place, len(order) - 1)]))
    _, slope, level = best
    reference = (FLAT_BELOW * end) ** 2
    below = grid.radius**2 - reference
    below = torch.where(below < 0, _far_share(grid) * below, below)
    return torch.exp(level - slope * (reference + below)).float()


def _far_share(grid):
    """sin² of the angle to the tilt axis: how much of a coefficient is far from it."""
    share = (grid.from_axis / grid.radius.clamp(min=1e-6)) ** 2
    share[0, 0, 0] = 0
    return share


def noise_fraction_by_shell(power, noise, form, size):
    """Share of noise in the power far from the tilt axis, by shell, 0 to 1.

    Near the axis the noise is known: what is above it is signal. At the distance q from the axis
    there are 1 / q slices of projections to a coefficient; noise adds in power, and signal in
    amplitude, so that it is B W² U(|k|) / q beside noise of B W A (dose has taken from it what the
    weights take from noise, and the weights as much again): what it is near the axis gives what it
    is elsewhere. In shells without coefficients near the axis nothing is known: 0.
    """
    grid, B = grid_of(size), form.B
    mean = (B * (grid.radius < 0.5)).sum() / (grid.radius < 0.5).sum()
    seen = NO_POWER * mean < B
    near, far = seen & (grid.along_axis > NEAR_AXIS), seen & (grid.along_axis < FAR_FROM_AXIS)
    signal = B * form.weights**2 / grid.from_axis.clamp(min=0.5 / min(size))
    strength = grid.ratio((power - noise) * near, signal * near).clamp(min=0)
    share = 1 - strength * grid.ratio(signal * far, power * far)
    return torch.where(grid.sums(near.float()) > 0, share.clamp(0, 1), torch.zeros_like(share))


def noise_fraction_near_axis(B, size):
    """The share of B that is noise within FULL_OF_SIGNAL of the tilt axis, on the grid.

    There all tilts add up, so that in a full specimen some signal is left even near Nyquist, from
    which B was read. The noise that back-projection gives falls towards the axis at least as the
    root of the distance; that of SIRT-like filters rises: where B does, it stays.
    """
    grid = grid_of(size)
    plane, distance, weights = B[:, 0], grid.from_axis[:, 0], grid.weights[:, 0]

    def mean(low, high):
        ring = (distance >= low * FULL_OF_SIGNAL) & (distance < high * FULL_OF_SIGNAL)
        return float((plane * weights)[ring].sum() / weights[ring].sum().clamp(min=1))

    if mean(1 / 3, 2 / 3) >= FALLS * mean(1, 4 / 3):
        return torch.ones_like(B)
    z, x = torch.fft.fftfreq(size[0]), torch.fft.rfftfreq(size[2])
    factors = (1.0, 1.15, 1.3)
    bound = torch.zeros_like(plane)
    for factor in factors:  # B in the same direction, a little farther out than FULL_OF_SIGNAL
        scale = factor * FULL_OF_SIGNAL / distance.clamp(min=1e-6)
        there = [
            (frequency * scale * side).round().long()
            for frequency, side in ((z[:, None], size[0]), (x[None, :], size[2]))
        ]
        there[1] = there[1].clamp(max=size[2] // 2)
        bound += plane[there[0] % size[0], there[1]] / math.sqrt(factor) / len(factors)
    bound *= (distance / FULL_OF_SIGNAL).sqrt()
    share = (bound / plane.clamp(min=TINY)).clamp(max=1)
    return torch.where(distance < FULL_OF_SIGNAL, share, 1.0)[:, None].expand(B.shape)


def _local_ratio(power, other, size):
    """Ratio of two powers in each coefficient's shell and zone of angles."""
    grid = grid_of(size)
    zone = grid.shell * (ZONES + 1) + (grid.along_axis * ZONES).long()
    return grid.ratio(power, other, zone)[zone].float()


def _local_share(noise, total, size):
    """Share of noise in the total power of each coefficient's shell and zone of angles."""
    return _local_ratio(noise, total, size).clamp(max=1)


def _with_hardly_any_signal(noise, total, size, settings):
    """The noise, and of zones where hardly any of the power is signal more and more of that: it
    can't be recovered, but noise would be passed."""
    known = _local_share(noise, total, size)
    filled = 1 - (1 - known) * ((1 - known) / settings.hardly_any).clamp(max=1)
    return (noise * filled / known.clamp(min=TINY)).float()


def limited_to_power(noise, power, size):
    """The noise, where it is more than there is power lowered to that.

    In a few windows the power of noise is often less than it is on average, and what is lowered by
    chance alone would be missing: it is given back, as far as a shell's zone of angles has power.
    """
    lowered = torch.minimum(noise, power)
    wanted = torch.minimum(_local_ratio(noise, lowered, size), _local_ratio(power, lowered, size))
    return lowered * wanted.clamp(min=1)


def noise_and_signal(power, total, size, settings, nyquist=0.5):
    """The :class:`Spectrum` of the noise in windows of ``size``, and its power before it fades out.

    ``power``: the level of the windows with the least of it; ``total``: the mean of all; both on
    the rfft grid; ``settings``: the :class:`~f2fd_core.noise.settings.NoiseSettings`. Below their
    lowest frequency the periodogram of a window resolves little. ``nyquist``: see
    :class:`~f2fd_core.data.volume.Standardised`.
    """
    power, total, size, as_it_lay = _upright(power, total, size, settings, nyquist)
    spectrum, unfaded = _as_it_lies(power, total, size, settings, nyquist)
    return spectrum._replace(power=as_it_lay(spectrum.power)), as_it_lay(unfaded)


def _upright(power, total, size, settings, nyquist):
    """(power, total, size, function that undoes it for a power): both as if the depth lay along Z
    and the tilt axis along Y."""
    lowest = settings.lowest_frequency
    axes = axes_of(total, size, band_end(total, size, lowest, nyquist)) or USUAL
    (power, turned_size), (total, _) = (
        turned_power(values, size, axes) for values in (power, total)
    )
    angle = tilt_axis_angle(power, turned_size, band_end(power, turned_size, lowest, nyquist))
    if angle:
        power, total = (rotated_power(values, turned_size, angle) for values in (power, total))

    def as_it_lay(values):
        if angle:
            values = rotated_power(values, turned_size, -angle)
        return turned_power(values, turned_size, back(axes))[0]

    return power, total, turned_size, as_it_lay


def noise_left_out(left_out, total, size, settings, nyquist=0.5):
    """Power of the noise by what a network leaves out of the windows of ``size``, on the rfft grid.

    ``left_out``: the power of that in each window, (windows, ...), which is sorted here; ``total``:
    the mean of all power. It is noise, and signal that the network does not know. The windows with
    the least of it give the level. The more the others have, the more of it is signal, of which
    these windows are taken to have half as much as all have on average.
    """
    grid, mean = grid_of(size), left_out.mean(0)
    level = censored_exponential_mean(left_out, settings.share)
    part = LEFT_OUT_NOISE * (2 - grid.ratio(mean, level)).clamp(0, 1)
    noise = torch.minimum(level * part[grid.shell].float(), total)
    noise, total, size, as_it_lay = _upright(noise, total, size, settings, nyquist)
    if settings.near_axis:
        end = band_end(total, size, settings.lowest_frequency, nyquist)
        noise = noise * noise_fraction_near_axis(fit_form(total, size, end).B, size)
    return as_it_lay(_with_hardly_any_signal(noise, total, size, settings))


def _as_it_lies(power, total, size, settings, nyquist):
    """The same where the depth is along Z and the tilt axis along Y."""
    grid, lowest = grid_of(size), settings.lowest_frequency
    end = band_end(power, size, lowest, nyquist)
    form = fit_form(power, size, end)
    fits, weighted = form.fits, form.B * form.weights
    slopes = SLOPES if settings.falling else np.zeros(1)
    expected = fit_level(power, weighted, size, end, slopes) * weighted
    far = (grid.along_axis < FAR_FROM_AXIS).float()
    share = torch.ones_like(grid.frequencies, dtype=torch.double)
    if settings.by_angle:
        share = noise_fraction_by_shell(power, expected, form, size)
    share = share * fits  # without the form, noise is taken for none, and may be everything
    doubt = DOUBT * (1 - share) ** 2 if fits else torch.ones_like(share)
    # What is expected, moved as little as brings its share to one that may be true, but no more.
    here = grid.ratio(expected * far, power * far)
    lowest_share, highest_share = (share - doubt).clamp(min=0), (share + doubt).clamp(max=1)
    wanted = torch.minimum(torch.maximum(here, lowest_share), share)
    lift = torch.where(here > 0, wanted / here.clamp(min=TINY), torch.ones_like(here))
    noise = expected * lift[grid.shell].float() ** _far_share(grid)
    # Where a filter has left an edge, windows are so few that what they have of signal counts, too.
    noise = limited_to_power(noise, power, size) if end == nyquist else torch.minimum(noise, power)
    if settings.near_axis:
        noise = noise * noise_fraction_near_axis(form.B, size)
    unfaded = noise
    fading = (grid.radius / lowest).clamp(max=1) if lowest else torch.ones_like(noise)
    noise = noise * fading ** (settings.fading * (1 - _local_share(noise, total, size)))
    noise = _with_hardly_any_signal(noise, total, size, settings)
    of_shell, of_all = (grid.ratio(values, torch.ones_like(values)) for values in (noise, total))
    return Spectrum(
        noise,
        (of_shell - doubt * of_all).clamp(min=0),
        torch.maximum(of_shell, highest_share * of_all),
    ), unfaded
