"""Power and cross-power by Fourier shell of what a tomogram's parts hold."""

import math

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.noise import periodogram

# Side (voxels) of the windows that are transformed.
WINDOW = 64
# What is added by other modules: the tomogram, half the difference of its half-maps, and a little
# noise.
TOMOGRAM = "tomogram"
DIFFERENCE = "difference"
PROBE = "probe"


class Shells:
    """Sums by Fourier shell, over the parts of a tomogram.

    ``shells[name]`` is what :meth:`add` has added under this name, an array by shell. Attributes:
    ``size`` of the arrays that are transformed (Z, Y, X), ``frequencies`` of the shells in cycles
    per voxel, the ``count`` of coefficients in each, and how many ``parts`` there were.
    """

    def __init__(self, size, highest):
        """``highest``: the frequency (cycles per voxel) from which on nothing is measured."""
        self.size, self.parts = tuple(size), 0
        self.grid = fourier.grid_of(self.size)
        self._kept = self.grid.frequencies < highest
        self.frequencies = self.grid.frequencies[self._kept].numpy()
        self.count = self._by_shell(torch.ones_like(self.grid.radius))
        self._sums = {}

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
        self.parts += 1

    def __getitem__(self, pair):
        return self._sums[pair]

    def response(self, name):
        """How much of the probe, a little noise, a result passes, by shell."""
        return self[name + " response", PROBE] / np.maximum(self[PROBE, PROBE], fourier.TINY)

    def known_noise(self):
        """The power of the noise by shell if there are half-maps, else None."""
        return self._sums.get((DIFFERENCE, DIFFERENCE))


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
