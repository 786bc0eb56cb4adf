"""Pairs from voxels of one tomogram that are hidden or replaced."""

import torch

from f2fd_core import fourier
from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.runtime.randomness import GLOBAL


class Self2Self(Perturbation):
    """Self2Self with dropout (Quan et al., CVPR 2020): hidden voxels predicted from the others.

    The input is the tomogram times a random mask of 0 and 1, by points or by blocks; the loss is
    taken where the mask is 0. Noise that neighbours share can be predicted, too, and stays in.
    """

    def _kept(self, size, count, random):
        """Masks (count, Z, Y, X), True where a voxel is kept."""
        config, device = self.config, self.device
        if torch.rand((), generator=random.host) < config.block_probability:
            return torch.stack(
                [
                    fourier.block_mask(
                        size, config.block_size, 1 - config.mask_probability, random.device, device
                    )
                    for _ in range(count)
                ]
            )
        drawn = torch.rand((count,) + tuple(size), generator=random.device, device=device)
        return drawn >= config.point_probability

    def pairs(self, start, size, count, random=GLOBAL):
        region, kept = self._region(start, size), self._kept(size, count, random)
        return Pairs(region * kept, region.expand(count, *size), (~kept).float())

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """``count`` copies of a region, each with other voxels hidden, (count, Z, Y, X)."""
        return self._region(start, size) * self._kept(size, count, random)


class Noise2Void(Perturbation):
    """Noise2Void (Krull et al., CVPR 2019): voxels replaced, and predicted from their surroundings.

    A share of the voxels takes the value of a random voxel within NEIGHBOURS of it; the loss is
    taken there. With ``blind_reach``, whole crosses about them take values from anywhere in the
    region, so that noise shared along the axes can't be copied (structured Noise2Void, Broaddus et
    al., ISBI 2020).
    """

    NEIGHBOURS = 2

    def _blind(self, size, count, random):
        share = torch.rand((count,) + tuple(size), generator=random.device, device=self.device)
        return share < self.config.blind_share

    def _hidden(self, blind):
        """The blind voxels and the crosses about them."""
        reach = self.config.blind_reach
        if reach == 0:
            return blind
        values = blind[:, None].half() if blind.is_cuda else blind[:, None].float()
        crosses = [
            torch.nn.functional.max_pool3d(
                values,
                [2 * reach + 1 if other == axis else 1 for other in range(3)],
                stride=1,
                padding=[reach if other == axis else 0 for other in range(3)],
            )
            for axis in range(3)
        ]
        return torch.stack(crosses).amax(0)[:, 0] > 0

    def _replacements(self, region, count, random):
        """For every voxel the value of another one, (count, Z, Y, X)."""
        size, device = region.shape, region.device
        if self.config.blind_reach:
            chosen = torch.randint(
                region.numel(), (count,) + tuple(size), generator=random.device, device=device
            )
            return region.flatten()[chosen]
        width = 2 * self.NEIGHBOURS + 1
        # Offsets of the cube but its centre.
        offset = torch.randint(
            width**3 - 1, (count,) + tuple(size), generator=random.device, device=device
        )
        offset += (offset >= width**3 // 2).long()
        index = 0
        for axis, stride in enumerate((width**2, width, 1)):
            length = size[axis]
            here = torch.arange(length, device=device).reshape(
                [-1 if other == axis else 1 for other in range(3)]
            )
            step = offset // stride % width - self.NEIGHBOURS
            # Beyond a face, to the other side; mirrored there it could be the voxel itself.
            outside = (here + step < 0) | (here + step >= length)
            index = index * length + here + torch.where(outside, -step, step)
        return region.flatten()[index]

    def pairs(self, start, size, count, random=GLOBAL):
        region, blind = self._region(start, size), self._blind(size, count, random)
        replacements = self._replacements(region, count, random)
        inputs = torch.where(self._hidden(blind), replacements, region)
        return Pairs(inputs, region.expand(count, *size), blind.float())
