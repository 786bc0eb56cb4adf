"""The default: noise-matched pairs."""

import math
import weakref

import torch

from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.regions import crop, source_box
from f2fd_core.noise import NoiseSettings, estimate_noise, noise_of_half_maps
from f2fd_core.noise.spectrum import filled_share
from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.perturbation.left_out import PretrainedOn
from f2fd_core.runtime.randomness import GLOBAL

# The noise scale where there are enough Fourier coefficients of noise.
USUAL_SCALE = 0.75
# The largest noise scale.
LARGEST_SCALE = 1.0
# So many Fourier coefficients are enough.
ENOUGH_VALUES = 4.8e5

# {volume: {what was asked: NoiseModel}}, as long as there is the volume.
_KNOWN: "weakref.WeakKeyDictionary" = weakref.WeakKeyDictionary()


def noise_of(volume, config, device, settings=None):
    """The NoiseModel of a volume: read off its half-maps, if it has some; else by what the
    pretrained network leaves out.

    ``config``: of a training; ``settings``: NoiseSettings, by default those that it asks for. A
    volume that is asked for again is not measured again.
    """
    settings = settings or NoiseSettings(profile=config.noise_profile)
    known = _KNOWN.setdefault(volume, {})
    asked = settings, config.precision, str(device)
    if asked not in known:
        known[asked] = _measured(volume, config, device, settings)
    return known[asked]


def _measured(volume, config, device, settings):
    if isinstance(volume, HalfMaps):
        return noise_of_half_maps(volume, settings, device)
    network = PretrainedOn(volume, config.precision, device)
    return estimate_noise(volume, network, settings, device)


class NoiseMatched(Perturbation):
    """Noise-matched pairs (X + a n, X - n / a), n synthetic noise of the tomogram's own spectrum.

    If X = S + m with Gaussian noise m of that spectrum, the noises of the pair, m + a n and
    m - n / a, are uncorrelated, so training from one to the other is Noise2Noise although only
    one X exists (Recorrupted-to-Recorrupted, Pang et al., CVPR 2021, in Fourier space). n is
    stationary noise times a smooth profile, so it is made region by region: nothing of the
    tomogram's size is held.
    """

    def __init__(self, volume, config, device="cpu", noise=None):
        """``noise``: a :class:`~f2fd_core.noise.NoiseModel`; None: estimated here."""
        super().__init__(volume, config, device)
        self.noise = noise or noise_of(volume, config, device)
        self.lowered = torch.ones_like(self.noise.lower)
        automatic = self._automatic_scale()
        self.scale = config.noise_scale or automatic
        self.haste = (LARGEST_SCALE - automatic) / (LARGEST_SCALE - USUAL_SCALE)

    def _automatic_scale(self):
        """The noise scale that suits a training on as many tomograms like this as there were.

        The fewer Fourier coefficients of noise there are, the sooner a network overfits, and the
        less a fast start of the training suits it (docs/method.md has what was measured).
        """
        count = len(self.config.tomograms) or len(self.config.half_maps) // 2
        values = (
            math.prod(self.volume.shape)
            * max(count, 1)
            * filled_share(self.noise.power, self.noise.window)
        )
        return min(
            max(USUAL_SCALE * (ENOUGH_VALUES / max(values, 1)) ** (1 / 3), USUAL_SCALE),
            LARGEST_SCALE,
        )

    def state_dict(self):
        """What :meth:`load_state_dict` restores: by how much the noise was lowered."""
        return {"lowered": self.lowered}

    def load_state_dict(self, state):
        """Take it over; raises ValueError for what is no such state. Those of earlier versions hold
        a noise, which is estimated otherwise by now: of them nothing is taken."""
        if "power" in state:
            return
        lowered = state["lowered"]
        if lowered.shape != self.lowered.shape:
            raise ValueError(f"noise lowered in {len(lowered)} shells, not {len(self.lowered)}")
        self.lower(lowered / self.lowered)

    def lower(self, factors):
        """Multiply the noise's power by these ``factors``, one a Fourier shell."""
        self.lowered = self.lowered * factors
        self.noise = self.noise.scaled(factors)

    def _noise(self, start, size, count, random):
        """Synthetic noise, beyond the volume's faces reflected as the volume is: else the noise of
        a voxel and of its mirror image, which are the same in X, would not be in n."""
        corner, extent = source_box(start, size, self.volume.shape)
        noise = self.noise.sample(corner, extent, count, random, self.device)
        return crop(noise, [first - at for first, at in zip(start, corner)], size)

    def pairs(self, start, size, count, random=GLOBAL):
        noise = self._noise(start, size, count, random)
        return self.with_noise(noise, start, size)._replace(scale=self.scale)

    def with_noise(self, noise, start, size):
        """The pairs that ``noise`` (count, Z, Y, X) makes of a region."""
        region = self._region(start, size)
        return Pairs(region + self.scale * noise, region - noise / self.scale)

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """``count`` perturbed copies of a region, (count, Z, Y, X)."""
        return self._region(start, size) + self.scale * self._noise(start, size, count, random)
