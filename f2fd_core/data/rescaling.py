"""A tomogram at another voxel size and back, in Fourier space."""

import math

import numpy as np
import torch

from f2fd_core.config import MINIMUM_SIDE, UserError
from f2fd_core.data.out_of_core import sections_of, spectrum_of
from f2fd_core.data.regions import crop
from f2fd_core.data.source import slabs
from f2fd_core.runtime.mapped import DiskArray

# Voxels, of the larger size, that are mirrored at each face and fade out there: a Fourier transform
# takes a volume for periodic, and what differs at two opposite faces rings.
MIRRORED = 12


def resized(spectrum, shape, other):
    """The rfftn (Z, Y, X // 2 + 1) of a volume of ``shape``, resampled to ``other``: frequencies
    that only one of both has are left out or zero."""
    result = torch.zeros((*other[:2], other[2] // 2 + 1), dtype=spectrum.dtype)
    kept = [(min(one, two) + 1) // 2 for one, two in zip(shape, other)]
    parts = [(slice(0, count), slice(1 - count, None) if count > 1 else None) for count in kept]
    for z in filter(None, parts[0]):
        for y in filter(None, parts[1]):
            result[z, y, : kept[2]] = spectrum[z, y, : kept[2]]
    return result.mul_(math.prod(other) / math.prod(shape))


class Rescaling:
    """From volumes of ``shape`` (Z, Y, X) to those with voxels ``factor`` times as many along each
    axis, of shape ``scaled``, and back.

    Raises UserError if these would be too small.
    """

    def __init__(self, shape, factor):
        self.shape = tuple(shape)
        margin = math.ceil(MIRRORED / min(factor, 1))
        self._margin = (margin,) * 3
        self._outer = tuple(length + 2 * margin for length in shape)
        self._scaled_outer = tuple(round(length * factor) for length in self._outer)
        # Whole voxels, so that the way back begins with the grid on which the way there ended.
        self._cut = tuple(
            margin * scaled // outer for scaled, outer in zip(self._scaled_outer, self._outer)
        )
        self.scaled = tuple(length - 2 * cut for length, cut in zip(self._scaled_outer, self._cut))
        if min(self.scaled) < MINIMUM_SIDE:
            raise UserError(
                f"a tomogram of {' x '.join(map(str, self.shape))} voxels (Z, Y, X) would have "
                f"{' x '.join(map(str, self.scaled))} once it is rescaled; expected at least "
                f"{MINIMUM_SIDE} along every axis"
            )

    def places(self, axis, voxels):
        """Where ``voxels`` of the volume lie along an axis of the rescaled one, in its voxels."""
        ratio = self._scaled_outer[axis] / self._outer[axis]
        return (np.asarray(voxels) + self._margin[axis]) * ratio - self._cut[axis]

    def there(self, data):
        """A volume of ``shape``, read by indexing, as an array of shape ``scaled``, float32."""
        return _resampled(data, self._margin, self._outer, self._scaled_outer, self._cut)

    def back(self, data):
        """A volume of shape ``scaled`` as an array of ``shape``, float32."""
        return _resampled(data, self._cut, self._scaled_outer, self._outer, self._margin)


def _fading(length, margin):
    """1 inside a side of ``length``, and from its faces on to 0 in the middle of the ``margin``s,
    which meet there."""
    outside = (margin - np.arange(margin) - 0.5) / margin
    fade = np.cos(np.pi / 2 * outside) ** 2
    return np.concatenate([fade, np.ones(length - 2 * margin), fade[::-1]]).astype(np.float32)


def _resampled(data, margin, outer, other, cut):
    """``data``, mirrored by a ``margin`` to the shape ``outer``, as an array in a temporary file:
    resampled to the shape ``other``, less ``cut`` voxels at each face."""
    sums = [np.asarray(data[slab], np.float64).sum() for slab in slabs(data.shape)]
    mean = np.float32(sum(sums) / math.prod(data.shape))
    z, y, x = (_fading(length, width) for length, width in zip(outer, margin))

    def read(slab):
        start = (slab.start - margin[0], *(-width for width in margin[1:]))
        size = (slab.stop - slab.start, *outer[1:])
        values = np.asarray(crop(data, start, size), np.float32) - mean
        return torch.from_numpy(values * z[slab, None, None] * y[:, None] * x)

    spectrum = resized(spectrum_of(read, outer), outer, other)
    shape = tuple(length - 2 * width for length, width in zip(other, cut))
    result = DiskArray(shape, np.float32).array
    inside = tuple(slice(width, width + length) for width, length in zip(cut[1:], shape[1:]))
    for slab, sections in sections_of(spectrum, other):
        first, last = max(slab.start, cut[0]), min(slab.stop, cut[0] + shape[0])
        if first < last:
            result[first - cut[0] : last - cut[0]] = (
                sections[(slice(first - slab.start, last - slab.start), *inside)].numpy() + mean
            )
    return result
