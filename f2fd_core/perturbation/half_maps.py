"""Pairs from half-maps."""

import torch

from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.perturbation.noise_matched import NoiseMatched
from f2fd_core.runtime.device import to_device
from f2fd_core.runtime.randomness import GLOBAL


class MatchedHalfMaps(NoiseMatched):
    """Noise-matched pairs (X + a n, X - n / a) of the mean X of two half-maps.

    Half their difference is noise like that of X, but independent of it. In half of the pairs this
    is n, with a random sign: it need not be Gaussian, nor the same everywhere. In the others n is
    synthetic, with the same spectrum: no two are the same, so a network can't memorise them.
    Lessons gain nothing where the noise is known so well.
    """

    independent = True

    def pairs(self, start, size, count, random=GLOBAL):
        real = torch.rand(count, generator=random.host) < 0.5
        noise = self._noise(start, size, count, random)
        if real.any():
            noise[real.to(noise.device)] = self._difference(start, size, int(real.sum()), random)
        return self.with_noise(noise, start, size)

    def independent_pairs(self, start, size, count, random=GLOBAL):
        """Those in which n is what the half-maps differ by."""
        return self.with_noise(self._difference(start, size, count, random), start, size)

    def _difference(self, start, size, count, random):
        """Half the difference of the half-maps and its negative in turn, (count, Z, Y, X)."""
        turns = torch.arange(count) + torch.randint(2, (1,), generator=random.host)
        signs = (1.0 - 2.0 * (turns % 2))[:, None, None, None]
        difference = torch.from_numpy(self.volume.difference(start, size))
        return to_device(signs * difference, self.device)


class Noise2Noise(Perturbation):
    """Noise2Noise (Lehtinen et al., ICML 2018) from one half-map to the other.

    Their noises are independent since they come from different frames or tilts. Which of them is
    the input is drawn every time. Predictions are made from their mean, which has less noise.
    """

    independent = True

    def _half(self, number, start, size):
        return to_device(torch.from_numpy(self.volume.half(number, start, size)), self.device)

    def pairs(self, start, size, count, random=GLOBAL):
        drawn = torch.randint(2, (count,), generator=random.host).tolist()
        inputs, targets = (
            torch.stack([self._half(number ^ other, start, size) for number in drawn])
            for other in (0, 1)
        )
        return Pairs(inputs, targets)
