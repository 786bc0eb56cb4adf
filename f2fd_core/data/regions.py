"""Regions of arrays, reflected at their faces."""

import numpy as np


def crop(array, start, size):
    """Region of the last three axes; what lies outside is filled by reflection.

    ``array`` (a numpy array or a torch tensor) is (..., Z, Y, X); ``start`` may be negative and
    ``start + size`` beyond the end. Wholly inside, the result is a view.
    """
    shape = array.shape[-3:]
    corner, extent = source_box(start, size, shape)
    # The ranges first, which copy nothing: the array may be a large file.
    array = array[(Ellipsis, *(slice(at, at + side) for at, side in zip(corner, extent)))]
    for axis, (first, side, length) in enumerate(zip(start, size, shape)):
        if not 0 <= first <= length - side:
            index = reflected(first, side, length) - corner[axis]
            array = array[(Ellipsis, index) + (slice(None),) * (2 - axis)]
    return array


def source_box(start, size, shape):
    """(first voxel, size) of the part of a volume of ``shape`` that a region is filled from."""
    indices = [reflected(*axis) for axis in zip(start, size, shape)]
    corner = tuple(int(index.min()) for index in indices)
    return corner, tuple(int(np.ptp(index)) + 1 for index in indices)


def reflected(start, size, length):
    """Indices start .. start + size - 1, mirrored into 0 .. length - 1 without repeating edges."""
    period = max(2 * (length - 1), 1)
    index = np.arange(start, start + size) % period
    return np.minimum(index, period - index)


def in_words(size):
    """A size as it is written: (64, 128, 128) -> "64 x 128 x 128"."""
    return " x ".join(map(str, size))
