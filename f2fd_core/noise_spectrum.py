"""The noise's power spectrum, told from the signal's: by level, by form, and by chance.

Power is on the ``rfftn`` grid of the windows it was measured in, see :mod:`f2fd_core.fourier`.
docs/method.md says how the steps make one estimate, and what each is worth.
"""
import math

import numpy as np
import torch

from f2fd_core.fourier import (
    AXES,
    axis_frequencies,
    friedel_weights,
    radial_frequency,
    shell_means,
)
from f2fd_core.windows import TINY, cell_index, taper_overlap

# Shares of the band's end, of the highest power, and of |k| (angles to the tilt axis).
LITTLE_SIGNAL, EMPTY, SIDEWAYS = 2 / 3, 0.05, 0.5
# The share of the highest power that is none: what a low-pass filter leaves.
NOTHING = 0.005
# as_back_projected: rounds of fitting the two factors, and the misfit above which they are not.
ROUNDS, MISFIT = 4, 0.1
# noise_share: the shares that are tried, what a smaller one has to be better by, the quantile
# that is fitted, the angles without filaments and how far below their share another may be, and
# what is added to small shares.
LEAST_NOISE, SHARES, IN_DOUBT = 0.05, 39, 1e-3
QUANTILE, NEAR_AXIS, HARDLY, CAUTION = 0.35, 0.6, 0.1, 0.25
# at_most: zones of angles, and how far another estimate is trusted.
ZONES, TRUST = 4, 0.25
# as_it_came: how near all power the noise's level must be to be all of it.
ALL_NOISE = 0.03
# continue_to_low_frequencies: the shells it takes at least, where its law's shells end, the slopes
# that it has, and the factor that is too large for a shell with any noise.
LEAST_SHELLS, FAINT, LAW_END, FLAT = 3, 0.2, 0.35, 0.75
STEEPEST, GENTLE, LARGEST_FACTOR = -1.5, -0.3, 1e3


def noise_level(power, share):
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
    largest = smallest[-1]
    total = smallest.sum(axis=0, dtype=np.float64) + (count - kept) * largest
    return torch.from_numpy((total / kept).astype(np.float32))


def symmetrised(power, variance, other=None):
    """Power on an rfft grid, averaged with its mirror images where it agrees with them.

    The mirror along the tilt axis Y is expected of any tomogram, the one along X of a symmetric
    range of tilts. Two estimates with the relative ``variance`` each differ by twice that in the
    mean square of their logarithms; a mirror is taken if it differs by no more than twice as much.
    With an ``other`` power, it is that which is averaged, with the mirrors of the first.
    """
    result = power if other is None else other
    for axes in ((1,), (0, 1)):  # k_x turns its sign with k_z and k_y: power is the same at -k
        mirror = _mirrored(power, axes)
        difference = (power.clamp(min=TINY).log() - mirror.clamp(min=TINY).log()).square().mean()
        if difference < 4 * variance:
            power, result = (power + mirror) / 2, (result + _mirrored(result, axes)) / 2
    return result


def _mirrored(power, axes):
    """Power on an rfft grid with the frequencies along ``axes`` reversed."""
    return power.flip(axes).roll((1,) * len(axes), axes)


def filled_share(power, size):
    """Share of the Fourier coefficients that power on the rfft grid of ``size`` fills.

    It is (mean of P)² / mean of P² over all coefficients, the participation ratio: 1 for white
    noise, f for power that is even in a part f and nothing elsewhere; 0 where there is no power.
    """
    weights = friedel_weights(size) / math.prod(size)
    mean, square = ((values.double() * weights).sum() for values in (power, power.square()))
    return float(mean ** 2 / square) if square > 0 else 0.0


def spare_low_frequencies(power, size, limit):
    """Power on the rfft grid of ``size``, fading out below ``limit`` k0 (cycles per voxel) as
    (k / k0)²: in a tomogram signal is everywhere there, and noise can't be told from it."""
    if limit == 0:
        return power
    return power * (radial_frequency(size) / limit).clamp(max=1.0) ** 2


