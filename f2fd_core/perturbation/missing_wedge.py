"""Lessons on the missing wedge, from a tomogram's own denoised volume."""

import math
from typing import NamedTuple

import torch

from f2fd_core.config import NETWORK_MULTIPLE, tta_flips
from f2fd_core.data.orientation import back, turned
from f2fd_core.data.regions import crop
from f2fd_core.filters import wedge
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.perturbation.noise_matched import NoiseMatched
from f2fd_core.prediction.predictor import Predictor, denoised_region
from f2fd_core.runtime.device import choose_dtype, to_device
from f2fd_core.runtime.randomness import GLOBAL

# A training sees no more of its tomograms than so many voxels: to denoise all of larger ones would
# take longer than the training.
MOST_TAUGHT = 2**24
# Tiles (voxels) that any GPU has room for.
TILE_SIZE = 96
# Copies at a time that any GPU has room for.
BATCH_SIZE = 2
# The share of lessons that are noise alone, with nothing as the target: a network that has seen
# nothing but crowded cells may make anything of it.
EMPTY = 1 / 8


class Lessons(NamedTuple):
    """What makes the perturbations of a training on the missing wedge.

    ``model``: the path of a model that denoises; ``filler``: of one that predicts the wedge, from
    an earlier round; "" in the first; ``tilt_range``: the largest tilt (degrees); 0: as found;
    ``lowered``: by how much the noise was lowered in the training of the model, for each tomogram,
    see :meth:`NoiseMatched.state_dict`.
    """

    model: str
    filler: str
    tilt_range: float
    lowered: list

    def __call__(self, volume, config, device):
        """The :class:`MissingWedge` of a standardised volume, for a TrainConfig."""
        perturbation = MissingWedge(volume, config, device)
        number = config.names().index(volume.source.path)
        perturbation.load_state_dict(self.lowered[number])
        perturbation.take(self)
        return perturbation


class MissingWedge(NoiseMatched):
    """Pairs of a denoised tomogram that is turned about the tilt axis by 90 degrees.

    Tilts up to 60 degrees leave a wedge of 60 degrees; turned by 90, it lies beside itself. So the
    turned volume has all that would be missing there: it is the target, and the input is the same
    without its wedge, and with noise of the tomogram's own spectrum, since that is what the
    network will have to fill the wedge of (equivariant imaging, Chen et al., ICCV 2021; with the
    filled volumes of one round as the teachers of the next, IsoNet, Liu et al., Nature
    Communications, 2022). Some pairs are of noise alone, of which nothing is to be made.
    """

    judged = False

    def take(self, lessons):
        """Denoise the middle of the tomogram, and fill it where there is something to fill with."""
        self.first, self.size = middle(
            self.volume.shape,
            max(MOST_TAUGHT // len(self.config.names()), (2 * self.config.patch_size) ** 3),
        )
        tilt_range = wedge.tilt_range_of(self.volume, lessons.tilt_range)
        planes = self._predicted(lessons.model)
        if lessons.filler:
            planes = wedge.filled(planes, self._predicted(lessons.filler), tilt_range)
        depth, width = planes.shape[0], planes.shape[2]
        seen = wedge.part(planes, wedge.measured(depth, width, tilt_range, turned=True))
        self.target, self.seen = (turned(values, back(self.axes)) for values in (planes, seen))

    def _predicted(self, path):
        """What a model makes of the middle: its planes (depth, tilt axis, across), standardised."""
        network, trained = checkpoint.restore(checkpoint.load(path), path)
        flips = tta_flips(trained)
        dtype = choose_dtype(
            self.config.precision,
            self.device,
            self.config.patch_size // NETWORK_MULTIPLE[trained.network],
        )
        predictor = Predictor(
            network.to(self.device, memory_format=torch.channels_last_3d),
            self.device,
            dtype,
            len(flips),
            BATCH_SIZE,
            flips=flips,
        )
        itself = Perturbation(self.volume, self.config, self.device)
        values = denoised_region(
            predictor, itself, self.first, self.size, TILE_SIZE, trained.network
        )
        return turned(torch.from_numpy(values), self.axes)

    def pairs(self, start, size, count, random=GLOBAL):
        """As of any perturbation; of patches outside the middle, others inside."""
        start = [
            at if whole == length else first + (at - first) % (length - side + 1)
            for at, side, first, length, whole in zip(
                start, size, self.first, self.size, self.volume.shape
            )
        ]
        place = [at - first for at, first in zip(start, self.first)]
        depth, _, across = (axis - 3 for axis in self.axes)
        seen, target = (
            to_device(crop(values, place, size), self.device).transpose(depth, across)
            for values in (self.seen, self.target)
        )
        noise = self.noise.sample(start, size, count, random, self.device)
        if torch.rand((), generator=random.host) < EMPTY:
            seen, target = torch.zeros_like(seen), torch.zeros_like(target)
        return Pairs(seen + noise, target.expand(count, *size))


def middle(shape, voxels):
    """(first voxel, size) of the middle of a volume of ``shape`` with no more than so many
    ``voxels``, of which its longest sides are cut."""
    sides = range(max(shape), 0, -1)
    side = next(
        side for side in sides if math.prod(min(length, side) for length in shape) <= voxels
    )
    size = tuple(min(length, side) for length in shape)
    return tuple((length - short) // 2 for length, short in zip(shape, size)), size
