"""The default: noise-matched pairs, and the noise that they need."""
import functools
import math

import torch

from f2fd_core import fourier, noise_spectrum, windows
from f2fd_core.config import NETWORK_MULTIPLE, UserError
from f2fd_core.gain import Gain
from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.randomness import GLOBAL, Randomness
from f2fd_core.volume import crop

PROBE_STREAM = 8
# Voxels about a block of which a network removes noise, and how many blocks are looked at.
REFINEMENT_MARGIN, REFINEMENT_BLOCKS, LEAST_BLOCKS = 8, 12, 2
# Sides of the windows that tell the noise's strength, how many, and of those that tell its level.
GAIN_WINDOW, GAIN_WINDOWS, LEVEL_WINDOWS = 16, 8192, (32, 24)
# Shares of the windows that count as noise after the first estimate, and where signal is strong.
REFINED_SHARE, EMPTIEST_SHARE = 0.9, 0.05
# The noise scale where there are enough Fourier coefficients of noise, and the largest.
USUAL_SCALE, LARGEST_SCALE, ENOUGH_VALUES = 0.75, 1.0, 4.8e5


def _windows(blocks, kinds):
    """Yield (first voxels, size, power) of windows of each of ``kinds``, (size, how many a block
    at most), all ``blocks`` together.

    A block is (first voxel, size, function of windows' first voxels and size that gives their
    power).
    """
    found = [([], []) for _ in kinds]
    for corner, block, power_of in blocks:
        for (size, most), (places, powers) in zip(kinds, found):
            inside = [tuple(map(sum, zip(corner, start)))
                      for start in windows.window_corners(block, size, most)]
            places += inside
            powers.append(power_of(inside, size))
    for (size, _), (places, powers) in zip(kinds, found):
        yield places, size, torch.cat(powers)


def _part(array, corner, start, size):
    """A region of an array whose first voxel is at ``corner``."""
    return crop(array, tuple(at - first for at, first in zip(start, corner)), size)


class _Given:
    """One perturbed copy of a region that begins at ``corner``, in the place of a perturbation."""

    def __init__(self, values, corner):
        self.values, self.corner = values, corner

    def copies(self, start, size, count, first=0, random=GLOBAL):
        return _part(self.values, self.corner, start, size).expand(count, *size)