def as_back_projected(power, size, limit, with_signal=True):
    """Noise power on the rfft grid of ``size``, with the form that back-projection gives it.

    The power of a projection's noise depends on |k| alone; back-projection and its filters multiply
    it by a function of the components across the tilt axis Y. So it is A(|k|) B(k_x, k_z). B is
    found in the upper octave of the shells that are not empty, where there is little signal, A of
    the lower shells at angles of 60 degrees and more to the axis. There and in the octave, of power
    ``with_signal`` that is weighted as back-projection weights it, what is noise is told by
    :func:`noise_share`; else all of it is noise, or so much that it is at most. Where there is
    hardly any signal, in the upper two thirds of the octave, the power stays.
    Power that is not of this form, for a tilt axis that is not along Y, say, is returned
    as it is: in the octave it must be, up to the share MISFIT, and below it may be more, which is
    signal, but not less. A shell without noise is one that has less than EMPTY times the power of
    others above ``limit`` (cycles per voxel).
    """
    top = _top(power, size, limit)
    end = min(top, 0.5)  # The cube's corners have no angles that could tell.
    radius = radial_frequency(size)
    lower, octave = radius < end / 2, (radius >= end / 2) & (radius < top)
    share = excess = torch.ones_like(power)
    if not with_signal:
        radial, across = _separated(power, octave, size)
    else:
        # Of the octave, too, the lower part has signal. When that is known, all of it can be used.
        for part in (octave & (radius >= LITTLE_SIGNAL * end), octave):
            radial, across = _separated(power / excess, part, size)
            share, excess = noise_share(power, across, size, radius < end)
    cells = cell_index(size)[0]
    for chosen, values, least in ((octave, power / excess, -math.inf), (lower, power, 0.0)):
        found, told = (_sums(each * chosen, size, cells) for each in (values, radial * across))
        if (told - found).clamp(min=least).abs().sum() > MISFIT * found.sum():
            return power
    noise = torch.where(lower, share * level_beside_axis(power, size, across) * across, power)
    low_octave = octave & (radius < LITTLE_SIGNAL * end)
    return torch.where(low_octave, power * share / excess, noise).to(power.dtype)


def is_low_passed(power, size, limit):
    """Whether power on the rfft grid of ``size`` ends below the Nyquist frequency: whether a shell
    above ``limit`` (cycles per voxel) has next to nothing of what others have there."""
    return _top(power, size, limit, NOTHING) < math.inf


def _top(power, size, limit, share=EMPTY):
    """Frequency of the first shell above ``limit`` that has less than ``share`` times the power of
    others there; infinity if there is none."""
    frequency, mean = shell_means(power, size)
    return _end_of_band(frequency, mean, frequency >= min(limit, float(frequency[-1])), share)


def _separated(power, part, size):
    """A(|k|) and B(k_x, k_z) whose product is power on the rfft grid of ``size``: B from the
    coefficients in ``part``, A from these and those far from the tilt axis, both there."""
    known = part | is_sideways(size)
    across = torch.ones_like(power)
    for _ in range(ROUNDS):
        radial = _shell_ratio(power, across, known, size)
        across = ((power * part).sum(1, keepdim=True)
                  / (radial * part).sum(1, keepdim=True).clamp(min=TINY)).expand(power.shape)
    return radial, across


def level_beside_axis(power, size, across):
    """Power on the rfft grid of ``size`` over ``across`` in Fourier shells of one coefficient's
    width, at angles of 60 degrees and more to the tilt axis Y, on the same grid."""
    return _shell_ratio(power, across, is_sideways(size), size)


def at_most(power, other, total, size, limit):
    """Power on the rfft grid of ``size``, nowhere more than an ``other`` estimate of it.

    They are compared in zones: narrow shells by the angle to the tilt axis Y. What is more is taken
    off, up to a share of the power: the other may be wrong, too, and the more so, the less of the
    ``total`` power it is. So that share is TRUST times the other's in the total. At high
    frequencies, where there is hardly any signal to mistake for noise, both are set equal, and
    nothing is changed; ``limit`` (cycles per voxel) is that of :func:`as_back_projected`.
    """
    radius = radial_frequency(size)
    high = radius >= LITTLE_SIGNAL * min(_top(power, size, limit), 0.5)
    scale = (power * high).sum() / (other * high).sum().clamp(min=TINY)
    along = axis_frequencies(size)[1].abs()[None, :, None] / radius.clamp(min=TINY)
    zones = _narrow_shells(size) * (ZONES + 1) + (along * ZONES).long()
    found, told, every = (_sums(values, size, zones) for values in (power, scale * other, total))
    share = (told / every.clamp(min=TINY)).clamp(max=1.0)
    factor = (told / found.clamp(min=TINY)).clamp(max=1.0).maximum(1 - TRUST * share)[zones]
    return torch.where(high, power, (power * factor).to(power.dtype))


