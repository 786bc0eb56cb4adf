"""The parts of a tomogram that a check looks at, and what a model makes of them."""

import copy
import math

import numpy as np
import torch

from f2fd_core.config import NETWORK_MULTIPLE, prediction_defaults, tta_flips
from f2fd_core.data.regions import crop
from f2fd_core.noise import periodogram
from f2fd_core.perturbation import Perturbation, perturbation_for_prediction
from f2fd_core.prediction.predictor import Predictor, denoised_region, inner_of, with_context
from f2fd_core.runtime.device import to_device
from f2fd_core.runtime.randomness import GLOBAL

# A tomogram of up to so many voxels is checked as a whole, of a larger one as many cubes as have
# so many.
MOST_VOXELS = 1 << 22
# The side of these cubes in voxels.
PART = 64
# Of fewer voxels there is nothing to say: too few coefficients to separate signal from noise.
LEAST_VOXELS = 1 << 15


def parts_of(shape):
    """The parts, a list of (first voxel, size), of a tomogram of ``shape`` (Z, Y, X)."""
    if math.prod(shape) <= MOST_VOXELS:
        return [((0, 0, 0), tuple(shape))]
    size = tuple(min(PART, length) for length in shape)
    corners = periodogram.window_corners(shape, size, MOST_VOXELS // math.prod(size))
    return [(corner, size) for corner in corners]


class Changed(Perturbation):
    """A tomogram as a model sees it, with ``added``, an array, from voxel ``first`` on, or that in
    the tomogram's place."""

    def __init__(self, perturbation, first, added, tomogram=True):
        """``tomogram``: whether it is there."""
        super().__init__(perturbation.volume, perturbation.config, perturbation.device)
        self.perturbation, self.first, self.tomogram = perturbation, first, tomogram
        self.added = torch.from_numpy(np.asarray(added, np.float32))

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """See :class:`~f2fd_core.perturbation.base.Perturbation`."""
        at = [here - there for here, there in zip(start, self.first)]
        added = to_device(crop(self.added, at, size).contiguous(), self.device)
        if not self.tomogram:
            return added.expand(count, *size)
        return self.perturbation.copies(start, size, count, first, random) + added


class Denoiser:
    """What a model makes of a standardised tomogram, as :func:`~f2fd_core.denoise` would."""

    def __init__(self, predictor, perturbation, tile_size, network):
        """``network``: its name, see :func:`~f2fd_core.prediction.predictor.tiling`."""
        self.predictor, self.perturbation = predictor, perturbation
        self.tile_size, self.network = tile_size, network

    def once(self):
        """The same with a single prediction in the place of the mean of several."""
        other = copy.copy(self)
        other.predictor = copy.copy(self.predictor)
        other.predictor.predictions = 1
        return other

    def context(self, part):
        """The part (first voxel, size) with what the network sees around it."""
        return with_context(part, self.perturbation.volume)

    def without_context(self, box, added=None, tomogram=True, tile_size=0):
        """The denoised box (first voxel, size), float32 (Z, Y, X), by nothing but what is in it.

        ``added`` to the tomogram in the box, or in its place if ``tomogram`` is False.
        """
        (start, size), source = box, self.perturbation
        if added is not None:
            source = Changed(source, start, added, tomogram)
        return denoised_region(
            self.predictor, source, start, size, tile_size or self.tile_size, self.network
        )

    def __call__(self, part, *args, **options):
        """The denoised part: the same by what is in its :meth:`context`."""
        context = self.context(part)
        return self.without_context(context, *args, **options)[inner_of(part, context[0])]

    def in_other_tiles(self, part):
        """The denoised part, in tiles of three quarters of the side."""
        multiple = NETWORK_MULTIPLE[self.network]
        return self(part, tile_size=max(3 * self.tile_size // 4 // multiple, 1) * multiple)


def denoiser_of(volume, network, trained, device, dtype, tile_size=0, seed=0):
    """The Denoiser of a volume for a network on the ``device`` and its TrainConfig."""
    defaults = prediction_defaults(trained)
    count = defaults["predictions"]
    return Denoiser(
        Predictor(
            network, device, dtype, count, defaults["batch_size"], seed, flips=tta_flips(trained)
        ),
        perturbation_for_prediction(volume, trained, device, count, 0),
        tile_size or defaults["tile_size"],
        trained.network,
    )
