"""The tiles in which a tomogram is predicted, and how they are blended."""

from itertools import product

import numpy as np
import torch


class Tiling:
    """Overlapping tiles over a region, with smooth weights that sum to one at every voxel.

    Weights are separable: per axis a raised-cosine ramp over the overlap, strictly positive, and
    divided by their sum over the tiles. Where a tile reaches beyond the volume it is filled by
    reflection, and that part is dropped.

    Parameters: ``shape`` (Z, Y, X) of the region; the tiles' largest ``side`` and least
    ``overlap``, in voxels; ``multiple``: tile sides are kept a multiple of it. ``size``: what the
    tiles have, along each axis no more than as many of them need, but not less than ``least``.
    """

    def __init__(self, shape, side, overlap, multiple, least=0):
        self.shape = tuple(shape)
        needed = (max(self._needed(length, side, overlap), min(length, least)) for length in shape)
        self.size = tuple(min(side, -(-length // multiple) * multiple) for length in needed)
        self.axes = [self._axis(length, tile, overlap) for length, tile in zip(shape, self.size)]

    @staticmethod
    def _count(length, tile, overlap):
        return 1 if length <= tile else -(-(length - overlap) // (tile - overlap))

    @classmethod
    def _needed(cls, length, tile, overlap):
        """The side that suffices for as many tiles as there are of the side ``tile``."""
        count = cls._count(length, tile, overlap)
        return -(-(length + (count - 1) * overlap) // count)

    @classmethod
    def _axis(cls, length, tile, overlap):
        """[(first voxel, weights of the tile's voxels inside the region)] along one axis."""
        if length <= tile:
            return [(0, np.ones(length, dtype=np.float32))]
        count = cls._count(length, tile, overlap)
        starts = [int(round(start)) for start in np.linspace(0, length - tile, count)]
        ramp = np.minimum(np.arange(tile) + 1, np.arange(tile)[::-1] + 1) / (overlap + 1)
        window = np.sin(np.pi / 2 * np.minimum(ramp, 1.0)) ** 2
        total = np.zeros(length)
        for start in starts:
            total[start : start + tile] += window
        return [
            (start, (window / total[start : start + tile]).astype(np.float32)) for start in starts
        ]

    def __len__(self):
        return len(self.starts())

    def __iter__(self):
        """Yield (first voxel (z, y, x), slices into the region, weights of that part)."""
        for (z, wz), (y, wy), (x, wx) in product(*self.axes):
            inside = (slice(z, z + len(wz)), slice(y, y + len(wy)), slice(x, x + len(wx)))
            wz, wy, wx = (torch.from_numpy(weights) for weights in (wz, wy, wx))
            yield (z, y, x), inside, wz[:, None, None] * (wy[:, None] * wx)

    def blend(self, results, outputs):
        """Add the ``results`` of the tiles, in their order, into ``outputs``.

        A result holds one (Z, Y, X) array for each of ``outputs``, arrays of the region's shape
        that start as zeros; memory maps will do. Yields after every tile, for a progress bar.
        """
        outputs = [torch.from_numpy(output) for output in outputs]
        for (start, inside, weights), result in zip(self, results):
            for output, tile in zip(outputs, result):
                part = tile[tuple(slice(0, side) for side in weights.shape)]
                output[inside].addcmul_(weights, torch.from_numpy(part))
            yield start

    def starts(self):
        """First voxels (z, y, x) of the tiles, in their order."""
        return list(product(*([start for start, _ in axis] for axis in self.axes)))