def as_it_came(power, total, size):
    """Noise power on the rfft grid of ``size``, where there is hardly any signal as it came by
    chance in this very tomogram: like the ``total`` power, but with its own level in each shell.

    That is above a third of a cycle per voxel: a low-pass filter, which takes from noise and signal
    alike, does not change where signal ends. A network learns from this tomogram alone, and what by
    chance there is more of at some frequencies than its noise has on average it would learn to
    pass. A level within ALL_NOISE of the total is taken for the total: so little signal can't be
    recovered, but noise that is taken for less is passed.
    """
    level = _shell_ratio(power, total, torch.ones_like(power), size)
    level = torch.where((level - 1).abs() < ALL_NOISE, 1.0, level)
    high = radial_frequency(size) >= LITTLE_SIGNAL * 0.5
    return torch.where(high, (level * total).to(power.dtype), power)


def level_at_most(power, size, other, smaller, limit):
    """Power on the rfft grid of ``size``, its level in no Fourier shell above that of an ``other``.

    The other is an estimate of the same noise, or of more, on ``smaller`` windows: there are more
    of them, and more of these are free of signal, but they resolve less. So the levels are compared
    as the smaller windows see them, in shells above ``limit`` (cycles per voxel); below it, the
    power keeps to the lowest of these shells.
    """
    covariance = torch.fft.irfftn(power, s=size, dim=AXES)
    for axis, sides in enumerate(zip(size, smaller)):
        lags = (torch.fft.fftfreq(size[axis]) * size[axis]).abs()
        wide, narrow = (taper_overlap(lags, side) for side in sides)
        shape = [-1 if other_axis == axis else 1 for other_axis in range(3)]
        covariance = covariance * (narrow / wide.clamp(min=TINY)).reshape(shape)
    blurred = torch.fft.rfftn(covariance, dim=AXES).real
    shells = min(smaller) // 2
    frequency, found = shell_means(blurred, size, shells)
    told = shell_means(other, smaller, shells)[1]
    above = frequency >= limit
    if not above.any():
        return power
    factor = (told / found.clamp(min=TINY)).clamp(max=1.0)
    factor[frequency >= LITTLE_SIGNAL * min(_top(power, size, limit), 0.5)] = 1.0
    radius = radial_frequency(size).numpy()
    return power * torch.from_numpy(np.interp(
        radius, frequency[above].numpy(), factor[above].numpy()).astype(np.float32))


def is_sideways(size):
    """Where on the rfft grid of ``size`` the angle to the tilt axis Y is 60 degrees or more."""
    return axis_frequencies(size)[1].abs()[None, :, None] <= SIDEWAYS * radial_frequency(size)


def _sums(values, size, index):
    """Sums of a real rfft-grid tensor over the coefficients of one index, friedel partners counted,
    in double precision."""
    total = torch.zeros(int(index.max()) + 1, dtype=torch.double)
    return total.index_add_(0, index.flatten(), (values * friedel_weights(size)).flatten().double())


def _narrow_shells(size):
    """Index of the shell, one coefficient wide, of each rfft-grid coefficient of ``size``."""
    return (radial_frequency(size) * min(size)).long()


def _shell_ratio(above, below, chosen, size):
    """The ratio of two sums over the ``chosen`` coefficients of each narrow shell, on the grid."""
    shells = _narrow_shells(size)
    above, below = (_sums(values * chosen, size, shells) for values in (above, below))
    return (above / below.clamp(min=TINY))[shells]


