"""The published perturbation: masked Fourier coefficients, and the pool of its copies on disk."""

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.data.out_of_core import sections_of, spectrum_of
from f2fd_core.data.regions import crop
from f2fd_core.data.source import slabs
from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.runtime.device import to_device
from f2fd_core.runtime.mapped import DiskArray
from f2fd_core.runtime.randomness import GLOBAL, Stream, derived_seed


class FourierMasks(Perturbation):
    """The published perturbation: Fourier blocks dropped, signs inverted, low frequencies kept.

    Copies of the whole tomogram are the inverse transforms of its spectrum times (a sphere or
    blocks) times signs, see :meth:`mask`. ``pool_size`` copies are held on disk, in half precision,
    and a region's samples are drawn from them without replacement. Copy number n is a function of
    (seed, n) alone, so a resumed run makes the same ones.
    """

    def __init__(self, volume, config, device="cpu", pool_size=None, stream=Stream.TRAINING_COPIES):
        """``pool_size`` and ``stream`` set a prediction's pool apart from the training's.

        Raises UserError where the folder for temporary files has no room for the pool.
        """
        super().__init__(volume, config, device)
        self.shape, self.stream = volume.shape, stream
        pool_size = pool_size or config.pool_size
        self.pool = DiskArray((pool_size, *self.shape), np.float16)
        self.numbers = [-1] * pool_size
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
        blocks = fourier.block_mask(
            self.spectrum.shape, config.block_size, 1 - config.mask_probability, generator, device
        )
        z, y, x = (axis.to(device) for axis in fourier.axis_frequencies(self.shape))

        def part(slab, columns):
            radius = torch.sqrt(
                z[slab, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, columns] ** 2
            )
            kept = blocks[slab, :, columns] | (radius <= fourier.sphere_radius(share))
            inverted = torch.rand(kept.shape, generator=generator, device=device)
            return kept * (1 - 2 * (inverted < config.inversion_probability).float())

        planes = {
            column: fourier.friedel_symmetric_plane(
                part(slice(None), slice(column, column + 1))[:, :, 0]
            )
            for column in fourier.self_conjugate_columns(self.shape)
        }
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
        return to_device(torch.from_numpy(samples), self.device).float()

    def pairs(self, start, size, count, random=GLOBAL):
        """Pairs from 2 x ``count`` distinct copies."""
        samples = self._samples(start, size, 2 * count, random)
        return Pairs(samples[:count], samples[count:])

    def copies(self, start, size, count, first=0, random=GLOBAL):
        """``count`` distinct perturbed copies of a region, (count, Z, Y, X)."""
        return self._samples(start, size, count, random)
