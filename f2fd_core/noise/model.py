"""The noise of one tomogram, as it is known, and samples of it."""

import math

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.noise import periodogram
from f2fd_core.noise.orientation import axes_of
from f2fd_core.noise.profile import NoiseProfile
from f2fd_core.noise.settings import DEFAULT
from f2fd_core.noise.spectrum import Spectrum, by_shell, level_left_out, noise_left_out
from f2fd_core.runtime.randomness import Randomness, Stream

# Side (voxels) of the windows that measure the noise's profile.
PROFILE_WINDOW = 16
# How many of them at most.
PROFILE_WINDOWS = 8192
# Windows count that have so much of a tomogram that is not constant as the fullest one.
FULL = 0.9
# Matter is looked for at these frequencies (cycles per voxel).
MATTER = (0.02, 0.3)
# A slab without matter has no more than so many times the noise in any of their shells.
NOISE_ALONE = 1.3
# The volume has more than so many times the noise in them, on average.
WITH_MATTER = 1.5
# Slabs without matter count if they have so many windows.
LEAST_EMPTY = 8
# Less than this share of the power is hardly any noise: the correlation with the signal is 0.99.
NO_NOISE = 0.02
# So much noise is added to see how much of it a network removes.
MORE = 0.3
# How many windows show how a volume lies.
ORIENTATION_WINDOWS = 64


class NoiseModel:
    """Gaussian noise with a power spectrum, the strength of which may change in space.

    Attributes: ``window`` (Z, Y, X), on whose rfft grid ``power`` and the mean ``total`` power of
    noise and signal are; ``lower`` and ``upper``, by Fourier shell of that grid, what the noise may
    be (see :class:`~f2fd_core.noise.spectrum.Spectrum`): ``power`` errs on the low side where
    signal and noise can't be separated; ``profile``; ``matter_free``, the share of the volume that
    has no matter. Power is in squares of the volume's standard deviation.
    """

    def __init__(self, window, spectrum, total, profile=None, matter_free=0.0):
        self.window, self.total, self.profile = tuple(window), total, profile or NoiseProfile()
        self.power, self.lower, self.upper = spectrum
        self.matter_free = matter_free
        self._amplitudes = {}

    def scaled(self, factors):
        """The same with the power of each Fourier shell times one of ``factors``."""
        grid = fourier.grid_of(self.window)
        power = self.power * factors[grid.shell].float()
        lower = torch.minimum(self.lower, grid.ratio(power, torch.ones_like(power)))
        return NoiseModel(
            self.window,
            Spectrum(power, lower, self.upper),
            self.total,
            self.profile,
            self.matter_free,
        )

    def sample(self, start, size, count, random, device):
        """Noise for the region of ``size`` at ``start`` (Z, Y, X): (count, Z, Y, X), float32."""
        box = fourier.synthesis_shape(size)
        key = (box, str(device))
        if key not in self._amplitudes:
            power = fourier.resample_power(self.power, self.window, box)
            self._amplitudes[key] = power.sqrt().to(device)
        noise = fourier.synthesise(self._amplitudes[key], box, size, count, random.device)
        return noise * self.profile.at(start, size, device)

    def by_shell(self):
        """{name: list} by Fourier shell: frequency (cycles per voxel), noise, lower, upper, total;
        up to Nyquist."""
        grid = fourier.grid_of(self.window)
        noise, total = (by_shell(power, self.window) for power in (self.power, self.total))
        shells = grid.frequencies < 0.5
        return {
            name: values[shells].tolist()
            for name, values in (
                ("frequency", grid.frequencies),
                ("noise", noise),
                ("lower", self.lower),
                ("upper", self.upper),
                ("total", total),
            )
        }

    def share_at(self, frequencies, name="noise"):
        """The noise, or its lower or upper limit, as a share of all power, 0 to 1, at other
        ``frequencies`` than those of :meth:`by_shell`."""
        known = self.by_shell()
        share = np.array(known[name]) / np.maximum(known["total"], fourier.TINY)
        at = np.interp(frequencies, known["frequency"], share.clip(max=1))
        return torch.from_numpy(at)

    def shares(self):
        """Noise, and the least and the most that it may be, as shares of all power, 0 to 1."""
        grid = fourier.grid_of(self.window)
        count = grid.sums(torch.ones_like(self.power))
        noise = float((self.power * grid.weights).sum())
        lower, upper = (float((values * count).sum()) for values in (self.lower, self.upper))
        whole = float((self.total * grid.weights).sum()) or 1.0
        return noise / whole, lower / whole, min(upper / whole, 1.0)

    def hardly_any(self):
        """Whether there is hardly any noise that could be told from signal."""
        return self.shares()[0] < NO_NOISE

    def describe(self):
        """A sentence on how much of the tomogram is noise, and how well that is known."""
        noise, lower, upper = self.shares()
        place = "no place without matter was found"
        if self.matter_free:
            place = f"{100 * self.matter_free:.0f} % of the volume have no matter"
        return (
            f"noise is {100 * noise:.0f} % of the power "
            f"({100 * lower:.0f} to {100 * upper:.0f} %); {place}"
        )


