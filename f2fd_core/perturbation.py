"""The ways to make pairs of noisy copies of a tomogram.

A perturbation belongs to one tomogram and gives regions of its perturbed copies: ``pairs`` for
training (:class:`Pairs`), ``copies`` for prediction (inputs only). ``at_step`` brings it to its
state at a training step. Random numbers come from the :class:`~f2fd_core.randomness.Randomness`
given, by default from PyTorch's own generators.
"""
import copy
import functools
import math
from typing import NamedTuple, Optional

import numpy as np
import torch

from f2fd_core import fourier, noise_spectrum, windows
from f2fd_core.config import NETWORK_MULTIPLE, UserError
from f2fd_core.gain import Gain
from f2fd_core.large import DiskArray, sections_of, spectrum_of
from f2fd_core.mrc import slabs
from f2fd_core.randomness import GLOBAL, Randomness, derived_seed
from f2fd_core.volume import crop

TRAINING, PREDICTION = 0, 1
PROBE_STREAM = 8
# Voxels about a block of which a network removes noise, and how many blocks are looked at.
REFINEMENT_MARGIN, REFINEMENT_BLOCKS, LEAST_BLOCKS = 8, 12, 2
# Sides of the windows that tell the noise's strength, how many, and of those that tell its level.
GAIN_WINDOW, GAIN_WINDOWS, LEVEL_WINDOWS = 16, 8192, (32, 24)
# Shares of the windows that count as noise after the first estimate, and where signal is strong.
REFINED_SHARE, EMPTIEST_SHARE = 0.9, 0.05
# The noise scale where there are enough Fourier coefficients of noise, and the largest.
USUAL_SCALE, LARGEST_SCALE, ENOUGH_VALUES = 0.75, 1.0, 4.8e5


class Pairs(NamedTuple):
    """Inputs and targets of one region, each (count, Z, Y, X).

    ``weights``, of the same shape, are the voxels' weights in the loss; None: all alike.
    """
    inputs: torch.Tensor
    targets: torch.Tensor
    weights: Optional[torch.Tensor] = None


class Perturbation:
    """What perturbations have in common; by itself, for prediction from the tomogram as it is."""

    def __init__(self, volume, config, device="cpu"):
        """``volume``: standardised, see :mod:`f2fd_core.volume`; ``config``: the TrainConfig."""
        self.volume, self.config, self.device = volume, config, device

    def _region(self, start, size):
        return torch.from_numpy(self.volume.region(start, size)).to(self.device)

    def at_step(self, step):
        """Nothing to prepare: every draw is new."""

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """The region itself, ``count`` times, as the network's input, (count, Z, Y, X).

        ``first``: how many the prediction has had before.
        """
        return self._region(start, size).expand(count, *size)

    def for_prediction(self, predictions):
        """What so many predictions are made from: this, or the tomogram as it is."""
        if self.config.unperturbed(predictions):
            return Perturbation(self.volume, self.config, self.device)
        return self

    def on(self, device):
        """The same perturbation with its results on another device."""
        other = copy.copy(self)
        other.device = device
        return other


def _windows(blocks, kinds):
    """Yield (first voxels, size, power) of windows of each of ``kinds``, (size, how many a block
    at most), all ``blocks`` together.

    A block is (first voxel, size, function of windows' first voxels and size that gives their
    power).
    """
    found = [([], []) for _ in kinds]
    for corner, block, power_of in blocks:
        for (size, most), (places, powers) in zip(kinds, found):
            inner = windows.window_corners(block, size, most)
            places += [tuple(map(sum, zip(corner, start))) for start in inner]
            powers.append(power_of(inner, size))
    for (size, _), (places, powers) in zip(kinds, found):
        yield places, size, torch.cat(powers)


def _reader(array):
    """What reads regions of an array, for the functions on windows."""
    return functools.partial(crop, array)


class _Given:
    """One perturbed copy of a region that begins at ``corner``, in the place of a perturbation."""

    def __init__(self, values, corner):
        self.values, self.corner = values, corner

    def copies(self, start, size, count, first=0, random=GLOBAL):
        inside = tuple(at - corner for at, corner in zip(start, self.corner))
        return crop(self.values, inside, size).expand(count, *size)


