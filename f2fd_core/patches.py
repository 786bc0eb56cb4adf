"""Training patches (grid, order, augmentation) and prediction tiles (grid, blending)."""
from itertools import product

import numpy as np
import torch

from f2fd_core.config import HALF_TURNS
from f2fd_core.randomness import GLOBAL, derived_seed
from f2fd_core.volume import crop

ORDER_STREAM = 2
MASK_SHARE = 0.05


def grid_starts(length, side):
    """First voxels of ceil(length / side) patches spread evenly over an axis.

    An axis thinner than the patch gets one patch that overhangs both ends.
    """
    if length <= side:
        return [-((side - length) // 2)]
    return [int(round(start)) for start in np.linspace(0, length - side, -(-length // side))]


def patch_grid(shape, side):
    """First voxels (z, y, x) of the grid of cubic patches over a volume of ``shape``."""
    return list(product(*(grid_starts(length, side) for length in shape)))


def all_patches(shapes, side, masks=()):
    """[(tomogram's index, first voxel (z, y, x))] of the grids of all tomograms.

    ``masks``: for each tomogram an array of its shape; then only patches of which at least
    MASK_SHARE is above 0.5 there.
    """
    patches = [(index, start) for index, shape in enumerate(shapes)
               for start in patch_grid(shape, side)]
    return [(index, start) for index, start in patches if not masks
            or (crop(masks[index], start, (side,) * 3) > 0.5).mean() >= MASK_SHARE]


def shifted(start, shape, side, shift, random=GLOBAL):
    """Move a patch at random by up to ``shift`` voxels an axis, kept inside the volume."""
    offsets = torch.randint(-shift, shift + 1, (3,), generator=random.host).tolist()
    return tuple(first if length <= side else min(max(first + offset, 0), length - side)
                 for first, offset, length in zip(start, offsets, shape))


class PatchOrder:
    """The endless sequence of ``patches``, in a new random order every epoch.

    Batch number n is a function of (seed, n) alone. Batches are always full; one may hold the end
    of an epoch and the beginning of the next.
    """

    def __init__(self, patches, batch_size, seed):
        """``patches``: see :func:`all_patches`."""
        self.patches = patches
        self.batch_size, self.seed = batch_size, seed
        self._epoch, self._order = None, None

    def steps(self, epochs):
        """Number of batches that visit every patch ``epochs`` times."""
        return -(-epochs * len(self.patches) // self.batch_size)

    def epochs_before(self, step):
        """Number of epochs that are complete before a step."""
        return step * self.batch_size // len(self.patches)

    def _at(self, number):
        epoch, position = divmod(number, len(self.patches))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, ORDER_STREAM, epoch))
            self._order = torch.randperm(len(self.patches), generator=generator).tolist()
            self._epoch = epoch
        return self.patches[self._order[position]]

    def batch(self, step):
        """The patches of a step: a list of (tomogram's index, first voxel (z, y, x))."""
        first = step * self.batch_size
        return [self._at(number) for number in range(first, first + self.batch_size)]


def augment(volumes, mode, random=GLOBAL):
    """Turn a stack (..., Z, Y, X) of cubes at random, all alike; each turn with probability 0.5.

    wedge: half turns about Y and X. mirrors: these, and a mirror along Y, so that the axes are
    flipped in all eight ways. Both map the missing wedge of a tilt axis along Y onto itself.
    published: half turns, and a turn of 90, 180 or 270 degrees about Z.
    """
    if mode == "none":
        return volumes
    about_y, about_x, further = (torch.rand(3, generator=random.host) < 0.5).tolist()
    volumes = volumes.flip(HALF_TURNS[about_y + 2 * about_x])
    if mode == "mirrors" and further:
        volumes = volumes.flip(-2)
    if mode == "published" and further:
        quarters = int(torch.randint(1, 4, (), generator=random.host))
        volumes = torch.rot90(volumes, quarters, (-2, -1))
    return volumes


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
            total[start:start + tile] += window
        return [(start, (window / total[start:start + tile]).astype(np.float32))
                for start in starts]

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
