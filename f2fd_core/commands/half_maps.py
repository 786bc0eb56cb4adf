"""Whether files can be two half-maps of one tomogram, and that tomogram.

Half-maps have their signal in common, and not their noise. What volumes have in common is measured
in the Fourier shells of windows, and what of each is signal by :mod:`f2fd_core.noise`.
"""

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.config import UserError
from f2fd_core.data.half_maps import refuse_copies
from f2fd_core.data.source import refuse_other_shape
from f2fd_core.noise import noise_of_half_maps, periodogram
from f2fd_core.noise.settings import DEFAULT
from f2fd_core.noise.spectrum import by_shell

# How many windows are compared.
COMPARED_WINDOWS = 64
# Signal is looked for below this frequency (cycles per voxel).
LOW = 0.15
# What is common means something where so much of the power is signal (the mean square of its
# share), or noise.
ENOUGH = 0.15
# That many coefficients of signal mean something all the same.
LEAST = 200
# Signal of which less than this share is common has hardly anything in common.
ODD = 0.2
# Signal of which less than this share is common has nothing in common.
STRANGE = 0.15
# Noises of their own have less than this share in common.
COMMON_NOISE = 0.25
# A cross-correlation that is no chance, in standard deviations of all its values.
OUTSTANDING = 9.0
# The frequencies (cycles per voxel) that it is made of.
CORRELATED = (0.02, 0.25)
# The ratio of two half-maps' standard deviations from which it is odd.
UNEQUAL = 1.5
# Times the power that noise can have, from which on what half-maps differ by is not noise alone.
# Those with independent noise have 0.99 at most in simulations, a real cell's 1.01; those of every
# other tilt of a specimen 2.5 times as thick as the volume, with tilts 3 degrees apart, 1.035 or
# more (`benchmarks/ablation.py half-maps`).
MORE_NOISE = 1.03


