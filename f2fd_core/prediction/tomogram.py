"""A tomogram denoised tile by tile, in its own intensities."""

import contextlib
import os

import numpy as np
import torch

from f2fd_core.config import NETWORK_MULTIPLE, UserError
from f2fd_core.data import formats
from f2fd_core.data.intensity import Intensities
from f2fd_core.data.regions import in_words
from f2fd_core.data.source import slabs
from f2fd_core.prediction.memory import SMALLEST_TILE, halved
from f2fd_core.prediction.predictor import tiling, with_context
from f2fd_core.runtime import console, figures, files
from f2fd_core.runtime.mapped import DiskArray
from f2fd_core.runtime.workers import map_ordered

# Standard deviation of a result over the tomogram's: to take noise away can't make it more, but a
# part may have more of it than the whole.
MOST_CONTRAST = 1.2


def box_of(volume, region):
    """(first voxel, shape), both (Z, Y, X), of the part of a volume that a DenoiseConfig's
    ``region`` names, of all if it is empty. Raises UserError if it lies outside."""
    first, shape = tuple(region[:3]) or (0, 0, 0), tuple(region[3:]) or volume.shape
    if min(shape) < 1 or any(
        at + side > length for at, side, length in zip(first, shape, volume.shape)
    ):
        raise UserError(
            f"--region is {' '.join(map(str, region))}; expected a part of "
            f"{volume.source.path}, which has {in_words(volume.shape)} voxels "
            "(Z, Y, X)"
        )
    return first, shape


def denoise_tomogram(box, perturbation, path, predictors, config, trained, made_of, copy=None):
    """Denoise the ``box`` (see :func:`box_of`) of a perturbation's tomogram into the file ``path``,
    with its standard deviation beside it if the DenoiseConfig wants that, and the picture.

    ``copy``: an array of the box's shape that gets the denoised voxels, too, as float32.
    """
    volume = perturbation.volume
    # All models are called model.pt: the folders show which it is.
    label = "denoised by " + os.sep.join(os.path.abspath(config.model).split(os.sep)[-3:])

    def attempt(workers, side):
        return _write_denoised(
            volume, box, path, workers, side, trained.network, config, label, made_of, copy
        )

    std = _in_tiles_that_fit(attempt, perturbation, predictors, config, trained)
    console.say(f"written to {path}")
    excess = std / volume.std
    if excess > MOST_CONTRAST:
        console.warn(
            f"{path} has {excess:.1f} times the standard deviation of the tomogram; "
            "expected less than once: the model does not suit it; train longer, or with "
            "larger patches"
        )


def predicted_box(box, perturbation, predictors, config, trained):
    """What the networks of ``predictors`` make of the ``box`` of a perturbation's tomogram: an
    array (Z, Y, X) in the file's units, on disk."""

    def attempt(workers, side):
        result = DiskArray(box[1], np.float32).array
        _predict_box(perturbation.volume, box, workers, side, trained.network, [result])
        return result

    return _in_tiles_that_fit(attempt, perturbation, predictors, config, trained)


def _in_tiles_that_fit(attempt, perturbation, predictors, config, trained):
    """What ``attempt(workers, side of the tiles)`` returns, in smaller tiles if a GPU's memory does
    not suffice. The workers, (Predictor, perturbation), share the tiles."""
    workers = []
    for predictor in predictors:
        workers += [(predictor, perturbation.on(predictor.device))] * predictor.tiles_in_flight()
    side, multiple = config.tile_size, NETWORK_MULTIPLE[trained.network]
    while True:
        try:
            return attempt(workers, side)
        except torch.cuda.OutOfMemoryError:
            if side <= SMALLEST_TILE:
                raise UserError(
                    f"the GPU's memory does not suffice even for tiles of {side} "
                    "voxels; expected a GPU with more free memory, or --device cpu"
                )
        # Only now, without the error, is there nothing that holds what the failed tile had taken.
        torch.cuda.empty_cache()
        side = halved(side, multiple)
        console.warn(
            f"the GPU's memory does not suffice; starting {perturbation.volume.source.path} again "
            f"with tiles of {side} voxels"
        )


def _write_denoised(volume, box, path, workers, side, network, config, label, made_of, copy):
    """Write the denoised ``box`` of a tomogram, what goes with it, and the picture.

    ``workers`` share the tiles of ``side`` voxels for the ``network`` of this name; ``label``: what
    the headers say. Only a part of the tomogram is held in memory. Returns the standard deviation
    of what was written.
    """
    with contextlib.ExitStack() as stack:
        outputs = [
            stack.enter_context(
                formats.new_volume(
                    name,
                    **volume.source.header(*box),
                    labels=volume.source.labels,
                    done=label,
                    made_of=made_of,
                    dtype=config.dtype,
                )
            )
            for name in files.volumes_of(path, config.std)
        ]
        _predict_box(volume, box, workers, side, network, outputs)
        if copy is not None:
            copy[:] = outputs[0]
        if config.std:
            for slab in slabs(box[1]):
                # Resampled, a variance may be below 0 where it changes abruptly.
                outputs[1][slab] = np.sqrt(np.maximum(outputs[1][slab], 0)) * volume.std
        after = [np.array(outputs[0][index]) for index in figures.central_slices(box[1])]
        # The denoised tomogram gets its name last: where it is, nothing is left to do.
        figures.draw_slices(
            volume.central_sections(*box),
            after,
            files.companion(path, files.PICTURE),
            volume.source.name,
        )
        return Intensities.measured(outputs[0]).std


def _predict_box(volume, box, workers, side, network, outputs):
    """Predict the ``box`` of a volume, tile by tile, into ``outputs``, arrays of its shape: the
    mean in the file's units and, if there is a second one, the variance."""
    inside = box if volume.rescaling is None else ((0, 0, 0), volume.shape)
    first, shape = with_context(inside, volume)
    tiles = tiling(shape, side, network)

    def predict(worker, at):
        predictor, perturbation = worker
        start = tuple(corner + offset for corner, offset in zip(first, at))
        mean, *variance = predictor.predict_tile(perturbation, start, tiles.size)
        # The variance in the file's units may be beyond what float32 holds.
        return [volume.destandardise(mean, start).astype(np.float32), *variance]

    def cancel():
        for predictor, _ in workers:
            predictor.cancelled.set()

    for predictor, _ in workers:
        predictor.cancelled.clear()
    with console.progress(len(tiles), "tile") as bar:
        direct = volume.rescaling is None and shape == box[1]
        blended = outputs if direct else [_blank(shape, volume) for _ in outputs]
        for _ in tiles.blend(map_ordered(predict, tiles.starts(), workers, cancel), blended):
            bar.update()
        if not direct:
            for output, values in zip(outputs, blended):
                output[:] = _in_box(values, first, box, volume.rescaling)


def _in_box(values, first, box, rescaling):
    """The part in the ``box`` (first voxel, shape) of ``values``, whose first voxel is ``first``;
    for a ``rescaling``, if there is one, they are the whole volume, which it brings back."""
    if rescaling is not None:
        values = rescaling.back(values)
    return values[
        tuple(slice(at - start, at - start + length) for at, length, start in zip(*box, first))
    ]


def _blank(shape, volume):
    """Zeros for a part of the volume, or on disk for all of it, if it is rescaled."""
    if volume.rescaling is None:
        return np.zeros(shape, np.float32)
    return DiskArray(shape, np.float32).array