def estimate_noise(volume, network, settings=DEFAULT, device="cpu"):
    """The :class:`NoiseModel` of a standardised volume (``shape``, ``region(start, size)``,
    ``content(start, size)``) by what a network that has learned to denoise elsewhere makes of it.

    ``network``: see :class:`~f2fd_core.perturbation.left_out.PretrainedOn`.
    """
    profile = _profile(volume, volume.region, settings, device)
    box = network.box
    window = periodogram.window_size(box[1], settings.window)
    (rest, _), (power, corners) = (
        _periodograms(volume, region, window, profile, device, box)
        for region in (regions_of(network.left_out, box[0]), volume.region)
    )
    total = power.mean(0)
    level = level_left_out(rest, total, window, settings)
    shells = by_shell(level, window)
    removed = torch.ones_like(shells)
    if settings.removed:
        seen = NoiseModel(window, Spectrum(level, shells, shells), total, profile)
        removed = _removed_share(seen, network, corners)
    spectrum = noise_left_out(level, rest.mean(0), removed, total, window, settings)
    matter_free = 0.0
    if settings.matter_free:
        if box[1] != volume.shape:
            power, corners = _periodograms(volume, volume.region, window, profile, device)
        empty = without_matter(power, corners, spectrum.power, window)
        if empty.any():
            spectrum = _of_noise_alone(power[empty], window)
            matter_free = float(empty.float().mean())
    return NoiseModel(window, spectrum, total, profile, matter_free)


def regions_of(values, first):
    """The function ``region(start, size)`` of an array that begins at the voxel ``first``."""

    def region(start, size):
        return values[tuple(slice(a - b, a - b + c) for a, b, c in zip(start, first, size))]

    return region


def _removed_share(noise, network, corners):
    """What share of the noise a network removes, by shell, from how what it leaves out of its box
    answers to a little more ``noise`` (a NoiseModel)."""
    (first, _), (start, size) = network.box, network.around
    random = Randomness.of("cpu", 0, Stream.PROBE)
    more = MORE * noise.sample(start, size, 1, random, "cpu")[0].numpy()
    answer = regions_of(network.left_out_with(more) - network.left_out, first)
    more = regions_of(more, start)
    common, alone = (
        periodogram.periodograms(more, corners, noise.window, other).mean(0)
        for other in (answer, None)
    )
    return fourier.grid_of(noise.window).ratio(common, alone).clamp(0, 1)


def _of_noise_alone(power, window):
    """The Spectrum by the power of windows without signal."""
    mean = power.mean(0)
    level, wrong = by_shell(mean, window), 1 / math.sqrt(len(power))
    return Spectrum(mean, level * max(0, 1 - wrong), level * (1 + wrong))


def axes_of_volume(volume, settings=DEFAULT):
    """How a standardised volume lies, see :func:`~f2fd_core.noise.orientation.axes_of`."""
    window = periodogram.window_size(volume.shape, settings.window)
    corners = periodogram.window_corners(volume.shape, window, ORIENTATION_WINDOWS)
    return axes_of(periodogram.periodograms(volume.region, corners, window).mean(0), window)


def noise_of_half_maps(volume, settings=DEFAULT, device="cpu"):
    """The :class:`NoiseModel` of the mean of two half-maps: their halved difference is such noise,
    without signal. ``volume``: a :class:`~f2fd_core.data.half_maps.HalfMaps`."""
    profile = _profile(volume, volume.difference, settings, device)
    window = periodogram.window_size(volume.shape, settings.window)
    noise, total = (
        _periodograms(volume, region, window, profile, device)[0].mean(0)
        for region in (volume.difference, volume.region)
    )
    level = by_shell(noise, window)
    return NoiseModel(window, Spectrum(noise, level, level), total, profile)


def _profile(volume, region, settings, device):
    """The NoiseProfile of a volume's ``region``, flat if it is not to be measured."""
    if not settings.profile:
        return NoiseProfile()
    size = periodogram.window_size(volume.shape, PROFILE_WINDOW)
    corners, power = _full_windows(volume, region, size, PROFILE_WINDOWS, device)
    return NoiseProfile.measured(corners, size, power)


def _full_windows(volume, region, size, maximum, device, box=None):
    """(first voxels, power) of windows in a ``box`` (first voxel, shape) of the volume, in all of
    it without one, but for those of which much is a constant part."""
    first, shape = box or ((0, 0, 0), volume.shape)
    corners = [
        tuple(at + offset for at, offset in zip(first, corner))
        for corner in periodogram.window_corners(shape, size, maximum)
    ]
    content = torch.tensor([volume.content(corner, size) for corner in corners])
    full = content >= FULL * content.max()
    corners = [corner for corner, kept in zip(corners, full) if kept]
    power = periodogram.periodograms(region, corners, size, device=device)
    return corners, power / content[full][:, None, None, None]


def _periodograms(volume, region, window, profile, device, box=None):
    """(power of the windows, as where the profile is 1, first voxels)."""
    corners, power = _full_windows(volume, region, window, periodogram.MAXIMUM_WINDOWS, device, box)
    power /= profile.of_windows(corners, window)
    return power, corners


def without_matter(power, corners, noise, size):
    """Which windows lie in slabs without matter, above, below or beside the specimen.

    ``power`` of the windows at ``corners``, the ``noise`` as estimated. Boolean tensor (windows).
    A slab is all windows of one position along an axis; it counts, with those between it and the
    volume's face, if in no shell it has more power than noise has, while the volume has.
    """
    grid = fourier.grid_of(size)
    shells = (grid.frequencies >= MATTER[0]) & (grid.frequencies < MATTER[1])
    shells[0] = False  # the mean, in small windows

    def excess(mean):
        return grid.ratio(mean, noise)[shells]

    places = torch.tensor(corners)
    empty = torch.zeros(len(power), dtype=torch.bool)
    if not shells.any() or excess(power.mean(0)).mean() < WITH_MATTER:
        return empty
    for axis in range(3):
        positions = places[:, axis].unique().tolist()
        for order in (positions, positions[::-1]):
            for position in order:
                slab = places[:, axis] == position
                if excess(power[slab].mean(0)).max() > NOISE_ALONE:
                    break
                empty |= slab
    return empty if empty.sum() >= LEAST_EMPTY else torch.zeros_like(empty)
