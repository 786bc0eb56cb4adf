"""How a tomogram lies: along which axes its depth and its tilt axis are, told by the missing wedge.

The network has learned from tomograms with the depth along Z and the tilt axis along Y, where the
noise has its form, too. Others are turned for both, and what is made of them is turned back.
"""
from itertools import permutations

import torch

from f2fd_core import fourier

USUAL = (0, 1, 2)
# The power of a missing wedge's coefficients, over the mean of their Fourier shells, at most.
MISSING = 0.1
# Where it is looked for: from which share of the band's end on, and how many times flatter than
# the diagonal.
LOWEST, FLAT = 1 / 3, 4


def axes_of(power, size, end):
    """The axes (Z is 0, Y 1, X 2) along which the depth, the tilt axis and the direction across
    both lie; None where no missing wedge tells.

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
            found.append((float((relative * grid.weights)[wedge].sum()
                                / grid.weights[wedge].sum()), axes))
    least, axes = min(found, default=(1.0, None))
    return axes if least < MISSING else None


def turned(values, axes):
    """A tensor (..., Z, Y, X) with the ``axes`` in the order given."""
    first = values.ndim - 3
    return values.permute(*range(first), *(first + axis for axis in axes))


def back(axes):
    """The axes that undo what :func:`turned` does."""
    return tuple(map(axes.index, USUAL))
