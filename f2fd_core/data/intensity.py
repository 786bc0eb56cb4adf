"""The intensities of a tomogram: its scale, its background, and what of it is no specimen.

A tomogram as it comes may have gold beads, hot pixels, a border that is constant, ice or vacuum, a
ramp or a carbon edge. The network sees none of these: voxels minus a smooth background, in units of
what most of the tomogram varies by, clipped; and the result has all of them as they were.
"""

import math
from itertools import product

import numpy as np
import torch
from torch.nn import functional

from f2fd_core.data.regions import reflected
from f2fd_core.data.source import slabs

# Statistics are of cubes of so many voxels a side.
BLOCK = 16
# Of at most so many cubes.
BLOCKS = 4096
# Parts are constant where voxels differ by less than this share of what most blocks vary by.
CONSTANT = 1e-3
# The background is a local regression over so many voxels to each side.
BACKGROUND = 48
# Where nothing is known it is filled in from what is around it, so many times.
FILLINGS = 10
# It is left alone if it varies by less than so many standard deviations: what it holds, noise
# included, is not denoised, and a network bears as much.
LEAST_BACKGROUND = 0.5
# The share of the blocks that a background that is not abrupt suits.
SUITED_BLOCKS = 0.98
# It is abrupt if more blocks than the rest are so many standard deviations off it: 1.1 at the edge
# of a carbon film, 0.33 or less in simulated and real tomograms without one.
ABRUPT = 0.6
# What is so many standard deviations from the mean is an outlier.
OUTLIER = 6.0
# The quantile of the blocks' variances that is typical: neither of vacuum nor of beads or an edge.
TYPICAL = 0.75
# The unit is the mean variance of the blocks between 1 / ALIKE and ALIKE times what is typical.
ALIKE = 2.0


def opened(mask):
    """What of a mask (Z, Y, X) can be covered with cubes of 3 voxels a side that lie in it."""
    values = torch.from_numpy(np.asarray(mask, np.float32))[None, None]
    # Beyond the faces max_pool3d sees less than anything: outside is neither mask nor its absence.
    eroded = -functional.max_pool3d(-values, 3, 1, 1)
    return functional.max_pool3d(eroded, 3, 1, 1)[0, 0].numpy() > 0


def constant(values, tolerance):
    """Which voxels of (..., Z, Y, X) lie in cubes of 3 voxels a side that differ by no more than
    ``tolerance``."""
    values = np.asarray(values, np.float32)
    batch = torch.from_numpy(values.reshape(-1, 1, *values.shape[-3:]))
    highest, lowest = (sign * functional.max_pool3d(sign * batch, 3, 1) for sign in (1, -1))
    flat = highest - lowest <= tolerance
    if not flat.any():
        return np.zeros(values.shape, bool)
    found = functional.max_pool3d(functional.pad(flat.float(), (1,) * 6), 3, 1, 1)
    return found.numpy().reshape(values.shape) > 0


def local_regression(centres, length):
    """Weights (length, centres) by which values at ``centres`` give a local regression, of the
    second degree if there are enough, at each voxel of an axis (LOESS; Cleveland, J. Am. Stat.
    Assoc. 74 (1979) 829)."""
    distance = centres[None, :] - np.arange(length)[:, None]
    spacing = np.diff(centres, prepend=centres[0]).max()
    nearest = min(len(centres), math.ceil(2 * BACKGROUND / max(spacing, 1)))
    # The outermost of the nearest has some weight, too.
    reach = 1.5 * np.sort(np.abs(distance))[:, nearest - 1 : nearest]
    distance = distance / np.maximum(reach, BACKGROUND)
    weight = np.clip(1 - np.abs(distance) ** 3, 0, None) ** 3
    powers = distance[:, :, None] ** np.arange(min(3, len(centres)))
    moments = np.einsum("vc,vci,vcj->vij", weight, powers, powers)
    return np.einsum("vi,vci,vc->vc", np.linalg.pinv(moments)[:, 0], powers, weight)


def _along(weights, start, size):
    """Rows of each axis' weights for a region, mirrored where it reaches beyond the volume."""
    return [
        matrix[reflected(first, side, len(matrix))]
        for matrix, first, side in zip(weights, start, size)
    ]


def _outer(values, weights):
    for axis, matrix in enumerate(weights):
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    return values


