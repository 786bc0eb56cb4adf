"""How the noise of a tomogram is known: power spectrum, profile in space, interval, and samples.

``periodogram`` (Welch's method) -> ``profile`` (strength in space) -> ``spectrum`` (noise
separated from signal) -> ``model``, which combines them and draws samples.
"""

from f2fd_core.noise.model import NoiseModel, axes_of_volume, estimate_noise, noise_of_half_maps
from f2fd_core.noise.profile import NoiseProfile
from f2fd_core.noise.settings import NoiseSettings
from f2fd_core.noise.spectrum import Spectrum

__all__ = [
    "NoiseModel",
    "NoiseProfile",
    "NoiseSettings",
    "Spectrum",
    "axes_of_volume",
    "estimate_noise",
    "noise_of_half_maps",
]