class Spectrum(Perturbation):
    """Noise-matched pairs (X + a n, X - n / a), n synthetic noise of the tomogram's own spectrum.

    If X = S + m with Gaussian noise m of that spectrum, the noises of the pair, m + a n and
    m - n / a, are uncorrelated, so training from one to the other is Noise2Noise although only
    one X exists (Recorrupted-to-Recorrupted, Pang et al., CVPR 2021, in Fourier space). n is
    stationary noise times a smooth gain, so it is made region by region: nothing of the tomogram's
    size is held.

    The noise's form is first read off large windows, which resolve it, and its level off the
    windows, large or small, that tell the lowest one: the smaller they are, the more of them lie
    between what a specimen consists of.
    """

    def __init__(self, volume, config, device="cpu"):
        super().__init__(volume, config, device)
        self.window = windows.window_size(volume.shape, config.spectrum_window)
        limit = config.spared_frequency
        sizes = dict.fromkeys(windows.window_size(volume.shape, side) for side in LEVEL_WINDOWS)
        smaller = [size for size in sizes if math.prod(size) < math.prod(self.window)]
        gain, powers, self.total_power = self._measured(self._windows_of_the_volume(smaller),
                                                        config.spectrum_share)
        self.first, *others = (noise_spectrum.as_back_projected(power, size, limit)
                               for power, size in zip(powers, [self.window, *smaller]))
        for other, size in zip(others, smaller):
            self.first = noise_spectrum.level_at_most(self.first, self.window, other, size, limit)
        first = noise_spectrum.spare_low_frequencies(self.first, self.window, limit)
        self.set_noise(gain, noise_spectrum.as_it_came(first, self.total_power, self.window))
        self.scale = config.noise_scale or self._automatic_scale()

    def _automatic_scale(self):
        """The noise scale that suits a training on as many tomograms like this as there were.

        The fewer Fourier coefficients of noise there are, the sooner a network knows them by heart
        (docs/method.md has what was measured).
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
            yield corners, size, windows.window_power(self.volume.region, corners, size)

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
            mean = power.mean(0)
            power /= gain.of_windows(corners, size)
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
        blocks = ((corner, size, self._removed(predictor, corner, size)) for corner in corners)
        kinds = [(kind, most // len(corners)) for kind, most in self._kinds()]
        window, limit = self.window, self.config.spared_frequency
        gain, (power,), _ = self._measured(_windows(blocks, kinds), REFINED_SHARE)
        power = noise_spectrum.as_back_projected(power, window, limit, removed=True)
        power = noise_spectrum.at_most(power, self.first, self.total_power, window, limit)
        power = noise_spectrum.as_it_came(power, self.total_power, window)
        self.set_noise(gain, noise_spectrum.continue_to_low_frequencies(
            power, window, limit, self.total_power))

    def _removed(self, predictor, corner, size):
        """A function of windows' first voxels and size: power of the noise that a network removes
        there, with what it passes."""
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
        removed = [_reader(region - predicted) for predicted in (first, second)]

        def power(corners, window):
            transfer = windows.window_transfer(_reader(before), _reader(after), corners, window)
            # What both have in common is free of the synthetic noise.
            common = windows.window_power(removed[0], corners, window, removed[1])
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


class Masks(Perturbation):
    """The published perturbation: Fourier blocks dropped, signs inverted, low frequencies kept.

    Copies of the whole tomogram are the inverse transforms of its spectrum times (a sphere or
    blocks) times signs, see :meth:`mask`. ``pool_size`` copies are held on disk, in half precision,
    and a region's samples are drawn from them without replacement. Copy number n is a function of
    (seed, n) alone, so a resumed run makes the same ones.
    """

    def __init__(self, volume, config, device="cpu", pool_size=None, stream=TRAINING):
        """``pool_size`` and ``stream`` set a prediction's pool apart from the training's.

        Raises UserError where the folder for temporary files has no room for the pool.
        """
        super().__init__(volume, config, device)
        self.shape, self.stream = volume.shape, stream
        pool_size = pool_size or config.pool_size
        self.pool = DiskArray((pool_size, *self.shape), np.float16)
        self.numbers = [None] * pool_size
        self.spectrum = spectrum_of(self._sections, self.shape, device)
        self.at_step(0)

    def _sections(self, slab):
        size = (slab.stop - slab.start, *self.shape[1:])
        return torch.from_numpy(self.volume.region((slab.start, 0, 0), size))

    def _parts_of_mask(self, generator):
        """Yield (slice along Z, that part of a random mask) for the whole rfft grid."""
        config, device = self.config, self.device
        uniform = torch.rand((), generator=generator, device=device)
        share = config.sphere_min + uniform * (config.sphere_max - config.sphere_min)
        blocks = fourier.block_mask(self.spectrum.shape, config.block_size,
                                    1 - config.mask_probability, generator, device)
        z, y, x = (axis.to(device) for axis in fourier.axis_frequencies(self.shape))

        def part(slab, columns):
            radius = torch.sqrt(z[slab, None, None] ** 2 + y[None, :, None] ** 2
                                + x[None, None, columns] ** 2)
            kept = blocks[slab, :, columns] | (radius <= fourier.sphere_radius(share))
            inverted = torch.rand(kept.shape, generator=generator, device=device)
            return kept * (1 - 2 * (inverted < config.inversion_probability).float())

        planes = {column: fourier.friedel_symmetric_plane(
            part(slice(None), slice(column, column + 1))[:, :, 0])
            for column in fourier.self_conjugate_columns(self.shape)}
        for slab in slabs(self.shape):
            mask = part(slab, slice(None))
            for column, plane in planes.items():
                mask[:, :, column] = plane[slab]
            yield slab, mask

    def mask(self, generator):
        """One random mask on the rfft grid, float32 with the values -1, 0 and 1.

        Kept are a sphere that holds a share between sphere_min and sphere_max of the spectrum,
        and each block with probability 1 - mask_probability; every coefficient changes sign with
        probability inversion_probability.
        """
        return torch.cat([part for _, part in self._parts_of_mask(generator)])

    def draw(self, number):
        """Copy ``number`` of the whole tomogram: yields (slice along Z, its sections)."""
        generator = torch.Generator(self.device)
        generator.manual_seed(derived_seed(self.config.seed, self.stream, number))
        spectrum = torch.empty_like(self.spectrum)
        for slab, mask in self._parts_of_mask(generator):
            spectrum[slab] = self.spectrum[slab] * mask.cpu()
        return sections_of(spectrum, self.shape, self.device)

    def at_step(self, step):
        """Bring the pool to its state at a training step: one copy renewed a step, in turn."""
        size = len(self.numbers)
        for slot in range(size):
            renewals = (step - 1 - slot) // size + 1 if self.config.renew_pool else 0
            number = slot + size * max(renewals, 0)
            if self.numbers[slot] != number:
                for slab, sections in self.draw(number):
                    self.pool.array[slot, slab] = sections.numpy()
                self.numbers[slot] = number
                self.pool.release()

    def _samples(self, start, size, count, random):
        chosen = torch.randperm(len(self.numbers), generator=random.host)[:count]
        samples = np.stack([crop(self.pool.array[slot], start, size) for slot in chosen])
        self.pool.release()
        return torch.from_numpy(samples).to(self.device).float()

    def pairs(self, start, size, count, random=GLOBAL):
        """Pairs from 2 x ``count`` distinct copies."""
        samples = self._samples(start, size, 2 * count, random)
        return Pairs(samples[:count], samples[count:])

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """``count`` distinct perturbed copies of a region, (count, Z, Y, X)."""
        return self._samples(start, size, count, random)


class Points(Perturbation):
    """Self2Self with dropout (Quan et al., CVPR 2020): hidden voxels predicted from the others.

    The input is the tomogram times a random mask of 0 and 1, by points or by blocks; the loss is
    taken where the mask is 0. Noise that neighbours share can be predicted, too, and stays in.
    """

    def _kept(self, size, count, random):
        """Masks (count, Z, Y, X), True where a voxel is kept."""
        config, device = self.config, self.device
        if torch.rand((), generator=random.host) < config.block_probability:
            return torch.stack([fourier.block_mask(size, config.block_size,
                                                   1 - config.mask_probability, random.device,
                                                   device)
                                for _ in range(count)])
        drawn = torch.rand((count,) + tuple(size), generator=random.device, device=device)
        return drawn >= config.point_probability

    def pairs(self, start, size, count, random=GLOBAL):
        region, kept = self._region(start, size), self._kept(size, count, random)
        return Pairs(region * kept, region.expand(count, *size), (~kept).float())

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """``count`` copies of a region, each with other voxels hidden, (count, Z, Y, X)."""
        return self._region(start, size) * self._kept(size, count, random)


class BlindSpot(Perturbation):
    """Noise2Void (Krull et al., CVPR 2019): voxels replaced, and predicted from their surroundings.

    A share of the voxels takes the value of a random voxel within NEIGHBOURS of it; the loss is
    taken there. With ``blind_reach``, whole crosses about them take values from anywhere in the
    region, so that noise shared along the axes can't be copied (structured Noise2Void, Broaddus et
    al., ISBI 2020).
    """
    NEIGHBOURS = 2

    def _blind(self, size, count, random):
        share = torch.rand((count,) + tuple(size), generator=random.device, device=self.device)
        return share < self.config.blind_share

    def _hidden(self, blind):
        """The blind voxels and the crosses about them."""
        reach = self.config.blind_reach
        if reach == 0:
            return blind
        values = blind[:, None].half() if blind.is_cuda else blind[:, None].float()
        crosses = [torch.nn.functional.max_pool3d(
            values, [2 * reach + 1 if other == axis else 1 for other in range(3)], stride=1,
            padding=[reach if other == axis else 0 for other in range(3)]) for axis in range(3)]
        return torch.stack(crosses).amax(0)[:, 0] > 0

    def _replacements(self, region, count, random):
        """For every voxel the value of another one, (count, Z, Y, X)."""
        size, device = region.shape, region.device
        if self.config.blind_reach:
            chosen = torch.randint(region.numel(), (count,) + tuple(size),
                                   generator=random.device, device=device)
            return region.flatten()[chosen]
        width = 2 * self.NEIGHBOURS + 1
        # Offsets of the cube but its centre.
        offset = torch.randint(width ** 3 - 1, (count,) + tuple(size), generator=random.device,
                               device=device)
        offset += (offset >= width ** 3 // 2).long()
        index = 0
        for axis, stride in enumerate((width ** 2, width, 1)):
            length = size[axis]
            here = torch.arange(length, device=device).reshape(
                [-1 if other == axis else 1 for other in range(3)])
            step = offset // stride % width - self.NEIGHBOURS
            # Beyond a face, to the other side; mirrored there it could be the voxel itself.
            outside = (here + step < 0) | (here + step >= length)
            index = index * length + here + torch.where(outside, -step, step)
        return region.flatten()[index]

    def pairs(self, start, size, count, random=GLOBAL):
        region, blind = self._region(start, size), self._blind(size, count, random)
        replacements = self._replacements(region, count, random)
        inputs = torch.where(self._hidden(blind), replacements, region)
        return Pairs(inputs, region.expand(count, *size), blind.float())


class Halves(Perturbation):
    """Noise2Noise (Lehtinen et al., ICML 2018) from one half-map to the other.

    Their noises are independent since they come from different frames or tilts. Which of them is
    the input is drawn anew every time; the prediction takes them in turn.
    """

    def _half(self, number, start, size):
        return torch.from_numpy(self.volume.half(number, start, size)).to(self.device)

    def pairs(self, start, size, count, random=GLOBAL):
        drawn = torch.randint(2, (count,), generator=random.host).tolist()
        inputs, targets = (torch.stack([self._half(number ^ other, start, size)
                                        for number in drawn]) for other in (0, 1))
        return Pairs(inputs, targets)

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """The odd and the even half-map in turn, (count, Z, Y, X)."""
        return torch.stack([self._half((first + number) % 2, start, size)
                            for number in range(count)])


KINDS = {"spectrum": Spectrum, "masks": Masks, "points": Points, "blindspot": BlindSpot,
         "halves": Halves}


def perturbation_for_training(volume, config, device):
    """The perturbation that a TrainConfig asks for.

    Raises UserError for blocks of Fourier coefficients that are larger than the volume.
    """
    if config.perturbation == "masks" and config.block_size > min(volume.shape):
        raise UserError("--block-size is %d; expected at most %d, the shortest side of %s"
                        % (config.block_size, min(volume.shape), volume.source.path))
    return KINDS[config.perturbation](volume, config, device)


def perturbation_for_prediction(volume, config, device, predictions, pool_size):
    """The same for so many ``predictions``: ``config`` is the model's, the pool is a fresh one."""
    if config.unperturbed(predictions):
        return Perturbation(volume, config, device)
    if config.perturbation == "masks":
        return Masks(volume, config, device, pool_size, PREDICTION)
    return perturbation_for_training(volume, config, device)