class Intensities:
    """How voxels become what the network sees: (clip(x - background, low, high) - mean) / std.

    The background is ``offset`` plus what :meth:`background` gives; in parts that are constant
    there is nothing to see. ``tolerance``: by how much voxels of such parts differ, None if there
    are none; ``constant_share``: how much of each block they are.
    """

    def __init__(self, offset, mean=0.0, std=1.0, low=-np.inf, high=np.inf):
        self.offset, self.mean, self.std, self.low, self.high = offset, mean, std, low, high
        self.tolerance = self._levels = None
        self.constant_share, self._centres = np.zeros((1, 1, 1)), []
        self.abrupt = False

    @classmethod
    def plain(cls, data):
        """Of mean 0 and standard deviation 1: of all voxels alike."""
        # Two passes: the sum of squares about the mean does not cancel for a large offset.
        mean = sum(np.sum(data[slab], dtype=np.float64) for slab in slabs(data.shape)) / data.size
        square = sum(
            np.square(np.asarray(data[slab], np.float64) - mean).sum() for slab in slabs(data.shape)
        )
        return cls(float(mean), std=float(np.sqrt(square / data.size)))

    @classmethod
    def measured(cls, data):
        """Of voxels (Z, Y, X), read by indexing."""
        side = tuple(min(BLOCK, length) for length in data.shape)
        starts = _block_starts(data.shape, side)
        blocks = np.empty((*map(len, starts), *side))
        for number, z in enumerate(starts[0]):
            slab = np.asarray(data[z : z + side[0]], np.float64)
            for (j, y), (i, x) in product(enumerate(starts[1]), enumerate(starts[2])):
                blocks[number, j, i] = slab[:, y : y + side[1], x : x + side[2]]
        grid, blocks = blocks.shape[:3], blocks.reshape((-1, *side))
        found = cls(float(np.median(blocks)))
        blocks -= found.offset
        tolerance = CONSTANT * float(np.sqrt(np.quantile(blocks.var((1, 2, 3)), TYPICAL)))
        missing = constant(blocks, tolerance)
        share = missing.mean((1, 2, 3))
        known = share <= 0.5
        if not known.any():
            return cls.plain(data)
        if missing.any():
            found.tolerance, found.constant_share = tolerance, share.reshape(grid)
        blocks, missing = blocks[known], missing[known]
        blocks[missing] = np.nan
        levels = np.full(len(known), np.nan)
        levels[known] = np.nanmedian(blocks, (1, 2, 3))
        found._centres = [first + (edge - 1) / 2 for first, edge in zip(starts, side)]
        spread = found._fit_background(data.shape, levels.reshape(grid))
        if spread < LEAST_BACKGROUND * tolerance / CONSTANT:
            found._levels = None
            found._scale_by(blocks)
            return found
        corners = np.array(list(product(*starts)))[known]
        for block, corner in zip(blocks, corners):
            block -= found.background(corner, side)
        found._scale_by(blocks)
        off = np.abs(np.nanmedian(blocks, (1, 2, 3)) - found.mean)
        found.abrupt = bool(np.nanquantile(off, SUITED_BLOCKS) > ABRUPT * found.std)
        return found

    def _fit_background(self, shape, levels):
        """Fit ``levels`` of the blocks, NaN where nothing is known; returns how much the background
        varies, its standard deviation."""
        self._weights = [local_regression(*axis) for axis in zip(self._centres, shape)]
        at_centres = [
            weights[np.rint(places).astype(int)]
            for weights, places in zip(self._weights, self._centres)
        ]
        known = np.isfinite(levels)
        self._levels = np.where(known, levels, np.median(levels[known]))
        for _ in range(0 if known.all() else FILLINGS):
            self._levels = np.where(known, levels, _outer(self._levels, at_centres))
        return float(_outer(self._levels, at_centres)[known].std())

    def _scale_by(self, blocks):
        """Find the limits, the mean and the unit; NaN voxels don't count."""
        lowest, highest = np.nanmin(blocks), np.nanmax(blocks)
        kept, count = np.isfinite(blocks), -1
        while count != kept.sum():
            count = kept.sum()
            inside = blocks[kept]
            self.low, self.high = (
                float(inside.mean() + sign * OUTLIER * inside.std()) for sign in (-1, 1)
            )
            kept &= (blocks >= self.low) & (blocks <= self.high)
        blocks[~kept] = np.nan
        some = blocks[kept.mean((1, 2, 3)) > 0.5]
        variance = np.nanvar(some, (1, 2, 3))
        # One that a block has: between two kinds of blocks may be a variance that none is like.
        typical = np.quantile(variance, TYPICAL, method="lower")
        alike = (variance >= typical / ALIKE) & (variance <= typical * ALIKE)
        self.mean = float(np.nanmean(some[alike]))
        self.std = float(np.sqrt(variance[alike].mean()))
        self.low = float(max(min(self.low, self.mean - OUTLIER * self.std), lowest))
        self.high = float(min(max(self.high, self.mean + OUTLIER * self.std), highest))

    def background(self, start, size):
        """The background above ``offset`` in a region, an array (Z, Y, X) or a number."""
        if self._levels is None:
            return 0.0
        return _outer(self._levels, _along(self._weights, start, size))

    def content(self, start, size):
        """How much of a region is not constant, 0 to 1, by the blocks whose centres it has."""
        if self.tolerance is None:
            return 1.0
        blocks = []
        for centres, first, side in zip(self._centres, start, size):
            inside = np.flatnonzero((centres >= first) & (centres < first + side))
            nearest = np.abs(centres - first - (side - 1) / 2).argmin()
            blocks.append(inside if len(inside) else [nearest])
        return 1 - float(self.constant_share[np.ix_(*blocks)].mean())

    def constant(self, voxels):
        """Which of ``voxels`` (Z, Y, X) lie in constant parts, but for those near their faces."""
        if self.tolerance is None:
            return np.zeros(voxels.shape, bool)
        return constant(voxels - self.offset, self.tolerance)


def _block_starts(shape, side):
    """First voxels of the blocks along each axis: they tile a small volume, and are spread evenly
    over a large one."""
    counts = [-(-length // edge) for length, edge in zip(shape, side)]
    thinned = max(1.0, np.prod(counts) / BLOCKS) ** (1 / 3)
    return [
        np.linspace(0, length - edge, max(1, int(count / thinned))).round().astype(int)
        for length, edge, count in zip(shape, side, counts)
    ]
