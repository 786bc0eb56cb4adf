"""Regions of arrays, reflected at their faces."""

import numpy as np


def crop(array, start, size):
    """Region of the last three axes; what lies outside is filled by reflection.

    ``array`` (a numpy array or a torch tensor) is (..., Z, Y, X); ``start`` may be negative and
    ``start + size`` beyond the end. Wholly inside, the result is a view.
    """
    ranges, mirrored = [], []
    for axis, first, count, length in zip((-3, -2, -1), start, size, array.shape[-3:]):
        if not 0 <= first <= length - count:
            index = reflected(first, count, length)
            first, count = index.min(), np.ptp(index) + 1
            mirrored.append((axis, index - first))
        ranges.append(slice(first, first + count))
    # The ranges first, which copy nothing: the array may be a large file.
    inside = (Ellipsis, *ranges)
    array = array[inside]
    for axis, index in mirrored:
        array = array[(Ellipsis, index) + (slice(None),) * (-1 - axis)]
    return array


def reflected(start, size, length):
    """Indices start .. start + size - 1, mirrored into 0 .. length - 1 without repeating edges."""
    period = 2 * (length - 1)
    index = np.arange(start, start + size) % period
    return np.minimum(index, period - index)


def in_words(size):
    """A size as it is written: (64, 128, 128) -> "64 x 128 x 128"."""
    return " x ".join(map(str, size))
