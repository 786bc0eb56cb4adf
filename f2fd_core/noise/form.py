"""The form that back-projection and dose weighting give the noise's power, and along which axis it
has it."""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch

from f2fd_core.fourier import TINY, axis_frequencies, blurred_across, grid_of, rotated_power

# The misfit above which power is not of the form A(|k|) B(k_x, k_z) W.
MISFIT = 0.1
# The tilt axis is searched for in steps of so many degrees, each about the best angle of the one
# before.
ANGLE_STEPS = (5, 2.5, 1.25)
# It is not along Y if the misfit at another angle is less than this, and along Y larger by it.
# Chance in the smallest windows, of 16 voxels, makes a difference of 0.022 at most in forty boxes
# of a real cell, and an axis 8 degrees from Y one of 0.024.
BETTER = 0.025
# The dose after which a frequency is down to its e-th part falls as about this power of it (Grant &
# Grigorieff, eLife 4 (2015) e06980).
DOSE_EXPONENT = 5 / 3
# Tilts farther away have lost no more than those of so many degrees.
HIGHEST_TILT = 60.0
# What they have lost of the noise's power at the band's end, as the exponent of e, is searched for
# in such steps, one size after the other.
LOST_STEPS = (1.0, 0.5, 0.25)
# Tilts are weighted by dose if with weights the misfit is less than so many times that without: it
# is 0.25 to 0.70 times where they are, and 0.82 or more in sixty tomograms where they are not.
DOSE_BETTER = 0.75
# Up to this frequency (cycles per voxel) a rotated spectrum is known in all directions.
CIRCLE = 0.49
# Power is compared with that form in cells of so many coefficients along each axis.
FORM_CELL = 4


class Form(NamedTuple):
    """What the noise's power is proportional to in each shell, on the rfft grid.

    Attributes: ``B``, what back-projection makes of white noise, the same at all k_y; ``weights``,
    what dose weighting has left of it; and whether power ``fits`` this form.
    """

    B: torch.Tensor
    weights: torch.Tensor
    fits: bool


def fit_form(power, size, end):
    """The :class:`Form` A(|k|) B(k_x, k_z) W: B from the upper third of the band up to ``end``,
    where there is hardly any signal.

    Of power without this form nothing is known; B is |k| then.
    """
    lost = _lost_to_dose(power, size, end)
    weights = dose_weights(lost, size, end)
    B, misfit = _form(power, size, end, weights if any(lost) else None)
    if misfit > MISFIT or _is_tilted_about_x(power, size, end):
        return Form(grid_of(size).radius.clone(), torch.ones_like(power), False)
    return Form(B, weights, True)


def _form(power, size, end, weights=None):
    """B, and how much of the power is not as A(|k|) B(k_x, k_z) W has it: a share of all; with
    ``weights``, where tilts to both sides differ, too."""
    grid = grid_of(size)
    part = (grid.radius >= 2 / 3 * end) & (grid.radius < (math.inf if end == 0.5 else end))
    part = part if weights is None else part * weights
    here, B = power * (part > 0), torch.ones_like(power)
    for _ in range(4):
        A = grid.ratio(here, B * part)[grid.shell].float()
        B = (here.sum(1, keepdim=True) / (A * part).sum(1, keepdim=True).clamp(min=TINY)).expand(
            power.shape
        )
    cells = _cells(size, weights is not None)
    measured, expected = (grid.sums(values, cells) for values in (here, A * B * part))
    return B, float((measured - expected).abs().sum() / measured.sum().clamp(min=TINY))


