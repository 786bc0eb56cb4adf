"""The noise of one tomogram, as it is known, and samples of it."""

import math

import torch

from f2fd_core import fourier
from f2fd_core.noise import periodogram
from f2fd_core.noise.orientation import axes_of
from f2fd_core.noise.profile import NoiseProfile
from f2fd_core.noise.settings import DEFAULT
from f2fd_core.noise.spectrum import (
    Spectrum,
    band_end,
    censored_exponential_mean,
    noise_and_signal,
    noise_left_out,
)

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
# What is left out is noise of another form if it is so many times the noise by its form. Where the
# form is right it is 1.07 times at most, in 46 simulated tomograms and 45 boxes of a real cell.
CLEARLY_MORE = 1.1
# How many windows show how a volume lies.
ORIENTATION_WINDOWS = 64


class NoiseModel:
    """Gaussian noise with a power spectrum, the strength of which may change in space.

    Attributes: ``window`` (Z, Y, X), on whose rfft grid ``power`` and the mean ``total`` power of
    noise and signal are; ``lower`` and ``upper``, by Fourier shell of that grid, what the noise may
    be (see :class:`~f2fd_core.noise.spectrum.Spectrum`), and ``expected``, what it most likely is:
    ``power`` errs on the low side where signal and noise can't be separated; ``profile``;
    ``matter_free``, the share of the volume that has no matter; ``by_network``, whether the noise
    is known by what a network leaves out. Power is in squares of the volume's standard deviation.
    """

    def __init__(
        self, window, spectrum, total, profile=None, matter_free=0.0, unfaded=None, by_network=False
    ):
        """``unfaded``: the expected power on the rfft grid; None: that of the ``spectrum``."""
        self.window, self.total, self.profile = tuple(window), total, profile or NoiseProfile()
        self.power, self.lower, self.upper = spectrum
        self.matter_free, self.by_network = matter_free, by_network
        self.unfaded = self.power if unfaded is None else unfaded
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
            self.unfaded * factors[grid.shell].float(),
            self.by_network,
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
        """{name: list} by Fourier shell: frequency (cycles per voxel), noise, expected, lower,
        upper, total; up to Nyquist."""
        grid = fourier.grid_of(self.window)
        noise, expected, total = (
            grid.ratio(power, torch.ones_like(power))
            for power in (self.power, self.unfaded, self.total)
        )
        shells = grid.frequencies < 0.5
        return {
            name: values[shells].tolist()
            for name, values in (
                ("frequency", grid.frequencies),
                ("noise", noise),
                ("expected", expected),
                ("lower", self.lower),
                ("upper", self.upper),
                ("total", total),
            )
        }

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
        if self.by_network:
            place = "its form is not known"
        elif self.matter_free:
            place = f"{100 * self.matter_free:.0f} % of the volume have no matter"
        return (
            f"noise is {100 * noise:.0f} % of the power "
            f"({100 * lower:.0f} to {100 * upper:.0f} %); {place}"
        )


def estimate_noise(volume, settings=DEFAULT, device="cpu"):
    """The :class:`NoiseModel` of a standardised volume (``shape``, ``region(start, size)``,
    ``content(start, size)``, ``nyquist``)."""
    return _estimated(volume, volume.region, settings, device, signal=True)


def axes_of_volume(volume, settings=DEFAULT):
    """How a standardised volume lies, see :func:`~f2fd_core.noise.orientation.axes_of`."""
    window = periodogram.window_size(volume.shape, settings.window)
    corners = periodogram.window_corners(volume.shape, window, ORIENTATION_WINDOWS)
    power = periodogram.periodograms(volume.region, corners, window).mean(0)
    return axes_of(power, window, band_end(power, window, settings.lowest_frequency))


def noise_of_half_maps(volume, settings=DEFAULT, device="cpu"):
    """The :class:`NoiseModel` of the mean of two half-maps: their halved difference is such noise,
    without signal. ``volume``: a :class:`~f2fd_core.data.half_maps.HalfMaps`."""
    model = _estimated(volume, volume.difference, settings, device, signal=False)
    model.total = _periodograms(volume, volume.region, model.window, model.profile, device)[1]
    return model


