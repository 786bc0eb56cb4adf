"""What the pretrained network leaves out of a tomogram."""

import numpy as np
import torch

from f2fd_core.config import PRETRAINED
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.base import Perturbation
from f2fd_core.prediction.predictor import Predictor, denoised_region, inner_of, with_context
from f2fd_core.runtime.device import choose_dtype

# Longest side (voxels) of the box at the tomogram's centre that shows it.
LONGEST_SIDE = 160


def left_out_by_pretrained(volume, precision, device):
    """((first voxel, shape) of a box, what is left out of it), of a standardised tomogram.

    The pretrained network is taken in the contrast in which it leaves less of the power out.
    ``precision``: of a TrainConfig.
    """
    shape = tuple(min(side, LONGEST_SIDE) for side in volume.shape)
    box = tuple((length - side) // 2 for length, side in zip(volume.shape, shape)), shape
    device = torch.device(device)
    network, trained = checkpoint.restore(checkpoint.load(PRETRAINED), PRETRAINED)
    predictor = Predictor(network.to(device), device, choose_dtype(precision, device), 1, 1)
    source = Perturbation(volume, trained, device)
    start, size = with_context(box, volume)
    residuals = []
    for _ in range(2):
        denoised = denoised_region(
            predictor, source, start, size, 2 * trained.patch_size, trained.network
        )
        residuals.append(volume.region(*box) - denoised[inner_of(box, start)])
        network.invert()
    return box, min(residuals, key=lambda residual: np.mean(residual**2, dtype=np.float64))
