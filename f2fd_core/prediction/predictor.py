"""Prediction: the mean over perturbed copies of a tile, and a tomogram's region from its tiles.

z = 1 / (K T) sum_k sum_t f_t(p_k): p_k are perturbed copies of the tomogram and f_t the network
under dropout masks; here every copy meets a new mask, so K = T = the number of predictions. What
the network has learned to turn with it is also shown turned, and what it predicts is turned back.
"""

import contextlib
import threading

import numpy as np
import torch

from f2fd_core.config import NETWORK_MULTIPLE, WEDGE_PRESERVING_FLIPS
from f2fd_core.data.orientation import back, turned
from f2fd_core.data.tiles import Tiling
from f2fd_core.network import unet
from f2fd_core.prediction.memory import SMALLEST_TILE
from f2fd_core.runtime import console
from f2fd_core.runtime.device import (
    autocast,
    compiled,
    runs_asynchronously,
    seed_dropout,
    to_host_async,
)
from f2fd_core.runtime.randomness import Randomness, Stream, derived_seed
from f2fd_core.runtime.workers import map_ordered

# Tiles overlap by so many voxels, or by a side over OVERLAP_SHARE if that is more.
LEAST_OVERLAP = 16
OVERLAP_SHARE = 6
PREVIEW_SIDE = 256
# Side (voxels) of the tile on which memory is measured.
PROBE_SIDE = 64
TILES_IN_FLIGHT_ON_GPU = 3


class Predictor:
    """Averages predictions of a network over perturbed copies, with dropout on."""

    def __init__(
        self,
        network,
        device,
        dtype,
        predictions,
        batch_size,
        seed=0,
        compile=False,
        flips=WEDGE_PRESERVING_FLIPS[:1],
        with_variance=False,
    ):
        """``flips``: as TrainConfig.tta_flips gives them; ``with_variance``: whether the variance
        over the predictions is wanted, too."""
        self.network, self.device, self.dtype = network, device, dtype
        self.predictions, self.batch_size, self.seed = predictions, batch_size, seed
        self.flips, self.with_variance = flips, with_variance
        self.forward = compiled(network, device) if compile else network
        self.cancelled, self.dismissed = threading.Event(), threading.Event()
        # Several threads may have tiles in hand, and all draw dropout from the device's generator:
        # one computes at a time.
        self.computing = threading.Lock()

    def tiles_in_flight(self):
        """How many tiles to take in hand at once: while a GPU computes one, others are read."""
        return TILES_IN_FLIGHT_ON_GPU if runs_asynchronously(self.device) else 1

    @torch.inference_mode()
    def predict_tile(self, perturbation, start, size):
        """Mean over the predictions of a tile, and their variance where that is wanted, a list of
        numpy arrays (Z, Y, X).

        Ends early, with an error, once another thread sets ``cancelled``, for what is under way
        now, or ``dismissed``, for good.
        """
        place = (self.seed, Stream.TILE, *(at % 2**32 for at in start))
        random = Randomness.of(self.device, *place)

        axes = perturbation.axes

        def draw(done):
            """The network's next inputs, (count, 1, Z, Y, X), and the axes to flip each about."""
            count = min(self.batch_size, self.predictions - done)
            flips = [self.flips[number % len(self.flips)] for number in range(done, done + count)]
            copies = turned(perturbation.copies(start, size, count, done, random), axes)
            flipped = torch.stack([copy.flip(flip) for copy, flip in zip(copies, flips)])
            return flipped.unsqueeze(1).contiguous(memory_format=torch.channels_last_3d), flips

        drawn = None
        # Where there is no room for them yet, they are drawn when this tile is computed, or fewer.
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            drawn = draw(0)
        with self.computing:
            seed_dropout(self.device, derived_seed(*place))
            results = [
                to_host_async(turned(values, back(axes)).contiguous())
                for values in self._moments([size[axis] for axis in axes], drawn, draw)
            ]
        return [arrived() for arrived in results]

    def _moments(self, size, drawn, draw):
        """The same on the device, of ``size`` as the network sees it, from what is ``drawn``
        already and what ``draw(done)`` gives."""
        self.network.eval()
        unet.enable_dropout(self.network)
        mean = torch.zeros(size, device=self.device)
        squares = torch.zeros(size if self.with_variance else 0, device=self.device)
        done = 0
        while done < self.predictions:
            if self.cancelled.is_set() or self.dismissed.is_set():
                raise RuntimeError("nobody waits for this tile any more")
            try:
                inputs, flips = drawn or draw(done)
                drawn = None
                with autocast(self.dtype, self.device):
                    predicted = self.forward(inputs)
            except torch.cuda.OutOfMemoryError:
                count = min(self.batch_size, self.predictions - done)
                if count == 1:
                    raise
                self.batch_size = count // 2
                console.warn(
                    f"the memory of {self.device} does not suffice for {count} "
                    f"predictions at once; going on with {self.batch_size}"
                )
                continue
            for sample, flip in zip(predicted[:, 0].float(), flips):
                sample = sample.flip(flip)
                done += 1  # Welford's recurrence: no cancellation however small the spread
                difference = sample - mean
                mean += difference / done
                if self.with_variance:
                    squares += difference * (sample - mean)
        return [mean, squares / max(done - 1, 1)] if self.with_variance else [mean]

    @torch.inference_mode()
    def bytes_per_voxel(self):
        """GPU memory that a prediction takes for each voxel, measured on a small tile."""
        self.network.eval()
        values = torch.zeros((1, 1) + (PROBE_SIDE,) * 3, device=self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        with autocast(self.dtype, self.device):
            self.network(values.contiguous(memory_format=torch.channels_last_3d))
        return (torch.cuda.max_memory_allocated(self.device) - before) / values.numel()


def tiling(shape, side, network):
    """The tiles of a region of ``shape`` for a network's name.

    Near a tile's faces the network misses context; they overlap by what that takes to fade out.
    """
    overlap = min(max(LEAST_OVERLAP, side // OVERLAP_SHARE), side // 2)
    return Tiling(shape, side, overlap, NETWORK_MULTIPLE[network], SMALLEST_TILE)


def with_context(box, volume):
    """A box (first voxel, size) with the voxels around it by which the network knows its faces."""
    first = tuple(max(at - LEAST_OVERLAP, 0) for at in box[0])
    return first, tuple(
        min(at + side + LEAST_OVERLAP, length) - start
        for at, side, start, length in zip(*box, first, volume.shape)
    )


def inner_of(part, first):
    """Slices of a part (first voxel, size) in an array that begins at voxel ``first``."""
    return tuple(
        slice(at - start, at - start + side) for at, start, side in zip(part[0], first, part[1])
    )


def denoised_region(predictor, perturbation, start, size, tile_size, network):
    """A small region, denoised, standardised: array (Z, Y, X) of shape ``size``."""
    region = np.zeros(size, dtype=np.float32)

    tiles = tiling(size, tile_size, network)
    corners = [[first + offset for first, offset in zip(start, at)] for at in tiles.starts()]
    results = map_ordered(
        lambda predictor, corner: predictor.predict_tile(perturbation, corner, tiles.size),
        corners,
        [predictor] * predictor.tiles_in_flight(),
    )
    for _ in tiles.blend(results, [region]):
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
        slab = denoised_region(
            predictor, perturbation, start, size, 2 * config.patch_size, config.network
        )
        before.append(volume.destandardise(volume.region(start, size), start).take(half, axis))
        after.append(volume.destandardise(slab, start).take(half, axis))
    return before, after
