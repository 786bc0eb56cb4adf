"""What the ways to make pairs have in common."""

import copy
from typing import NamedTuple, Optional

import torch

from f2fd_core.config import unperturbed
from f2fd_core.runtime.device import to_device
from f2fd_core.runtime.randomness import GLOBAL


class Pairs(NamedTuple):
    """Inputs and targets of one region, each (count, Z, Y, X).

    ``weights``, of the same shape, are the voxels' weights in the loss; None: all alike.
    ``scale``: the noise scale a of pairs (X + a n, X - n / a), n synthetic noise, some of which
    become lessons (see :mod:`f2fd_core.training.teaching`); None: of others.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: Optional[torch.Tensor] = None
    scale: Optional[float] = None


class Perturbation:
    """What perturbations have in common; by itself, for prediction from the tomogram as it is.

    ``haste``: how much of a fast start of the training its noise is enough for, 0 to 1; ``judged``:
    whether a network that learns from its pairs is judged by how well it denoises; ``independent``:
    whether the noises of an input and its target are known to be independent.
    """

    haste, judged, independent = 1.0, True, False

    def __init__(self, volume, config, device="cpu"):
        """``volume``: a :class:`~f2fd_core.data.volume.Standardised`; ``config``: a TrainConfig."""
        self.volume, self.config, self.device = volume, config, device

    @property
    def axes(self):
        """How the tomogram lies, see :class:`~f2fd_core.data.volume.Standardised`."""
        return self.volume.axes

    def _region(self, start, size):
        return to_device(torch.from_numpy(self.volume.region(start, size)), self.device)

    def pairs(self, start, size, count, random=GLOBAL):
        """``count`` :class:`Pairs` of a region for the training."""
        raise NotImplementedError

    def independent_pairs(self, start, size, count, random=GLOBAL):
        """Pairs by which a network is judged: the ``independent`` ones."""
        return self.pairs(start, size, count, random)

    def at_step(self, step):
        """Nothing to prepare: every draw is new."""

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """The region itself, ``count`` times, as the network's input, (count, Z, Y, X).

        ``first``: how many the prediction has had before.
        """
        return self._region(start, size).expand(count, *size)

    def copies_of_itself(self, start, size):
        """The region as it is, (1, Z, Y, X)."""
        return self._region(start, size)[None]

    def for_prediction(self, predictions):
        """What so many predictions are made from: this, or the tomogram as it is."""
        if unperturbed(self.config, predictions):
            return Perturbation(self.volume, self.config, self.device)
        return self

    def on(self, device):
        """The same perturbation with its results on another device."""
        other = copy.copy(self)
        other.device = device
        return other