def noise_share(power, across, size, chosen):
    """Which share of power B (A + U / q) on the rfft grid of ``size`` is noise, in narrow shells.

    ``across`` is B(k_x, k_z), A(|k|) is noise, U(|k|) >= 0 signal, and q the distance to the tilt
    axis Y in Fourier space. Why so: at q there are 1 / q slices of projections to a coefficient.
    With a weight w each, their noise, which is independent, has the power w² / q, B but for a
    constant; signal, which they have in common, has w² / q². Returns, on the grid, the share of A
    in A + U / q at angles of 60 degrees and more to the axis, and A + U / q at each coefficient
    over what it is there.

    The share is that which fits a shell and, with half the weight, its neighbours best; not all of
    their coefficients, but the lower QUANTILE (Koenker & Bassett, Econometrica 46 (1978) 33), since
    the signal of membranes is strong in few directions. It is hardly less than without the angles
    near the axis, where filaments across it have all of their signal; the less, the more cautious;
    and 1 where the angles don't tell.
    """
    z, _, x = axis_frequencies(size)
    shells = _narrow_shells(size)
    distance = torch.sqrt(z[:, None, None] ** 2 + x[None, None, :] ** 2).expand(power.shape)
    inverse = 1 / distance.clamp(min=0.5 / min(size))
    seen = chosen & (across > EMPTY * (across * chosen).sum() / chosen.sum())
    sideways = seen & is_sideways(size)
    growth = inverse * _shell_ratio(across, across * inverse, sideways, size)
    relative = (power / across.clamp(min=TINY)).clamp(min=TINY).log()
    for shell in shells[sideways].unique():
        inside = shells == shell
        relative[inside] -= torch.quantile(relative[inside & sideways], QUANTILE)
    shares = torch.linspace(LEAST_NOISE, 1, SHARES)
    best = []
    for part in (seen, seen & (distance >= NEAR_AXIS * radial_frequency(size))):
        errors = []
        for share in shares:
            above = relative - (share + (1 - share) * growth).log()
            error = torch.maximum(QUANTILE * above, (QUANTILE - 1) * above) + IN_DOUBT * (1 - share)
            errors.append(_sums(error * part, size, shells))
        errors = torch.stack(errors) / _sums(part.float(), size, shells).clamp(min=1)
        padded = torch.cat([errors[:, :1], errors, errors[:, -1:]], dim=1)
        errors += (padded[:, 2:] + padded[:, :-2]) / 2
        best.append(shares[errors.argmin(0)])
    share = torch.maximum(best[0], best[1] - HARDLY)[shells]
    share = share + CAUTION * (1 - share) ** 2
    return share, share + (1 - share) * growth


def _end_of_band(frequency, mean, above, share):
    """Frequency of the first of the shells ``above`` with less than ``share`` of their highest
    mean; infinity if there is none."""
    return min([math.inf, *frequency[above & (mean < share * mean[above].max())].tolist()])


def continue_to_low_frequencies(power, size, limit, total):
    """Noise power on the rfft grid of ``size``, below ``limit`` (cycles per voxel) by a power law.

    The law |k|^p has its level from the shells between ``limit`` and twice that, its exponent from
    those up to LAW_END, or to where a low-pass filter begins, with -1.5 <= p <= 0: the noise of a
    weighted back-projection is about white, and falls as 1 / |k| without the weight, as in SIRT. A
    slope gentler than GENTLE is that of binning or of interpolation, and p then 0. A shell's mean
    is made to follow the law, but not made more than that of the ``total`` power, of noise and
    signal; the lowest, the zero frequency alone, gets the next one's, since the law may rise
    without bound there. Shells without any power stay so.
    """
    if limit == 0:
        return power
    frequency, mean = shell_means(power, size)
    above = frequency >= min(limit, float(frequency[-LEAST_SHELLS]))
    least = frequency <= frequency[above][LEAST_SHELLS - 1]
    near = above & (least | (frequency <= 2 * limit))
    # A low-pass filter's slope, which ends where the empty shells begin, is no part of the law.
    end = min(LAW_END, _end_of_band(frequency, mean, above, FAINT),
              FLAT * _end_of_band(frequency, mean, above, EMPTY))
    fitted = above & (least | (frequency < end))
    x, y = frequency.clamp(min=float(frequency[1])).log(), mean.clamp(min=TINY).log()
    exponent = max(np.polyfit(x[fitted].numpy(), y[fitted].numpy(), 1)[0], STEEPEST)
    exponent = exponent if exponent < GENTLE else 0.0
    law = (exponent * (x - x[near].mean()) + y[near].mean()).exp()
    expected = torch.minimum(law, shell_means(total, size)[1])
    factor = (expected / mean.clamp(min=TINY)).masked_fill(frequency >= limit, 1.0)
    # A factor is meant for its own shell, but the next one's coefficients get a part of it.
    known = factor < LARGEST_FACTOR
    frequency, factor = frequency[known], factor[known]
    radius = radial_frequency(size).numpy()
    return power * torch.from_numpy(np.interp(radius, frequency, factor).astype(np.float32))
