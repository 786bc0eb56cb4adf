"""How the strength of the noise changes over a tomogram: with depth and towards the borders.

The noise is taken to be stationary noise times g(z, y, x) = gz(z) gy(y) gx(x). Windows give g: the
power at high frequencies, where there is little signal, relative to the mean over the windows.
Medians along each axis in turn (Tukey's median polish, 1977) pass over the windows with signal.
Where signal outweighs the noise in most windows, nothing can be said of g, and it is taken to be 1.
"""

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.runtime.device import to_device

LEAST_FREQUENCY = 0.15
POLISHES = 3
# Median absolute deviation of the windows' log power from the profiles: some hundredths for noise,
# whose power varies by chance alone, and more where the windows differ by their signal.
LARGEST_SPREAD = 0.2


def band(power, size):
    """The rfft-grid coefficients by which windows are compared: a boolean tensor.

    The upper half of the power, but nothing below LEAST_FREQUENCY. ``power`` is the mean over the
    windows of ``size`` (Z, Y, X).
    """
    radius = fourier.radial_frequency(size)
    order = radius.flatten().argsort()
    share = power.flatten()[order].cumsum(0) / power.sum().clamp(min=1e-30)
    middle = radius.flatten()[order][int((share < 0.5).sum().clamp(max=len(order) - 1))]
    return radius >= torch.clamp(middle, min=LEAST_FREQUENCY)


def _medians(values, groups):
    """Median of the values of each group, {group: median}."""
    return {group: np.median(values[groups == group]) for group in np.unique(groups)}


def _to_the_faces(centres, amplitudes, half):
    """A profile with its ends, ``half`` a window beyond the outermost centres: two arrays.

    There it goes on, in the logarithm, as it does between the outermost centre and the nearest one
    that is ``half`` a window or more away: the slope between closer ones is mostly chance.
    """
    ends = []
    for places, values in ((centres, amplitudes), (centres[::-1], amplitudes[::-1])):
        distance = np.abs(places - places[0])
        inner = int(np.argmax(distance >= half))
        if not inner:
            return centres, amplitudes
        ends.append(values[0] * (values[0] / values[inner]) ** (half / distance[inner]))
    first, last = ends
    return (
        np.array([centres[0] - half, *centres, centres[-1] + half]),
        np.array([first, *amplitudes, last]),
    )


class NoiseProfile:
    """Three profiles along Z, Y and X, whose product is the noise's relative amplitude.

    ``noisy``: whether noise outweighs signal in most windows.
    """

    def __init__(self, profiles=None, noisy=True):
        """``profiles``: for each axis (positions in voxels, amplitudes), two lists of floats."""
        self.profiles = profiles or [([0.0], [1.0])] * 3
        self.noisy = noisy
        self._known = {}

    @classmethod
    def measured(cls, corners, size, power):
        """From the power of windows (windows, z, y, x // 2 + 1) with first voxels ``corners``."""
        chosen = band(power.mean(0), size)
        level = power[:, chosen].sum(1).double().numpy()
        if not (level > 0).all():
            return cls()
        rest = np.log(level)
        corners = np.asarray(corners)
        logs = [dict.fromkeys(np.unique(corners[:, axis]), 0.0) for axis in range(3)]
        for _ in range(POLISHES):
            for axis in range(3):
                for group, median in _medians(rest - np.median(rest), corners[:, axis]).items():
                    logs[axis][group] += median
                    rest[corners[:, axis] == group] -= median
        if np.median(np.abs(rest - np.median(rest))) > LARGEST_SPREAD:
            return cls(noisy=False)
        profiles = []
        for axis, found in enumerate(logs):
            amplitude = np.exp(np.array(list(found.values())) / 2)
            amplitude /= np.sqrt(np.mean(amplitude**2))
            centres = np.array(list(found), dtype=float) + (size[axis] - 1) / 2
            profile = _to_the_faces(centres, amplitude, (size[axis] - 1) / 2)
            profiles.append(tuple(values.tolist() for values in profile))
        return cls(profiles)

    def at(self, start, size, device="cpu"):
        """The amplitude in a region, a tensor that broadcasts to (Z, Y, X).

        Linear between the windows' centres and the outermost windows' faces, constant beyond them.
        """
        z, y, x = (self._along(*place, device) for place in zip(range(3), start, size))
        return z[:, None, None] * y[None, :, None] * x[None, None, :]

    def _along(self, axis, first, side, device):
        """The profile of an axis from the voxel ``first`` on, for ``side`` voxels, or for one if it
        is flat. What lies between its ends is kept on the device: a copy takes a GPU long."""
        positions, amplitudes = self.profiles[axis]
        length = int(positions[-1]) + 1
        if length == 1:
            first, side = 0, 1

        def at(places):
            return to_device(
                torch.from_numpy(np.interp(places, positions, amplitudes).astype(np.float32)),
                device,
            )

        if not 0 <= first <= length - side:
            return at(np.arange(first, first + side))
        known = self._known.get((axis, str(device)))
        if known is None:
            known = self._known[axis, str(device)] = at(np.arange(length))
        return known[first : first + side]

    def of_windows(self, corners, size):
        """Mean power gain of each window under its Hann taper: tensor (windows, 1, 1, 1)."""
        gain = np.ones(len(corners))
        for first, side, profile in zip(np.asarray(corners).T, size, self.profiles):
            weights = torch.hann_window(side, periodic=True, dtype=torch.float64).square().numpy()
            places = first[:, None] + np.arange(side)
            gain = gain * (np.square(np.interp(places, *profile)) @ (weights / weights.sum()))
        return torch.from_numpy(gain.astype(np.float32))[:, None, None, None]
