"""How a tomogram lies: along which axes its depth and its tilt axis are, by its missing wedge."""

from itertools import permutations

import torch

from f2fd_core import fourier
from f2fd_core.data.orientation import USUAL

# The power of a missing wedge's coefficients, over the mean of their Fourier shells, at most.
MISSING = 0.1
# It is looked for from this share of the band's end on.
LOWEST = 1 / 3
# And so many times flatter than the diagonal.
FLAT = 4


def axes_of(power, size, end):
    """The axes (Z is 0, Y 1, X 2) along which the depth, the tilt axis and the direction across
    both lie; None where no missing wedge shows them.

    ``power``: the mean of windows of ``size``, on the rfft grid; ``end``: where it ends, in cycles
    per voxel. A tilt series leaves out the directions nearer to the depth's than the last tilt,
    whatever their component along the tilt axis.
    """
    grid = fourier.grid_of(size)
    relative = power / grid.ratio(power, torch.ones_like(power))[grid.shell].clamp(min=1e-30)
    parts = [part.abs() for part in torch.meshgrid(*fourier.axis_frequencies(size), indexing="ij")]
    band = (grid.radius > LOWEST * end) & (grid.radius < end)
    found = []
    for axes in permutations(USUAL):
        depth, _, across = (parts[axis] for axis in axes)
        wedge = band & (depth > LOWEST * end) & (FLAT * across < depth)
        if wedge.any():
            found.append(
                (float((relative * grid.weights)[wedge].sum() / grid.weights[wedge].sum()), axes)
            )
    if not found:
        return None
    least, axes = min(found)
    return axes if least < MISSING else None
