"""The patches of a training: their grid, order and augmentation."""

from itertools import product

import numpy as np
import torch

from f2fd_core.config import WEDGE_PRESERVING_FLIPS
from f2fd_core.data.regions import crop
from f2fd_core.runtime.randomness import GLOBAL, Stream, derived_seed

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

    ``masks``: for each tomogram an array of its shape, then only patches of which at least
    MASK_SHARE is above 0.5 there; or None.
    """
    patches = [
        (index, start) for index, shape in enumerate(shapes) for start in patch_grid(shape, side)
    ]
    return [
        (index, start)
        for index, start in patches
        if not masks
        or masks[index] is None
        or (crop(masks[index], start, (side,) * 3) > 0.5).mean() >= MASK_SHARE
    ]


def shifted(start, shape, side, shift, random=GLOBAL):
    """Move a patch at random by up to ``shift`` voxels an axis, kept inside the volume."""
    offsets = torch.randint(-shift, shift + 1, (3,), generator=random.host).tolist()
    return tuple(
        first if length <= side else min(max(first + offset, 0), length - side)
        for first, offset, length in zip(start, offsets, shape)
    )


class PatchOrder:
    """The endless sequence of ``patches``, in a new random order every epoch.

    Batch number n is a function of (seed, n) alone. Batches are always full; one may hold the end
    of an epoch and the beginning of the next.
    """

    def __init__(self, patches, batch_size, seed):
        """``patches``: see :func:`all_patches`."""
        self.patches = patches
        self.batch_size, self.seed = batch_size, seed
        self._epoch, self._order = -1, []

    def steps(self, epochs):
        """Number of batches that visit every patch ``epochs`` times."""
        return -(-epochs * len(self.patches) // self.batch_size)

    def epochs_before(self, step):
        """Number of epochs that are complete before a step."""
        return step * self.batch_size // len(self.patches)

    def _at(self, number):
        epoch, position = divmod(number, len(self.patches))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(
                derived_seed(self.seed, Stream.ORDER_OF_PATCHES, epoch)
            )
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
    volumes = volumes.flip(WEDGE_PRESERVING_FLIPS[about_y + 2 * about_x])
    if mode == "mirrors" and further:
        volumes = volumes.flip(-2)
    if mode == "published" and further:
        quarters = int(torch.randint(1, 4, (), generator=random.host))
        volumes = torch.rot90(volumes, quarters, (-2, -1))
    return volumes
