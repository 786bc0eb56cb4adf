"""The ways to make pairs of noisy copies of a tomogram.

A perturbation belongs to one tomogram and gives regions of its perturbed copies: ``pairs`` for
training (:class:`~f2fd_core.perturbation.base.Pairs`), ``copies`` for prediction (inputs only).
``at_step`` brings it to its state at a training step. Random numbers come from the
:class:`~f2fd_core.runtime.randomness.Randomness` given, by default from PyTorch's own generators.
"""

from f2fd_core.config import UserError, unperturbed
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.perturbation.base import Perturbation
from f2fd_core.perturbation.fourier_masks import FourierMasks
from f2fd_core.perturbation.half_maps import MatchedHalfMaps, Noise2Noise
from f2fd_core.perturbation.noise_matched import NoiseMatched
from f2fd_core.perturbation.real_space import Noise2Void, Self2Self
from f2fd_core.runtime.randomness import Stream

KINDS = {
    "noise_matched": NoiseMatched,
    "fourier_masks": FourierMasks,
    "self2self": Self2Self,
    "noise2void": Noise2Void,
    "noise2noise": Noise2Noise,
}


def perturbation_for_training(volume, config, device):
    """The perturbation that a TrainConfig asks for.

    Raises UserError for blocks of Fourier coefficients that are larger than the volume.
    """
    if config.perturbation == "fourier_masks" and config.block_size > min(volume.shape):
        raise UserError(
            f"--block-size is {config.block_size}; expected at most "
            f"{min(volume.shape)}, the shortest side of {volume.source.path}"
        )
    kind = KINDS[config.perturbation]
    if kind is NoiseMatched and isinstance(volume, HalfMaps):
        kind = MatchedHalfMaps
    return kind(volume, config, device)


def perturbation_for_prediction(volume, config, device, predictions, pool_size):
    """The same for so many ``predictions``: ``config`` is the model's, the pool is a fresh one."""
    if unperturbed(config, predictions):
        return Perturbation(volume, config, device)
    if config.perturbation == "fourier_masks":
        return FourierMasks(volume, config, device, pool_size, Stream.PREDICTION_COPIES)
    return perturbation_for_training(volume, config, device)