class Likeness:
    """What two standardised volumes (``shape``, ``region(start, size)``) have in common.

    Attributes: ``curve``, the Fourier shell correlation of their windows; ``signal`` and ``noise``,
    the common part of either: 1 for the same, 0 for independent ones, -1 for the negative. The
    latter is 0 where there is too little noise; ``means_something``: whether there is enough
    signal. ``correlation``: their cross-correlation as they lie, ``highest`` the largest anywhere,
    in standard deviations, and ``shift``, how many voxels (Z, Y, X) away that is.
    """

    def __init__(self, first, second, noises, offset=(0, 0, 0)):
        """``noises``: the NoiseModel of each; ``offset``: by how many voxels (Z, Y, X) the second
        one is moved before."""

        def moved(start, size):
            return second.region(tuple(np.add(start, offset)), size)

        size = periodogram.window_size(first.shape, DEFAULT.window)
        corners = periodogram.window_corners(first.shape, size, COMPARED_WINDOWS)
        grid = fourier.grid_of(size)
        shells = grid.frequencies < 0.5
        count = grid.sums(torch.ones_like(grid.radius))[shells]
        totals, expected, least = [], [], []
        for region, noise in zip((first.region, moved), noises):
            total = by_shell(periodogram.periodograms(region, corners, size).mean(0), size)[shells]
            totals.append(total)
            for name, powers in (("noise", expected), ("lower", least)):
                powers.append(total * noise.share_at(grid.frequencies[shells], name))
        cross = periodogram.periodograms(first.region, corners, size, moved).mean(0)

        def mean(values):
            return torch.sqrt(values[0] * values[1])

        def rest(values):
            return mean([total - value for total, value in zip(totals, values)])

        power, common = mean(totals).clamp(min=fourier.TINY), by_shell(cross, size)[shells]
        self.curve = common / power
        share = rest(expected) / power
        weights = count * (grid.frequencies[shells] < LOW)
        square = float((weights * share**2).sum())
        independent = min(len(corners), np.prod(first.shape) / np.prod(size))
        self.means_something = square > max(ENOUGH * float(weights.sum()), LEAST / independent)
        self.signal = float((weights * share * self.curve).sum()) / max(square, fourier.TINY)
        noise, excess = (
            float((values * count).sum()) for values in (mean(least), common - rest(least))
        )
        self.noise = excess / noise if noise > ENOUGH * float((power * count).sum()) else 0.0
        self._correlate(cross, power, grid)

    def _correlate(self, cross, power, grid):
        """Find the correlation and the shift; all Fourier shells count alike."""
        low, high = CORRELATED
        band = (grid.radius > low) & (grid.radius < high)
        level = power[grid.shell.clamp(max=len(power) - 1)].float()
        correlation = torch.fft.irfftn(cross * band / level, s=grid.size)
        correlation /= correlation.std().clamp(min=fourier.TINY)
        place = np.unravel_index(int(correlation.abs().argmax()), grid.size)
        self.correlation, self.highest = float(correlation[0, 0, 0]), float(correlation[place])
        # Only the real part of the cross-spectrum is known: it may be the other way round.
        self.shift = tuple(
            (int(at) + side // 2) % side - side // 2 for at, side in zip(place, grid.size)
        )

    def odd(self):
        """Whether there is hardly any signal in common."""
        return self.means_something and self.signal < ODD and self.correlation < OUTSTANDING


def strange(first, second, noises, found):
    """What about two volumes, of whose Likeness this is ``found``, can't be of one tomogram, in
    words; "" if nothing."""
    if found.highest > 2 * abs(found.correlation):
        for shift in (found.shift, tuple(-at for at in found.shift)):
            moved = Likeness(first, second, noises, shift)
            if moved.correlation > OUTSTANDING and moved.signal > max(ODD, 1.5 * found.signal):
                z, y, x = map(abs, shift)
                return f"are {z}, {y} and {x} voxels (Z, Y, X) apart"
    if found.correlation < -OUTSTANDING or found.means_something and found.signal < -ODD:
        return "have opposite contrast"
    # If, of all places, they correlate best as they lie, what is weak may be of one tomogram.
    foreign = found.odd() and found.signal < STRANGE and any(found.shift)
    return "have no signal in common" if foreign else ""


def check(halves, noise_of, whole=None):
    """Sentences on what is odd about the HalfMaps ``halves``, and ``whole``, the Volume that is
    given as their tomogram. ``noise_of(volume)``: the NoiseModel of one.

    Raises UserError for what can't be half-maps of one tomogram, or not of that.
    """
    odd, even = halves.halves
    paths = odd.source.path, even.source.path
    both = "the half-maps " + " and ".join(paths)
    noises = noise_of(odd), noise_of(even)
    found = Likeness(odd, even, noises)
    problem = strange(odd, even, noises, found)
    if problem:
        raise UserError(
            f"{both} {problem}; expected both of one tomogram, one after the other: "
            "the odd and the even one of the first tomogram, then those of the next"
        )
    refuse_copies(*paths, found.curve)
    if found.noise > COMMON_NOISE:
        raise UserError(
            f"{both} have {100 * found.noise:.0f} % of their noise in common; expected "
            "them to be of different frames or tilts (is one of them the whole "
            "tomogram?)"
        )
    warnings = (
        [f"{both} have hardly any signal in common; are they of one tomogram?"]
        if found.odd()
        else []
    )
    if max(odd.std, even.std) > UNEQUAL * min(odd.std, even.std):
        warnings.append(
            f"{both} have standard deviations of {odd.std:g} and {even.std:g}; "
            "expected about the same: were they reconstructed alike?"
        )
    if whole is not None:
        owner = f"its half-maps {' and '.join(paths)}"
        refuse_other_shape(whole.source.path, whole.shape, halves.shape, owner)
        noises = noise_of(halves), noise_of(whole)
        problem = strange(halves, whole, noises, Likeness(halves, whole, noises))
        if problem:
            raise UserError(
                f"{whole.source.path} and the mean of its half-maps "
                f"{' and '.join(paths)} {problem}; expected the half-maps of each "
                "tomogram, in the order of the tomograms"
            )
    return warnings


def difference_over_noise(halves, noise_of):
    """The power of what HalfMaps differ by, over the most that their tomogram's noise can have.

    Beyond MORE_NOISE they differ by more than noise, as those of every other tilt of a thick
    specimen do: each has streaks of its own, of what lies above and below. ``noise_of(volume)``:
    the NoiseModel of one.
    """
    _, _, most = noise_of(halves.alone()).shares()
    return noise_of_half_maps(halves).shares()[0] / most if most else 0.0
