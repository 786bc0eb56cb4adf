"""Denoising: the mean of many predictions, tile by tile, in the tomogram's own intensities.

z = 1 / (K T) sum_k sum_t f_t(p_k): p_k are perturbed copies of the tomogram and f_t the network
under dropout masks; here every copy meets a new mask, so K = T = the number of predictions.
"""
import contextlib
import os

import numpy as np
import torch

from f2fd_core import checkpoint, mrc, report, unet
from f2fd_core.config import NETWORK_MULTIPLE
from f2fd_core.device import arithmetic, autocast, choose_device, repeatable, set_threads
from f2fd_core.patches import Tiling
from f2fd_core.perturbation import perturbation_for_prediction
from f2fd_core.randomness import Randomness, derived_seed
from f2fd_core.volume import open_volumes

TILE_STREAM = 5
DENOISED = "_denoised.mrc"
LEAST_OVERLAP, OVERLAP_SHARE = 16, 6
PREVIEW_SIDE = 256
VOXEL_SIZE_TOLERANCE = 0.1
SUITS_ALL = max(NETWORK_MULTIPLE.values())
REFINEMENT_PREDICTIONS = 2


class Predictor:
    """Averages predictions of a network over perturbed copies, with dropout on."""

    def __init__(self, network, device, dtype, predictions, batch_size, seed=0):
        self.network, self.device, self.dtype = network, device, dtype
        self.predictions, self.batch_size, self.seed = predictions, batch_size, seed

    @torch.inference_mode()
    def moments(self, perturbation, start, size):
        """Mean and variance over the predictions of a tile, numpy arrays (Z, Y, X)."""
        self.network.eval()
        unet.enable_dropout(self.network)
        place = (self.seed, TILE_STREAM, *(at % 2 ** 32 for at in start))
        random = Randomness.of(self.device, *place)
        torch.manual_seed(derived_seed(*place))  # for dropout
        mean = torch.zeros(size, device=self.device)
        squares = torch.zeros(size, device=self.device)
        done = 0
        while done < self.predictions:
            count = min(self.batch_size, self.predictions - done)
            copies = perturbation.copies(start, size, count, done, random).unsqueeze(1)
            with autocast(self.dtype, self.device):
                predicted = self.network(copies.contiguous(memory_format=torch.channels_last_3d))
            for sample in predicted[:, 0].float():
                done += 1  # Welford's recurrence: no cancellation however small the spread
                difference = sample - mean
                mean += difference / done
                squares += difference * (sample - mean)
        return mean.cpu().numpy(), (squares / max(done - 1, 1)).cpu().numpy()


    def inner(self, perturbation, start, size, margin):
        """Mean over the predictions of a region, computed with ``margin`` more voxels around."""
        padded = tuple(-(-(side + 2 * margin) // SUITS_ALL) * SUITS_ALL for side in size)
        corner = tuple(first - margin for first in start)
        mean, _ = self.moments(perturbation, corner, padded)
        return mean[tuple(slice(margin, margin + side) for side in size)]


def tiling(shape, side, network):
    """The tiles of a region of ``shape`` for a network's name.

    Near a tile's faces the network misses context; they overlap by what that takes to fade out.
    """
    overlap = min(max(LEAST_OVERLAP, side // OVERLAP_SHARE), side // 2)
    return Tiling(shape, side, overlap, NETWORK_MULTIPLE[network])


def denoised_region(predictor, perturbation, start, size, tile_size, network):
    """A small region, denoised, standardised: array (Z, Y, X) of shape ``size``."""
    region = np.zeros(size, dtype=np.float32)

    def predict(at, side):
        corner = tuple(first + offset for first, offset in zip(start, at))
        return predictor.moments(perturbation, corner, side)[:1]

    for _ in tiling(size, tile_size, network).blend(predict, [region]):
        pass
    return region


def preview(predictor, perturbation, volume, config):
    """Central XY, XZ and YZ slices (at most 256 voxels a side) before and after denoising.

    Each slice is cut from a denoised slab of one patch's thickness. ``config`` is the TrainConfig.
    Returns two lists of three 2D arrays, in the tomogram's units.
    """
    shape = tuple(min(side, PREVIEW_SIDE) for side in volume.shape)
    before, after = [], []
    for axis in range(3):
        size = list(shape)
        half = min(config.patch_size, volume.shape[axis]) // 2
        size[axis] = 2 * half
        start = [length // 2 - side // 2 for length, side in zip(volume.shape, size)]
        slab = denoised_region(predictor, perturbation, start, size, 2 * config.patch_size,
                               config.network)
        before.append(volume.restore(volume.region(start, size).take(half, axis)))
        after.append(volume.restore(slab.take(half, axis)))
    return before, after


def _companion(path, ending):
    """The file that goes with a denoised tomogram, such as <name>_std.mrc."""
    return path[:-len(DENOISED)] + ending


def denoise(config):
    """Denoise tomograms with a model; returns the paths of the denoised files.

    Each ``<name>_denoised.mrc`` is float32 in the input's units, with its voxel size, origin and
    start indices. Everything is checked before the first is computed; raises UserError.
    """
    set_threads(config.threads)
    device = choose_device(config.device)
    dtype = arithmetic(config.precision, device)
    state = checkpoint.load(config.model)
    network, trained = checkpoint.restore(state, config.model)
    config = config.for_model(trained)
    paths = mrc.output_paths(config.names(), config.output, DENOISED)
    results = list(paths.values())
    if config.std:
        results += [_companion(path, "_std.mrc") for path in results]
    mrc.refuse_existing(results, config.overwrite or config.resume,
                        "--overwrite to replace it or --resume to skip finished tomograms")
    done = {name for name, path in paths.items() if config.resume and os.path.exists(path)}
    volumes = open_volumes(config.without(done), trained)
    mrc.make_folder(config.output)

    report.announce_device(device, dtype, "denoising")
    network.to(device, memory_format=torch.channels_last_3d)
    predictor = Predictor(network, device, dtype, config.predictions, config.batch_size,
                          config.seed)
    with repeatable():
        for number, volume in enumerate(volumes, 1):
            expected = state["voxel_size"]
            if abs(volume.voxel_size - expected) > VOXEL_SIZE_TOLERANCE * expected:
                report.warn("%s has voxels of %g Å, but the model was trained at %g Å; results may "
                            "suffer" % (volume.source.path, volume.voxel_size, expected))
            report.say("tomogram %d of %d: %s" % (number, len(volumes), volume.source.path))
            _denoise_one(volume, paths[volume.source.path], predictor, config, trained)
    return list(paths.values())


def refined(perturbations, network, device, dtype):
    """Let perturbations take their noise spectrum from what the network removes."""
    predictor = Predictor(network, device, dtype, REFINEMENT_PREDICTIONS, 1)
    for perturbation in perturbations:
        perturbation.refine(predictor)


def _denoise_one(volume, path, predictor, config, trained):
    perturbation = perturbation_for_prediction(volume, trained, predictor.device, config.pool_size)
    if trained.refines():
        refined([perturbation], predictor.network, predictor.device, predictor.dtype)
    tiles = tiling(volume.shape, config.tile_size, trained.network)
    source = volume.source

    def predict(start, size):
        mean, variance = predictor.moments(perturbation, start, size)
        tile = [volume.restore(mean)]
        if config.std:
            tile.append(variance * volume.std ** 2)
        return tile

    with contextlib.ExitStack() as stack:
        files = [path, _companion(path, "_std.mrc")] if config.std else [path]
        outputs = [stack.enter_context(mrc.new_volume(name, *source.header())) for name in files]
        with report.progress(len(tiles), "tile") as bar:
            for _ in tiles.blend(predict, outputs):
                bar.update()
        if config.std:
            for slab in mrc.slabs(volume.shape):
                outputs[1][slab] = np.sqrt(outputs[1][slab])
        after = [np.array(outputs[0][index]) for index in report.central_slices(volume.shape)]
    report.draw_slices(volume.central_sections(), after, _companion(path, "_slices.png"),
                       source.name)
    report.say("written to %s" % path)
