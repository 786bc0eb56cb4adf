"""The form that back-projection gives the noise's power, and along which axis it has it."""

import functools
import math

import numpy as np
import torch

from f2fd_core.fourier import TINY, axis_frequencies, grid_of, rotated_power

# The misfit above which power is not of the form A(|k|) B(k_x, k_z).
MISFIT = 0.1
# The tilt axis is searched for in steps of so many degrees, each about the best angle of the one
# before.
ANGLE_STEPS = (5, 2.5, 1.25)
# It is not along Y if the misfit at another angle is less than this, and along Y larger by it.
# Chance in the smallest windows, of 16 voxels, makes a difference of 0.022 at most in forty boxes
# of a real cell, and an axis 8 degrees from Y one of 0.024.
BETTER = 0.025
# Up to this frequency (cycles per voxel) a rotated spectrum is known in all directions.
CIRCLE = 0.49
# Power is compared with that form in cells of so many coefficients along each axis.
FORM_CELL = 4


def fit_backprojection_form(power, size, end):
    """A(|k|) B(k_x, k_z): B from the upper third of the band up to ``end``, where there is hardly
    any signal, on the grid, and whether the power has this form.

    Of power without this form nothing is known; B is |k| then.
    """
    B, misfit = _form(power, size, end)
    fits = misfit <= MISFIT and not _is_tilted_about_x(power, size, end)
    return (B, True) if fits else (grid_of(size).radius.clone(), False)


def _form(power, size, end):
    """B, and how much of the power is not as A(|k|) B(k_x, k_z) has it: a share of all."""
    grid = grid_of(size)
    part = (grid.radius >= 2 / 3 * end) & (grid.radius < (math.inf if end == 0.5 else end))
    B = torch.ones_like(power)
    for _ in range(4):
        A = grid.ratio(power * part, B * part)[grid.shell].float()
        B = (
            (power * part).sum(1, keepdim=True) / (A * part).sum(1, keepdim=True).clamp(min=TINY)
        ).expand(power.shape)
    measured, expected = (grid.sums(values * part, _cells(size)) for values in (power, A * B))
    return B, float((measured - expected).abs().sum() / measured.sum().clamp(min=TINY))


@functools.lru_cache(maxsize=8)
def _cells(size):
    """The index of each coefficient's cell."""
    cells = torch.zeros_like(grid_of(size).shell)
    for frequency, side in zip(torch.meshgrid(*axis_frequencies(size), indexing="ij"), size):
        cells = cells * side + (frequency.abs() * side).round().long() // FORM_CELL
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