def noise_by_network(volume, box, left_out, known, settings=DEFAULT, device="cpu"):
    """The :class:`NoiseModel` of a volume by what a network that has learned to denoise elsewhere
    leaves out of a ``box`` (first voxel, shape): ``left_out``, an array (Z, Y, X).

    ``known``: the noise by its form, which stays unless it is clearly less.
    """
    first, shape = box
    window = periodogram.window_size(shape, settings.window)

    def region(start, size):
        return left_out[tuple(slice(a - b, a - b + c) for a, b, c in zip(start, first, size))]

    (power, _, _), (_, total, _) = (
        _periodograms(volume, source, window, known.profile, device, box)
        for source in (region, volume.region)
    )
    noise = noise_left_out(power, total, window, settings, volume.nyquist)
    grid = fourier.grid_of(window)
    lower, upper = (grid.ratio(values, torch.ones_like(values)) for values in (noise, total))
    found = NoiseModel(window, Spectrum(noise, lower, upper), total, known.profile, by_network=True)
    return found if found.shares()[0] > CLEARLY_MORE * known.shares()[0] else known


def _estimated(volume, region, settings, device, signal):
    """The noise in a volume's ``region``; without ``signal`` all of it is noise."""
    shape, profile = volume.shape, NoiseProfile()
    if settings.profile:
        size = periodogram.window_size(shape, PROFILE_WINDOW)
        corners, power = _full_windows(volume, region, size, PROFILE_WINDOWS, device)
        profile = NoiseProfile.measured(corners, size, power)
    window = periodogram.window_size(shape, settings.window)
    power, total, corners = _periodograms(volume, region, window, profile, device)
    if not signal:
        grid = fourier.grid_of(window)
        level = grid.ratio(total, torch.ones_like(total))
        return NoiseModel(window, Spectrum(total, level, level), total, profile)
    if _has_an_edge(total, window):
        # Few large windows resolve where a low-pass filter ends better than many small ones.
        resolved = periodogram.window_size(shape, settings.window, periodogram.FEW_WINDOWS)
        if resolved != window:
            window = resolved
            power, total, corners = _periodograms(volume, region, window, profile, device)
    level = censored_exponential_mean(power.clone(), settings.share)
    spectrum, unfaded = noise_and_signal(level, total, window, settings, volume.nyquist)
    if not settings.matter_free:
        return NoiseModel(window, spectrum, total, profile, unfaded=unfaded)
    empty = without_matter(power, corners, unfaded, window)
    if empty.any():
        alone = power[empty].mean(0)
        level = fourier.grid_of(window).ratio(alone, torch.ones_like(alone))
        wrong = 1 / math.sqrt(int(empty.sum()))
        spectrum = Spectrum(alone, level * max(0, 1 - wrong), level * (1 + wrong))
        unfaded = None
    return NoiseModel(window, spectrum, total, profile, float(empty.float().mean()), unfaded)


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
    """(power of the windows, their mean, first voxels), as where the profile is 1."""
    corners, power = _full_windows(volume, region, window, periodogram.MAXIMUM_WINDOWS, device, box)
    power /= profile.of_windows(corners, window)
    return power, power.mean(0), corners


def _has_an_edge(total, window):
    """Whether a Fourier shell has less than 1/200 of the highest power above 0.1 cycles per voxel:
    whether a low-pass filter has left nothing there."""
    frequency, mean = fourier.shell_means(total, window)
    above = mean[frequency >= 0.1]
    return bool(len(above)) and bool(above.min() < 0.005 * above.max())


def without_matter(power, corners, noise, size):
    """Which windows lie in slabs without matter, above, below or beside the specimen.

    ``power`` of the windows at ``corners``, the ``noise`` as estimated. Boolean tensor (windows).
    A slab is all windows of one position along an axis; it counts, with those between it and the
    volume's face, if in no shell it has more power than noise has, while the volume has.
    """
    grid = fourier.grid_of(size)
    shells = (grid.frequencies >= MATTER[0]) & (grid.frequencies < MATTER[1])

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
