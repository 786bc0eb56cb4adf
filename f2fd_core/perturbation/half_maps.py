"""Pairs from half-maps."""

import torch

from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.runtime.device import to_device
from f2fd_core.runtime.randomness import GLOBAL


class Noise2Noise(Perturbation):
    """Noise2Noise (Lehtinen et al., ICML 2018) from one half-map to the other.

    Their noises are independent since they come from different frames or tilts. Which of them is
    the input is drawn every time; the prediction takes them in turn.
    """

    def _half(self, number, start, size):
        return to_device(torch.from_numpy(self.volume.half(number, start, size)), self.device)

    def pairs(self, start, size, count, random=GLOBAL):
        drawn = torch.randint(2, (count,), generator=random.host).tolist()
        inputs, targets = (
            torch.stack([self._half(number ^ other, start, size) for number in drawn])
            for other in (0, 1)
        )
        return Pairs(inputs, targets)

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """The odd and the even half-map in turn, (count, Z, Y, X)."""
        return torch.stack(
            [self._half((first + number) % 2, start, size) for number in range(count)]
        )