class Spectrum(Perturbation):
    """Noise-matched pairs (X + a n, X - n / a), n synthetic noise of the tomogram's own spectrum.

    If X = S + m with Gaussian noise m of that spectrum, the noises of the pair, m + a n and
    m - n / a, are uncorrelated, so training from one to the other is Noise2Noise although only
    one X exists (Recorrupted-to-Recorrupted, Pang et al., CVPR 2021, in Fourier space). n is
    stationary noise times a smooth gain, so it is made region by region: nothing of the tomogram's
    size is held.

    The noise's form is first read off large windows, which resolve it. Smaller ones, of which more
    lie between what a specimen consists of, tell the highest level that it may have: theirs, with
    all signal that is left in them. Where a low-pass filter has left nothing at high frequencies,
    that form has an edge, which takes windows as large as fit in, if there is more noise than
    signal.
    """

    def __init__(self, volume, config, device="cpu"):
        super().__init__(volume, config, device)
        self._choose_window()
        limit = config.spared_frequency
        sizes = dict.fromkeys(windows.window_size(volume.shape, side) for side in LEVEL_WINDOWS)
        smaller = [size for size in sizes if math.prod(size) < math.prod(self.window)]
        gain, powers, self.total_power = self._measured(self._windows_of_the_volume(smaller),
                                                        config.spectrum_share)
        self.first = noise_spectrum.as_back_projected(powers[0], self.window, limit)
        for power, size in zip(powers[1:], smaller):
            bound = noise_spectrum.as_back_projected(power, size, limit, with_signal=False)
            self.first = noise_spectrum.level_at_most(self.first, self.window, bound, size, limit)
        first = noise_spectrum.spare_low_frequencies(self.first, self.window, limit)
        self.set_noise(gain, noise_spectrum.as_it_came(first, self.total_power, self.window))
        automatic = self._automatic_scale()
        self.scale = config.noise_scale or automatic
        self.haste = (LARGEST_SCALE - automatic) / (LARGEST_SCALE - USUAL_SCALE)

    def _choose_window(self):
        """Set the size of the windows that tell the noise's form."""
        config = self.config
        self.window, largest = (
            windows.window_size(self.volume.shape, config.spectrum_window, least)
            for least in (windows.LEAST_WINDOWS, windows.FEW_WINDOWS))
        if self.window != largest:
            _, (level,), total = self._measured(self._windows_of_the_volume(()),
                                                config.spectrum_share)
            # Where signal outweighs the noise, only the emptiest of many windows tell the latter.
            if level.sum() > total.sum() / 2 and noise_spectrum.is_low_passed(
                    total, self.window, config.spared_frequency):
                self.window = largest

    def _automatic_scale(self):
        """The noise scale that suits a training on as many tomograms like this as there were.

        The fewer Fourier coefficients of noise there are, the sooner a network knows them by heart,
        and the less a fast start of the training suits them (docs/method.md has what was measured).
        """
        values = (math.prod(self.volume.shape) * max(len(self.config.tomograms), 1)
                  * noise_spectrum.filled_share(self.power, self.window))
        return min(max(USUAL_SCALE * (ENOUGH_VALUES / max(values, 1)) ** (1 / 3), USUAL_SCALE),
                   LARGEST_SCALE)

    def _kinds(self, smaller=()):
        """What :meth:`_measured` asks for: (size of windows, how many at most)."""
        gain = windows.window_size(self.volume.shape, GAIN_WINDOW)
        return [*([(gain, GAIN_WINDOWS)] if self.config.noise_gain else []),
                *((size, windows.MAXIMUM_WINDOWS) for size in (self.window, *smaller))]

    def _windows_of_the_volume(self, smaller):
        for size, most in self._kinds(smaller):
            corners = windows.window_corners(self.volume.shape, size, most)
            yield corners, size, windows.window_power(self.volume.region, corners, size,
                                                      device=self.device)

    def _measured(self, found, share):
        """The noise's :class:`Gain`, its power where that is 1 in windows of each size, a list, and
        the mean power of all in those of this perturbation's size, with the mirrors that the noise
        has.

        ``found`` yields (first voxels, size, power) of the windows of :meth:`_kinds`: their power
        takes much memory, so that of one size is forgotten before the next is measured. ``share``
        of the windows, those with the lowest power, counts as noise; where signal outweighs the
        noise in most, only the emptiest do.
        """
        found = iter(found)
        gain = Gain.measured(*next(found)) if self.config.noise_gain else Gain()
        share = share if gain.noisy else EMPTIEST_SHARE
        levels = []
        for corners, size, power in found:
            power /= gain.of_windows(corners, size)
            mean = power.mean(0)  # before the next line, which changes their order
            level, variance = noise_spectrum.noise_level(power, share), 1 / (share * len(power))
            levels.append(noise_spectrum.symmetrised(level, variance))
            if size == self.window:
                total = noise_spectrum.symmetrised(level, variance, mean)
            del power
        return gain, levels, total

    def set_noise(self, gain, power):
        """Use this noise: a :class:`Gain` and a power spectrum on the rfft grid of the window."""
        self.gain, self.power = gain, power
        self._amplitudes = {}

    def state_dict(self):
        """What :meth:`load_state_dict` restores: the noise, as it is known by now."""
        return {"power": self.power, "gain": self.gain.profiles}

    def load_state_dict(self, state):
        if state["power"].shape != self.power.shape:
            raise UserError(
                "the checkpoint's noise spectrum has %s values, by an older F2Fd; expected %s, as "
                "this one estimates it: --overwrite starts anew" % tuple(
                    " x ".join(map(str, power.shape)) for power in (state["power"], self.power)))
        self.set_noise(Gain(state["gain"]), state["power"])

    def refine(self, predictor, most=REFINEMENT_BLOCKS):
        """Estimate the noise spectrum again, from what a network removes from the tomogram.

        The better the network, the less signal is left in that. But it passes a share t of the
        noise, too, which is measured on synthetic noise at the same place; the power of what is
        removed is divided by 1 - t. For an ideal linear network, t = S / (S + N), that is exact;
        where there is no signal, a wrong N leads to a t that makes the next one better
        (docs/method.md). What the network has not learned of the signal counts as noise here; by
        the first estimate another part of it does, so the lower one of both is taken. At low
        frequencies t is large and hardly known: there the spectrum goes on as it does above them.
        ``predictor`` is a :class:`~f2fd_core.denoising.Predictor`; ``most``: the number of blocks
        of the tomogram that are looked at, where there is room for so many.
        """
        shape = self.volume.shape
        size = tuple(min(2 * side, length) for side, length in zip(self.window, shape))
        corners = windows.window_corners(shape, size, most)
        if 2 * math.prod(shape) <= len(corners) * math.prod(size):
            # They overlap so much that all of a small tomogram is less work for the network.
            whole = self._removed(predictor, (0, 0, 0), shape)
            blocks = ((corner, size, whole) for corner in corners)
        else:
            blocks = ((corner, size, self._removed(predictor, corner, size)) for corner in corners)
        kinds = [(kind, most // len(corners)) for kind, most in self._kinds()]
        window, limit = self.window, self.config.spared_frequency
        gain, (power,), _ = self._measured(_windows(blocks, kinds), REFINED_SHARE)
        power = noise_spectrum.as_back_projected(power, window, limit, with_signal=False)
        power = noise_spectrum.at_most(power, self.first, self.total_power, window, limit)
        power = noise_spectrum.as_it_came(power, self.total_power, window)
        self.set_noise(gain, noise_spectrum.continue_to_low_frequencies(
            power, window, limit, self.total_power))

    def _removed(self, predictor, corner, size):
        """A function of windows' first voxels and size: power of the noise that a network
        removes there, with what it passes. The windows lie in the block, the voxels count in the
        tomogram."""
        start = tuple(first - REFINEMENT_MARGIN for first in corner)
        wide = tuple(side + 2 * REFINEMENT_MARGIN for side in size)
        random = Randomness.of(self.device, self.config.seed, PROBE_STREAM,
                               *(at % 2 ** 32 for at in start))
        copies = self.copies(start, wide, 2, 0, random)
        first, second = (predictor.inner(_Given(copy, start), corner, size, REFINEMENT_MARGIN,
                                         NETWORK_MULTIPLE[self.config.network])
                         for copy in copies)
        margin = (slice(REFINEMENT_MARGIN, -REFINEMENT_MARGIN),) * 3
        before, after = (copies[0] - copies[1])[margin].cpu().numpy(), first - second
        region = self._region(corner, size).cpu().numpy()

        def reader(array):
            return functools.partial(_part, array, corner)

        removed = [reader(region - predicted) for predicted in (first, second)]

        def power(corners, window):
            transfer = windows.window_transfer(reader(before), reader(after), corners, window,
                                               self.device)
            # What both have in common is free of the synthetic noise.
            common = windows.window_power(removed[0], corners, window, removed[1], self.device)
            return common.clamp(min=0) / (1 - transfer)

        return power

    def on(self, device):
        other = super().on(device)
        other.set_noise(self.gain, self.power)
        return other

    def _noise(self, start, size, count, random):
        box = fourier.synthesis_shape(size)
        if box not in self._amplitudes:
            power = fourier.resample_power(self.power, self.window, box)
            self._amplitudes[box] = power.sqrt().to(self.device)
        noise = fourier.synthesise(self._amplitudes[box], box, size, count, random.device)
        return noise * self.gain.at(start, size, self.device)

    def pairs(self, start, size, count, random=GLOBAL):
        region, noise = self._region(start, size), self._noise(start, size, count, random)
        return Pairs(region + self.scale * noise, region - noise / self.scale)

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """``count`` perturbed copies of a region, (count, Z, Y, X)."""
        return self._region(start, size) + self.scale * self._noise(start, size, count, random)
