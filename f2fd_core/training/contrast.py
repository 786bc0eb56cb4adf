"""Whether matter is dark or bright in a tomogram, as it was where a network has learned."""

import contextlib

import numpy as np

from f2fd_core.config import START_PERTURBATIONS
from f2fd_core.data.patches import all_patches
from f2fd_core.perturbation.noise_matched import NoiseMatched
from f2fd_core.runtime import console
from f2fd_core.training.validation import ValidationCubes

# Patches that are compared.
PATCHES = 8
# The share of the power that the inverted network has to explain.
EXPLAINED = 0.01
# How much more it has to explain than the network itself, as a share of that.
MORE_EXPLAINED = 0.03


def is_opposite(network, volume, config, device, dtype):
    """Whether a network, trained as the TrainConfig ``config`` says, suits a standardised tomogram
    clearly better inverted, by Stein's estimate of the error in some patches.

    False for networks that can't be inverted, or that have not learned to denoise whole patches.
    """
    if not hasattr(network, "invert") or config.perturbation not in START_PERTURBATIONS:
        return False
    perturbation = NoiseMatched(volume, config, device)
    patches = all_patches([volume.shape], config.patch_size)
    chosen = np.linspace(0, len(patches) - 1, min(len(patches), PATCHES)).round().astype(int)
    cubes = ValidationCubes(
        [volume.shape], [patches[number] for number in chosen], config.patch_size, config.seed
    )
    gains = []
    for _ in range(2):
        found = cubes.validate(network, [perturbation], device, dtype, everywhere=True)
        gains.append((found.power - found.loss) / max(found.power, 1e-30))
        network.invert()
    as_it_is, inverted = gains
    return inverted > EXPLAINED and inverted - as_it_is > MORE_EXPLAINED * inverted


@contextlib.contextmanager
def in_contrast(networks, volume, config, device, dtype, silent=False):
    """Within the context the ``networks``, copies of one, are inverted, if the tomogram's contrast
    is not that of those they have learned from; yields whether it is not. See :func:`is_opposite`.

    ``silent``: without a warning.
    """
    opposite = is_opposite(networks[0], volume, config, device, dtype)
    if opposite and not silent:
        console.warn(
            f"{volume.source.path} has the opposite contrast of what the model has "
            "learned from (matter is bright in one and dark in the other); the network "
            "is inverted for it"
        )
    try:
        for network in networks * opposite:
            network.invert()
        yield opposite
    finally:
        for network in networks * opposite:
            network.invert()
