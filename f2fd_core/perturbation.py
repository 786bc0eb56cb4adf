"""The ways to make noisy copies of a tomogram: noise-matched ("spectrum") and published ("masks").

A perturbation belongs to one tomogram and gives regions of its perturbed copies:
``pairs`` for training (input and target), ``copies`` for prediction (inputs only).
"""
import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.volume import crop

TRAINING, PREDICTION = 0, 1
REFINEMENT_SIDE, REFINEMENT_MARGIN, REFINEMENT_BLOCKS = 80, 8, 24


def derived_seed(*numbers):
    """A 63-bit seed that depends on all the numbers, in order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Spectrum:
    """Noise-matched pairs (X + a n, X - n / a), n synthetic noise of the tomogram's own spectrum.

    If X = S + m with Gaussian noise m of that spectrum, the noises of the pair, m + a n and
    m - n / a, are uncorrelated, so training from one to the other is Noise2Noise although only
    one X exists (Recorrupted-to-Recorrupted, Pang et al., CVPR 2021, in Fourier space). n is
    stationary, so it is made region by region: nothing of the tomogram's size is held.
    """

    def __init__(self, volume, config, device="cpu"):
        """``volume``: standardised :class:`~f2fd_core.volume.Volume`; ``config``: TrainConfig."""
        self.volume, self.config, self.device = volume, config, device
        self.scale = config.noise_scale
        self.window = fourier.window_size(volume.shape, config.spectrum_window)
        power = fourier.window_power(
            volume.region, fourier.window_corners(volume.shape, self.window), self.window)
        self.total_power = power.mean(0)
        self.set_power(fourier.spare_low_frequencies(
            fourier.noise_level(power, config.spectrum_quantile), self.window,
            config.spared_frequency))

    def set_power(self, power):
        """Use this noise power spectrum, on the rfft grid of the window."""
        self.power = power
        self._amplitudes = {}

    def refine(self, predictor):
        """Estimate the noise spectrum again, from what a network removes from the tomogram.

        Hardly any signal is left in that, so low frequencies need no special treatment.
        ``predictor`` is a :class:`~f2fd_core.denoising.Predictor`.
        """
        shape = self.volume.shape
        size = tuple(min(REFINEMENT_SIDE, length) for length in shape)
        power = []
        for corner in fourier.window_corners(shape, size, REFINEMENT_BLOCKS):
            residual = self._region(corner, size).cpu().numpy() - predictor.inner(
                self, corner, size, REFINEMENT_MARGIN)
            corners = fourier.window_corners(size, self.window)
            power.append(fourier.window_power(
                lambda start, side, values=residual: crop(values, start, side), corners,
                self.window))
        self.set_power(fourier.noise_level(torch.cat(power), self.config.spectrum_quantile))

    def _noise(self, size, count):
        box = fourier.synthesis_shape(size)
        if box not in self._amplitudes:
            power = fourier.resample_power(self.power, self.window, box)
            self._amplitudes[box] = power.sqrt().to(self.device)
        return fourier.synthesise(self._amplitudes[box], box, size, count)

    def _region(self, start, size):
        return torch.from_numpy(self.volume.region(start, size)).to(self.device)

    def pairs(self, start, size, count):
        """Inputs and targets of a region, each (count, Z, Y, X)."""
        region, noise = self._region(start, size), self._noise(size, count)
        return region + self.scale * noise, region - noise / self.scale

    def copies(self, start, size, count):
        """``count`` perturbed copies of a region as the network's input, (count, Z, Y, X)."""
        return self._region(start, size) + self.scale * self._noise(size, count)

    def at_step(self, step):
        """Nothing to prepare: every draw is new."""


class Masks:
    """The published perturbation: Fourier blocks dropped, signs inverted, low frequencies kept.

    One copy is the inverse transform of the whole tomogram's spectrum times a mask of -1, 0, 1:
    (sphere or blocks) times signs, see :meth:`mask`. ``pool_size`` copies are held, and a region's
    samples are drawn from them without replacement. Copy number n is a function of (seed, n)
    alone, so a resumed run makes the same ones.
    """

    def __init__(self, volume, config, device="cpu", pool_size=None, stream=TRAINING):
        """``pool_size`` and ``stream`` set a prediction's pool apart from the training's."""
        self.shape, self.config, self.device = volume.shape, config, device
        self.stream = stream
        self.spectrum = torch.fft.rfftn(torch.from_numpy(volume.whole()).to(device))
        self.radius = fourier.radial_frequency(volume.shape).to(device)
        self.pool = [None] * (pool_size or config.pool_size)
        self.numbers = [None] * len(self.pool)
        self.at_step(0)

    def mask(self, generator):
        """One random mask on the rfft grid, float32 with the values -1, 0 and 1.

        Kept are a sphere that holds a share between sphere_min and sphere_max of the spectrum,
        and each block with probability 1 - mask_probability; every coefficient changes sign with
        probability inversion_probability.
        """
        config, device = self.config, self.device
        uniform = torch.rand((), generator=generator, device=device)
        share = config.sphere_min + uniform * (config.sphere_max - config.sphere_min)
        kept = fourier.block_mask(self.radius.shape, config.block_size,
                                  1 - config.mask_probability, generator, device)
        kept |= self.radius <= fourier.sphere_radius(share)
        inverted = torch.rand(self.radius.shape, generator=generator, device=device)
        signs = 1 - 2 * (inverted < config.inversion_probability).float()
        return fourier.friedel_symmetric(kept * signs, self.shape)

    def draw(self, number):
        """Copy ``number`` of the whole tomogram, (Z, Y, X)."""
        generator = torch.Generator(self.device)
        generator.manual_seed(derived_seed(self.config.seed, self.stream, number))
        spectrum = self.spectrum * self.mask(generator)
        return torch.fft.irfftn(spectrum, s=self.shape, dim=fourier.AXES).cpu()

    def at_step(self, step):
        """Bring the pool to its state at a training step: one copy renewed a step, in turn."""
        size = len(self.pool)
        for slot in range(size):
            renewals = (step - 1 - slot) // size + 1 if self.config.renew_pool else 0
            number = slot + size * max(renewals, 0)
            if self.numbers[slot] != number:
                self.pool[slot], self.numbers[slot] = self.draw(number), number

    def _samples(self, start, size, count):
        chosen = torch.randperm(len(self.pool))[:count]
        return torch.stack([crop(self.pool[slot], start, size) for slot in chosen]).to(self.device)

    def pairs(self, start, size, count):
        """Inputs and targets of a region, each (count, Z, Y, X), from 2 x count distinct copies."""
        samples = self._samples(start, size, 2 * count)
        return samples[:count], samples[count:]

    def copies(self, start, size, count):
        """``count`` distinct perturbed copies of a region, (count, Z, Y, X)."""
        return self._samples(start, size, count)


def perturbation_for_training(volume, config, device):
    """The perturbation that a TrainConfig asks for."""
    return {"spectrum": Spectrum, "masks": Masks}[config.perturbation](volume, config, device)


def perturbation_for_prediction(volume, config, device, pool_size):
    """The same for denoising: ``config`` is the model's, the pool is a fresh one."""
    if config.perturbation == "masks":
        return Masks(volume, config, device, pool_size, PREDICTION)
    return Spectrum(volume, config, device)