def dose_weights(lost, size, end):
    """What dose weighting leaves of the noise's power, on the rfft grid: exp(-d g).

    The dose d before a tilt grows with its angle, to both sides from the untilted one, or from one
    side to the other: ``lost`` (with the tilt's distance, with the tilt) at HIGHEST_TILT. g is a
    power of the frequency, 1 at the band's ``end``. A window blurs what it measures; near the tilt
    axis, where all tilts are, the weights are their mean.
    """
    grid = grid_of(size)
    if not any(lost):
        return torch.ones_like(grid.radius)
    z, _, x = axis_frequencies(size)
    angle = torch.rad2deg(torch.atan2(z[:, None, None], x.abs()[None, None, :])) / HIGHEST_TILT
    angle = angle.clamp(-1, 1)
    with_distance, with_tilt = lost
    dose = with_distance * angle.abs() + with_tilt * angle
    dose = dose - min(0, with_distance - abs(with_tilt))
    weights = torch.exp(-dose * (grid.radius / end) ** DOSE_EXPONENT)
    inserted = grid.from_axis.clamp(min=TINY)
    return blurred_across(weights * inserted, size) / blurred_across(inserted, size)


def _lost_to_dose(power, size, end):
    """What tilts have lost to dose weighting, see :func:`dose_weights`, so that the power has the
    form best; (0, 0) where they are not clearly weighted."""
    none = (0.0, 0.0)
    if _form(power, size, end)[1] < BETTER:
        return none

    @functools.lru_cache(maxsize=None)
    def misfit(lost):
        return _form(power, size, end, dose_weights(lost, size, end))[1]

    best = none
    for step in LOST_STEPS:
        before = None
        while before != best:
            before, (distance, tilt) = best, best
            ways = ((step, 0), (-step, 0), (0, step), (0, -step))
            best = min([best, *((distance + one, tilt + other) for one, other in ways)], key=misfit)
    return best if misfit(best) < DOSE_BETTER * misfit(none) else none


@functools.lru_cache(maxsize=8)
def _cells(size, both_sides):
    """The index of each coefficient's cell; ``both_sides``: tilts to both have cells of their
    own."""
    cells = torch.zeros_like(grid_of(size).shell)
    for frequency, side in zip(torch.meshgrid(*axis_frequencies(size), indexing="ij"), size):
        cells = cells * side + (frequency.abs() * side).round().long() // FORM_CELL
    if both_sides:
        cells = 2 * cells + (torch.fft.fftfreq(size[0]) < 0)[:, None, None]
    return cells.unique(return_inverse=True)[1]


def tilt_axis_angle(power, size, end):
    """The angle of the tilt axis to Y, in degrees towards X, from the power spectrum.

    Noise has the form A(|k|) B(k_x, k_z) if the tilt axis is along Y; about another direction in
    XY, the rotated spectrum has. 0 where no direction has it clearly better than Y, and where the
    one that has is within 5 degrees of Y.
    """

    def misfit(angle):
        return _form(rotated_power(power, size, angle), size, min(end, CIRCLE))[1]

    found = {0.0: misfit(0.0)}
    if found[0.0] < BETTER:
        return 0.0
    angles = np.arange(-90.0, 90.0, ANGLE_STEPS[0])
    for step in ANGLE_STEPS:
        found.update((float(angle), misfit(angle)) for angle in angles)
        best = min(found, key=lambda angle: found[angle])
        angles = best + np.array([-0.5, 0.5]) * step
    clear = found[best] < BETTER < found[0.0] - found[best]
    return best if clear and abs(best) >= ANGLE_STEPS[0] else 0.0


def _is_tilted_about_x(power, size, end):
    """Whether the missing wedge is that of a tilt axis along X: nothing at k_z beside k_x."""
    grid = grid_of(size)
    z, y, x = (
        frequency.abs() for frequency in torch.meshgrid(*axis_frequencies(size), indexing="ij")
    )
    band = (grid.radius > end / 3) & (grid.radius < end)
    about_x, about_y = (band & (4 * across < z) & (along > z) for across, along in ((y, x), (x, y)))
    return bool(
        grid.ratio(power * about_x, about_x.float(), about_x.long())[-1]
        < 0.5 * grid.ratio(power * about_y, about_y.float(), about_y.long())[-1]
    )
