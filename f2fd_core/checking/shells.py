"""Power and cross-power by Fourier shell of what a tomogram's parts hold."""

import math

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.noise import periodogram

# Side (voxels) of the windows that are transformed.
WINDOW = 64
# The mean of a Hann taper's fourth power over the square of that of its second: the variance of the
# mean power of tapered noise over that of as much noise without a taper, along each axis.
HANN_SPREAD = 35 / 18
# What is added by other modules: the tomogram, half the difference of its half-maps, and a little
# noise.
TOMOGRAM = "tomogram"
DIFFERENCE = "difference"
PROBE = "probe"


class Shells:
    """Sums by Fourier shell, over the parts of a tomogram.

    ``shells[name]`` is what :meth:`add` has added under this name, an array by shell. Attributes:
    ``size`` of the arrays that are transformed (Z, Y, X), ``frequencies`` of the shells in cycles
    per voxel, and the ``count`` of coefficients in each.
    """

    # So many neighbouring coefficients are one by chance.
    alike = 1.0

    def __init__(self, size, highest):
        """``highest``: the frequency (cycles per voxel) from which on nothing is measured."""
        self.size = tuple(size)
        self.grid = fourier.grid_of(self.size)
        self._kept = self.grid.frequencies < highest
        self.frequencies = self.grid.frequencies[self._kept].numpy()
        self.count = self._by_shell(torch.ones_like(self.grid.radius))
        self._sums = {}
        self._chance = 0.0

    def _spectra(self, arrays):
        """Yields ({name: spectra (windows, z, y, x)}, weight of each window) of a part."""
        raise NotImplementedError

    def _by_shell(self, values):
        return self.grid.sums(values)[self._kept].numpy()

    def add(self, arrays, pairs):
        """Add what two arrays (Z, Y, X) of a part, named ``{name: array}``, have in common, for all
        the ``pairs`` (name, name)."""
        for spectra, share in self._spectra(arrays):
            for one, other in pairs:
                cross = (spectra[one] * spectra[other].conj()).real.sum(0) * share
                self._sums[one, other] = self._sums.get((one, other), 0) + self._by_shell(cross)
            if DIFFERENCE in spectra:
                # The power of a coefficient of noise has the mean P and the variance P², and the
                # mean of its square is 2 P²; each is here twice, and in two sums.
                squares = spectra[DIFFERENCE].abs().pow(4).sum(0) * share**2
                self._chance = self._chance + 2 * self.alike * self._by_shell(squares)

    def __getitem__(self, pair):
        return self._sums[pair]

    def response(self, name):
        """How much of the probe, a little noise, a result passes, by shell."""
        return self[name + " response", PROBE] / np.maximum(self[PROBE, PROBE], fourier.TINY)

    def known_noise(self):
        """The power of the noise by shell if there are half-maps, else None."""
        return self._sums.get((DIFFERENCE, DIFFERENCE))

    def chance(self):
        """By shell, the variance of the power of a tomogram's noise less that of the half-maps'."""
        return self._chance


class Whole(Shells):
    """Of the parts as they are: their sums over all shells are those over all voxels."""

    def __init__(self, shape, nyquist=0.5):
        """``nyquist``: that of the tomogram, see
        :class:`~f2fd_core.data.volume.Standardised`."""
        # The corners of the spectrum's cube, too, with the shell that they end in.
        super().__init__(shape, math.sqrt(3) * nyquist + 1 / min(shape))

    def _spectra(self, arrays):
        def spectrum(array):
            values = torch.from_numpy(np.ascontiguousarray(array, np.float32))
            return torch.fft.rfftn(values - values.mean(), norm="ortho")[None]

        yield {name: spectrum(array) for name, array in arrays.items()}, 1


class Windowed(Shells):
    """Means over tapered windows, up to Nyquist (Welch's method): curves that no face disturbs."""

    alike = HANN_SPREAD**3

    def __init__(self, shape, nyquist=0.5):
        """``shape`` (Z, Y, X) of a part; all parts have the same."""
        super().__init__(periodogram.window_size(shape, WINDOW, periodogram.FEW_WINDOWS), nyquist)
        self.corners = periodogram.window_corners(shape, self.size)

    def _spectra(self, arrays):
        def region_of(array):
            return lambda start, size: array[
                tuple(slice(at, at + side) for at, side in zip(start, size))
            ]

        for some in periodogram.some_windows(self.corners, self.size):
            yield (
                {
                    name: periodogram.windowed_spectra(
                        region_of(array), self.corners[some], self.size, "cpu"
                    )
                    for name, array in arrays.items()
                },
                1 / len(self.corners),
            )
