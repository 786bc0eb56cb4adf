"""What the pretrained network leaves out of a tomogram, and how it responds to noise."""

import numpy as np
import torch

from f2fd_core.config import PRETRAINED
from f2fd_core.data.regions import crop
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.base import Perturbation
from f2fd_core.prediction.predictor import Predictor, denoised_region, inner_of, with_context
from f2fd_core.runtime.device import choose_dtype, to_device

# Longest side (voxels) of the box at the tomogram's centre that shows it.
LONGEST_SIDE = 160


class WithMore(Perturbation):
    """A tomogram to which an array is added, which begins at the voxel ``first``."""

    def __init__(self, volume, config, device, first, added):
        super().__init__(volume, config, device)
        self.first, self.added = first, added

    def _region(self, start, size):
        added = crop(self.added, [at - first for at, first in zip(start, self.first)], size)
        return super()._region(start, size) + to_device(torch.from_numpy(added), self.device)


class PretrainedOn:
    """The pretrained network on a standardised tomogram, in the contrast in which it leaves less of
    the power out.

    Attributes: ``box`` (first voxel, shape) at the tomogram's centre; ``around``, the same of what
    the network sees of it; ``left_out`` of the box, an array (Z, Y, X).
    """

    def __init__(self, volume, precision, device):
        """``precision``: of a TrainConfig."""
        self.volume, self.device = volume, torch.device(device)
        shape = tuple(min(side, LONGEST_SIDE) for side in volume.shape)
        self.box = tuple((length - side) // 2 for length, side in zip(volume.shape, shape)), shape
        self.around = with_context(self.box, volume)
        network, self.trained = checkpoint.restore(checkpoint.load(PRETRAINED), PRETRAINED)
        dtype = choose_dtype(precision, self.device)
        self.predictor = Predictor(network.to(self.device), self.device, dtype, 1, 1)
        there, source = volume.region(*self.box), Perturbation(volume, self.trained, self.device)
        residuals = [there - self._denoised(source)]
        network.invert()
        residuals.append(there - self._denoised(source))
        usual, inverted = (np.mean(residual**2, dtype=np.float64) for residual in residuals)
        if usual <= inverted:
            network.invert()
        self.left_out = residuals[int(inverted < usual)]

    def _denoised(self, source):
        first, size = self.around
        denoised = denoised_region(
            self.predictor, source, first, size, 2 * self.trained.patch_size, self.trained.network
        )
        return denoised[inner_of(self.box, first)]

    def left_out_with(self, added):
        """What it leaves out of the box if an array is added to all that it sees."""
        first, _ = self.around
        source = WithMore(self.volume, self.trained, self.device, first, added)
        added = added[inner_of(self.box, first)]
        return self.volume.region(*self.box) + added - self._denoised(source)
