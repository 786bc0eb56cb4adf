"""Maps: what is found in cells of some parts of a tomogram, for each of its voxels."""

import numpy as np

from f2fd_core.data import formats
from f2fd_core.data.source import slabs

CELL = 16


def cell_means(values):
    """Means over cells of CELL voxels a side, the last ones cut where they don't fit in."""
    for axis in range(3):
        starts = np.arange(0, values.shape[axis], CELL)
        counts = np.diff(np.append(starts, values.shape[axis]))
        shape = [-1 if other == axis else 1 for other in range(3)]
        values = np.add.reduceat(values, starts, axis) / counts.reshape(shape)
    return values


def smoothed(cells):
    """Each cell's mean with its neighbours' (weights 1, 2, 1 along each axis)."""
    for axis in range(3):
        padded = np.concatenate([cells.take([0], axis), cells, cells.take([-1], axis)], axis)
        length = cells.shape[axis]
        first, middle, last = (padded.take(range(at, at + length), axis) for at in range(3))
        cells = (first + 2 * middle + last) / 4
    return cells


class Places:
    """Cells of a tomogram of ``shape`` (Z, Y, X), filled part by part."""

    def __init__(self, shape):
        self.shape = shape
        self.cells = np.full([-(-length // CELL) for length in shape], np.nan)

    def put(self, start, cells):
        """Put the cells of the part that begins at voxel ``start``."""
        first = [round(at / CELL) for at in start]
        target = self.cells[tuple(slice(at, at + count) for at, count in zip(first, cells.shape))]
        target[:] = cells[tuple(slice(side) for side in target.shape)]

    def write(self, path, source, done, rescaling=None):
        """Write the map, interpolated between the cells' middles, as an MRC file like ``source``,
        a :class:`~f2fd_core.data.source.Source`. Cells without parts take the nearest value.

        ``rescaling``: the :class:`~f2fd_core.data.rescaling.Rescaling` of the source's voxels to
        those that have the cells, if there is one.
        """
        cells, places = _filled(self.cells), [np.arange(length) for length in source.shape]
        if rescaling is not None:
            places = [rescaling.places(axis, voxels) for axis, voxels in enumerate(places)]
        with formats.new_volume(path, **source.header(), labels=source.labels, done=done) as output:
            for slab in slabs(source.shape):
                output[slab] = _interpolated(cells, [places[0][slab], *places[1:]])

    def section(self, z):
        """The XY section of the map at a depth (voxels), an array (Y, X)."""
        return _interpolated(_filled(self.cells), [range(z, z + 1), *map(range, self.shape[1:])])[0]


def _filled(cells):
    """The same without NaN: the value of the nearest cell in its place."""
    known = np.argwhere(np.isfinite(cells))
    result = cells.copy()
    for place in np.argwhere(~np.isfinite(cells)):
        nearest = known[((known - place) ** 2).sum(1).argmin()]
        result[tuple(place)] = cells[tuple(nearest)]
    return result


def _interpolated(cells, places):
    """Linear interpolation between the middles of the cells, at these voxels along each axis."""
    for axis, voxels in enumerate(places):
        middles = (np.arange(cells.shape[axis]) + 0.5) * CELL - 0.5
        matrix = np.stack([np.interp(voxels, middles, row) for row in np.eye(len(middles))], 1)
        cells = np.moveaxis(np.tensordot(matrix, cells, (1, axis)), 0, axis)
    return cells
