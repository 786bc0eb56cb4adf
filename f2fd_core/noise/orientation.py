"""How a tomogram lies: along which axes its depth and its tilt axis are, by its missing wedge, and
in which direction the latter is, by the noise."""

from itertools import permutations

import torch

from f2fd_core import fourier
from f2fd_core.data.orientation import USUAL

# The power of a missing wedge's coefficients, over the mean of their Fourier shells, at most.
MISSING = 0.1
# It is looked for from this frequency on (cycles per voxel).
LOWEST = 1 / 6
# And so many times flatter than the diagonal.
FLAT = 4
# The frequencies (cycles per voxel) at which directions are compared, in steps of so many degrees.
COMPARED = (0.2, 0.5)
STEP = 5
# Noise is so many times as high, or as low, along the tilt axis as in all directions of XY.
CLEAR = 2.0


def axes_of(power, size):
    """The axes (Z is 0, Y 1, X 2) along which the depth, the tilt axis and the direction across
    both lie; None where no missing wedge shows them.

    ``power``: the mean of windows of ``size``, on the rfft grid. A tilt series leaves out the
    directions nearer to the depth's than the last tilt, whatever their component along the tilt
    axis.
    """
    grid = fourier.grid_of(size)
    usual = grid.ratio(power, torch.ones_like(power))[grid.shell].float()
    parts = [part.abs() for part in torch.meshgrid(*fourier.axis_frequencies(size), indexing="ij")]
    band = (grid.radius > LOWEST) & (grid.radius < 0.5)
    found = []
    for axes in permutations(USUAL):
        depth, _, across = (parts[axis] for axis in axes)
        wedge = (band & (depth > LOWEST) & (FLAT * across < depth)) * grid.weights
        expected = float((usual * wedge).sum())
        if expected > 0:
            found.append((float((power * wedge).sum()) / expected, axes))
    if not found:
        return None
    least, axes = min(found)
    return axes if least < MISSING else None


def tilt_axis_angle(noise, size):
    """The angle of the tilt axis to Y, in degrees towards X, by the power of the noise.

    Back-projection leaves the least noise along the axis, SIRT-like filters the most. 0 where no
    direction in XY stands out, and up to STEP degrees.
    """
    grid = fourier.grid_of(size)
    usual = grid.ratio(noise, torch.ones_like(noise))[grid.shell].float()
    _, y, x = torch.meshgrid(*fourier.axis_frequencies(size), indexing="ij")
    radius = grid.radius[0]
    band = (radius >= COMPARED[0]) & (radius < COMPARED[1])
    steps = 180 // STEP
    direction = (torch.rad2deg(torch.atan2(x[0], y[0])) / STEP).round().long() % steps

    def of_directions(power):
        sums = torch.zeros(steps).index_add_(0, direction[band], power[0][band])
        return sums.roll(-1) + sums + sums.roll(1)

    relative = of_directions(noise) / of_directions(usual).clamp(min=fourier.TINY)
    relative /= relative.mean().clamp(min=fourier.TINY)
    if relative.max() > CLEAR:
        found = int(relative.argmax()) * STEP
    elif relative.min() < 1 / CLEAR:
        found = int(relative.argmin()) * STEP
    else:
        return 0
    found = found if found <= 90 else found - 180
    return found if abs(found) > STEP else 0
