"""What a network is worth on parts that it never learns from.

The loss of an independent pair differs from the error against the unknown signal by a constant
(Noise2Noise), so on voxels whose targets the network has not seen it is an honest measure. For
pairs with synthetic noise it would rest on that, and hide errors of it; there, unless half-maps
know better, the error is Stein's estimate with the lowest noise that there may be. In the end the
model is compared with the network that the training began with by Fourier coefficients that neither
sees, where no estimate of the noise enters.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.data.orientation import back, turned
from f2fd_core.data.regions import reflected
from f2fd_core.runtime.device import autocast
from f2fd_core.runtime.randomness import Randomness, Stream, derived_seed

# The share of the patches in which a cube is held out, and how many at most.
HELD_SHARE = 0.5
MAXIMUM_HELD = 24
# Whole patches on which candidates for the best model are compared.
EVERYWHERE = 64
# Pairs that are made of a patch.
PAIRS = 2
# Where there is less than this share of the highest power of synthetic noise, a response to it is
# not known.
LEAST_GIVEN = 0.01
# The part of the noise that is added to a copy to measure the response to noise.
PROBE_SHARE = 0.3
# The share of the Fourier coefficients that are hidden, in shells of which noise may be so much of
# the power, at least: where it is less, a network rightly relies on the coefficient itself.
HIDDEN_SHARE = 0.1
HIDDEN_NOISE = 0.5
# A response to synthetic noise below this, in any Fourier shell, shows that it is too much.
ALARM = -0.05


class Validation(NamedTuple):
    """What is found: the ``loss`` on held-out parts, the error up to a constant, the ``power``
    that predictions of 0 would have for a loss, and the power of the ``signal``, by independent or
    noise-matched pairs; for the latter also the ``responses``, for each tomogram with held-out
    parts how much of synthetic noise the network passes, {index: by Fourier shell of a patch}."""

    loss: float
    power: float
    signal: float
    responses: dict


def noise_factors(response, scale):
    """What synthetic noise has to be multiplied by, by shell, for a network that passes so much.

    Where there is noise alone, N, and it was taken for c N, the best a network can pass is
    t = (1 - c) / (1 + scale² c): less than nothing if c > 1. 1 / c where that is beyond ALARM.
    """
    excess = (1 - response) / (1 + scale**2 * response).clamp(min=0.1)
    return torch.where(response < ALARM, 1 / excess, torch.ones_like(response))


class ValidationCubes:
    """Cubes in the middle of some grid patches, whose voxels are no targets in the training."""

    def __init__(self, shapes, patches, patch_size, seed):
        """``shapes`` (Z, Y, X) of the tomograms and their grid ``patches`` (see
        :func:`~f2fd_core.data.patches.all_patches`); the cubes are half as wide as a patch."""
        self.shapes, self.patch_size = shapes, patch_size
        count = min(MAXIMUM_HELD, -(-len(patches) // int(1 / HELD_SHARE)))
        generator = torch.Generator().manual_seed(derived_seed(seed, Stream.HELD_OUT))
        chosen = torch.randperm(len(patches), generator=generator)[:count].tolist()
        self.patches = [patches[number] for number in sorted(chosen)]
        spread = np.linspace(0, len(patches) - 1, min(len(patches), EVERYWHERE)).round().astype(int)
        self.everywhere = [patches[number] for number in spread]
        self.seed = seed

    def _inner(self):
        quarter = self.patch_size // 4
        return slice(quarter, self.patch_size - quarter)

    def weights(self, index, start):
        """1 where a patch of tomogram ``index`` at ``start`` may be learned from, 0 in the cubes.

        Where the patch reaches beyond the volume, its voxels count as those that they mirror.
        """
        size, inner = self.patch_size, self._inner()
        weights = np.ones((size,) * 3, np.float32)
        positions = [
            reflected(first, size, length) for first, length in zip(start, self.shapes[index])
        ]
        for other, corner in self.patches:
            if other == index:
                weights[
                    np.ix_(
                        *(
                            (position >= first + inner.start) & (position < first + inner.stop)
                            for position, first in zip(positions, corner)
                        )
                    )
                ] = 0
        return torch.from_numpy(weights)

    @torch.no_grad()
    def validate(self, network, perturbations, device, dtype, everywhere=False):
        """A :class:`Validation`, always with the same random numbers.

        For a network that has not learned from these tomograms it may be made ``everywhere``, in
        EVERYWHERE whole patches: few cubes may mistake a little better for a little worse.
        """
        was_training = network.training
        predict = self._predicting(network, device, dtype)
        patches, inner = (
            (self.everywhere, slice(None)) if everywhere else (self.patches, self._inner())
        )
        about = predict, perturbations, device, patches, (Ellipsis,) + (inner,) * 3
        matched = hasattr(perturbations[0], "noise")
        found = (self._stein if matched else self._loss_of_pairs)(*about)
        if matched and all(perturbation.independent for perturbation in perturbations):
            found = self._loss_of_pairs(*about)._replace(responses=found.responses)
        network.train(was_training)
        return found

    @torch.no_grad()
    def share_found(self, network, perturbations, device, dtype):
        """What share of the power of hidden Fourier coefficients a network finds, in whole patches.

        It is 1 - <|f(H) - H|²> / <|H|²> for the coefficients H that are set to 0 in the tomogram,
        and what the network has there, f(H). Noise is independent from one coefficient to the next
        and can't be found, so whatever its power, the better of two networks finds more (after
        Noise2Self, Batson & Royer, ICML 2019, which hides voxels).
        """
        was_training = network.training
        predict = self._predicting(network, device, dtype)
        random = Randomness.of(device, self.seed, Stream.HIDDEN)
        size, axes = (self.patch_size,) * 3, (1, 2, 3)
        grid = fourier.grid_of(size)
        weights = grid.weights.to(device)
        found = power = 0.0
        for index, start in self.everywhere:
            shares = perturbations[index].noise.share_at(grid.frequencies, "upper")
            noisy = (shares >= HIDDEN_NOISE)[grid.shell].to(device)
            region = perturbations[index].copies_of_itself(start, size)
            coefficients = torch.fft.rfftn(region, dim=axes)
            white = torch.randn(region.shape, generator=random.device, device=device)
            # The power of white noise is exponentially distributed.
            drawn = torch.fft.rfftn(white, dim=axes).abs().square() / white.numel()
            hidden = (drawn < -math.log(1 - HIDDEN_SHARE)) & noisy
            seen = torch.fft.irfftn(coefficients * ~hidden, s=size, dim=axes)
            made = torch.fft.rfftn(predict(seen, perturbations[index].axes), dim=axes)
            before, after = (
                float((values.abs().square() * hidden * weights).sum())
                for values in (coefficients, made - coefficients)
            )
            found, power = found + before - after, power + before
        network.train(was_training)
        return found / max(power, 1e-30)

    @staticmethod
    def _predicting(network, device, dtype):
        """The function of patches that lie along some axes that a network is, which does not learn
        from then on."""
        network.eval()

        def predict(inputs, axes):
            with autocast(dtype, device):
                outputs = network(
                    turned(inputs, axes)
                    .unsqueeze(1)
                    .contiguous(memory_format=torch.channels_last_3d)
                )[:, 0].float()
            return turned(outputs, back(axes))

        return predict

    def _loss_of_pairs(self, predict, perturbations, device, patches, inner):
        """Mean squared error of the targets in the ``inner`` part of ``patches``."""
        random = Randomness.of(device, self.seed, Stream.VALIDATION)
        total = power = signal = count = 0.0
        for index, start in patches:
            size = (self.patch_size,) * 3
            pairs = perturbations[index].independent_pairs(start, size, PAIRS, random)
            inputs, targets = pairs.inputs[inner], pairs.targets[inner]
            weights = torch.ones_like(targets) if pairs.weights is None else pairs.weights[inner]
            prediction = predict(pairs.inputs, perturbations[index].axes)[inner]
            total += float(((prediction - targets).square() * weights).sum())
            power += float((targets.square() * weights).sum())
            signal += float((inputs * targets * weights).sum())
            count += float(weights.sum())
        loss, power, signal = (value / max(count, 1.0) for value in (total, power, signal))
        return Validation(loss, power, signal, {})

    def _stein(self, predict, perturbations, device, patches, inner):
        """Stein's estimate of the error (Ann. Stat. 9 (1981) 1135), up to the noise's own power.

        It is <|f(Y) - X|²> + 2 C, for copies Y of the tomogram X: C, the covariance of output and
        the noise of X, is the response t(k) to a little synthetic noise, f(Y + εn) - f(Y - εn),
        times the noise's power, summed over the Fourier shells. (To more, networks that adapt to
        it respond less.) Of X itself, the estimate would fall short by as much more as a network
        passes of what is not known of the noise, and lessons make it pass less there than in
        copies: the better network would have the higher estimate.
        The error of a network that does its best is its response to all noise of Y, (1 + a²) C with
        the noise scale a, and the signal <X²> - <|f(Y) - X|²> - (1 - a²) C. The power less the
        noise's would be worth nothing, since of the noise, which is most of it, some hundredths are
        never known.
        """
        random = Randomness.of(device, self.seed, Stream.VALIDATION)
        grid = fourier.grid_of((self.patch_size,) * 3)
        residual = power = 0.0
        sums = {}
        for index, start in patches:
            errors, squares, both = self._probed(
                predict, perturbations[index], start, random, inner, grid
            )
            residual, power = residual + errors, power + squares
            sums[index] = sums.get(index, 0) + both
        count = grid.sums(torch.ones_like(grid.radius))
        responses = {}
        for index, (cross, square) in sums.items():
            given = square / count
            known = given > LEAST_GIVEN * given.max()
            responses[index] = torch.where(known, cross / square.clamp(min=1e-30), 0.0)
        covariance = best = 0.0
        for index, _ in patches:
            noise = perturbations[index].noise
            level = np.interp(
                grid.frequencies, fourier.grid_of(noise.window).frequencies, noise.lower
            )
            of_tomogram = float(
                (responses[index] * torch.from_numpy(level) * count).sum() / count.sum()
            )
            covariance += of_tomogram
            best += (1 + perturbations[index].scale ** 2) * of_tomogram
        count = max(len(patches), 1)
        return Validation(
            (residual + 2 * covariance) / count,
            power / count,
            (power - residual - 2 * covariance + best) / count,
            responses,
        )

    def _probed(self, predict, perturbation, start, random, inner, grid):
        """Of a patch at ``start``: the mean square of f(Y) - X and that of X in the ``inner`` part,
        and by Fourier shell the sums of the response to a little noise times that noise, and of
        that noise squared."""
        size = (self.patch_size,) * 3
        hann = torch.hann_window(self.patch_size, periodic=True)
        taper = hann[:, None, None] * hann[:, None] * hann
        region = perturbation.copies_of_itself(start, size)
        copy, other = (perturbation.copies(start, size, 1, 0, random) for _ in range(2))
        added = PROBE_SHARE * (other - region)
        inputs = torch.cat([copy, copy + added, copy - added])
        outputs = predict(inputs, perturbation.axes)
        given, passed = (
            torch.fft.rfftn((values[1] - values[2]).cpu() * taper) for values in (inputs, outputs)
        )
        return (
            float((outputs[:1] - region)[inner].square().mean()),
            float(region[inner].square().mean()),
            torch.stack([grid.sums((passed * given.conj()).real), grid.sums(given.abs() ** 2)]),
        )
