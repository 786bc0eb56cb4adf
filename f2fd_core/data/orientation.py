"""How a tomogram is turned so that its depth is along Z and its tilt axis along Y.

The network has learned from tomograms that lie so. Others are turned for it, and what is made of
them is turned back.
"""

USUAL = (0, 1, 2)


def turned(values, axes):
    """A tensor (..., Z, Y, X) with the ``axes`` in the order given."""
    first = values.ndim - 3
    return values.permute(*range(first), *(first + axis for axis in axes))


def back(axes):
    """The axes that undo what :func:`turned` does."""
    return tuple(map(axes.index, USUAL))
