"""Denoising files, each tile by tile, in the tomogram's own intensities."""
import contextlib
import copy
import dataclasses
import itertools
import json
import os

import numpy as np
import torch

from f2fd_core.commands.inputs import open_as_they_are, warn_of_voxel_sizes
from f2fd_core.config import NETWORK_MULTIPLE, UserError
from f2fd_core.data import mrc
from f2fd_core.data.intensity import Intensities
from f2fd_core.filters.deconvolution import preparation
from f2fd_core.network import checkpoint
from f2fd_core.perturbation import perturbation_for_prediction
from f2fd_core.prediction.predictor import (
    SMALLEST_TILE,
    Predictor,
    batch_and_tile,
    halved,
    tiling,
    with_context,
)
from f2fd_core.runtime import console, figures, files, lock
from f2fd_core.runtime.device import (
    arithmetic,
    choose_devices,
    free_memory,
    prepare_cpu,
    repeatable,
    works_apart,
)
from f2fd_core.runtime.workers import Ahead, in_order
from f2fd_core.training.contrast import in_contrast

OTHERS = {"model": "another model", "tomogram": "another tomogram", "settings": "other settings"}
# The largest tile that is chosen: what belongs to a tile takes a fast GPU longer than its voxels if
# there are few.
LARGEST_TILE = 192
MEMORY_SHARE = 0.6
# Standard deviation of a result over the tomogram's: to take noise away can't make it more, but a
# part may have more of it than the whole.
MOST_CONTRAST = 1.2


def _fit_to_memory(predictors, asked, config, trained):
    """Choose what was left to choose (0) in the DenoiseConfig ``asked`` by the GPUs' free memory.

    Gives the predictors their batch size; returns the tile size.
    """
    sides = []
    usual = trained.preset == "default"
    for predictor in predictors:
        if predictor.device.type != "cuda":
            continue
        voxels = MEMORY_SHARE * free_memory(predictor.device) / predictor.bytes_per_voxel()
        # The copies of the published method are drawn in batches of a fixed size.
        most = config.predictions if usual else config.batch_size
        batch, side = batch_and_tile(voxels, config.tile_size, most,
                                     NETWORK_MULTIPLE[trained.network],
                                     LARGEST_TILE if usual and not asked.tile_size else 0)
        if not asked.batch_size:
            predictor.batch_size = batch
        if not asked.tile_size:
            sides.append(side)
    return min(sides, default=config.tile_size)


def _companion(path, ending):
    """The file that goes with a denoised tomogram, such as <name>_std.mrc."""
    return path[:-len(files.DENOISED)] + ending


def denoise(config, finished=None):
    """Denoise tomograms with a model; returns the paths of the denoised files.

    Each ``<name>_denoised.mrc`` is float32 in the input's units, with its voxel size, origin and
    start indices. Everything is checked before the first is computed; raises UserError. At the end
    ``finished(volumes)`` is called with the standardised tomograms that were denoised.
    """
    prepare_cpu(config.threads)
    devices = choose_devices(config.device)
    dtype = arithmetic(config.precision, devices[0])
    state = checkpoint.load(config.model)
    network, trained = checkpoint.restore(state, config.model)
    asked, config = config, config.for_model(trained)
    left_out = files.results_among(config.names())
    console.tell_left_out(left_out)
    config = config.without(left_out)
    paths = files.output_paths(config.names(), config.output, files.DENOISED)
    results = [result for path in paths.values()
               for result in (*_volumes_of(path, config.std), _companion(path, files.PICTURE),
                                 _companion(path, files.VERDICT))]
    files.refuse_existing(results, config.overwrite or config.resume,
                          "--overwrite to replace it or --resume to skip finished tomograms")
    made_of = _fingerprints(config)
    files.refuse_inputs(results, [config.model, *itertools.chain(*config.inputs()),
                                  *mrc.originals(left_out)])
    done = {name for name, path in paths.items()
            if config.resume and _finished(path, config.std, made_of[name])}
    lock.refuse_held(path for name, path in paths.items() if name not in done)
    volumes = open_as_they_are(config.without(done), trained)
    boxes = [box_of(volume, config.region) for volume in volumes]
    files.make_folder(config.output)

    console.announce_devices(devices, dtype, "denoising")
    predictors = [Predictor(copy.deepcopy(network).to(device, memory_format=torch.channels_last_3d),
                            device, dtype, config.predictions, config.batch_size, config.seed,
                            config.compile, trained.prediction_turns(), config.std)
                  for device in devices]
    config = dataclasses.replace(
        config, tile_size=_fit_to_memory(predictors, asked, config, trained))
    warn_of_voxel_sizes(volumes, state["voxel_size"], "the model was trained at")
    with repeatable(config.deterministic):
        _denoise_all([(volume, box, paths[volume.source.path], made_of[volume.source.path])
                      for volume, box in zip(volumes, boxes)], predictors, config, trained)
    if finished:
        finished(volumes)
    return list(paths.values())


def _fingerprints(config):
    """{tomogram: what its result is made of, in few words}; raises UserError for files that can't
    be read."""
    model = files.fingerprint(config.model)
    settings = files.fingerprint(text=json.dumps(config.settings()))
    found = {}
    for name, paths in zip(config.names(), config.inputs()):
        for path in paths:  # what is no tomogram may have no end
            mrc.open_volume(path, config.voxel_size)
        found[name] = "model=%s tomogram=%s settings=%s" % (model, files.fingerprint(*paths),
                                                            settings)
    return found


def _volumes_of(path, std):
    """The denoised tomogram and, if that is wanted, its standard deviation."""
    return [path, _companion(path, files.DEVIATION)] if std else [path]


def _finished(path, std, made_of):
    """Whether nothing is left to do for a result, which is then told.

    Raises UserError if what is there was made of something else, or is a picture of the user's.
    """
    names = _volumes_of(path, std)
    there = [name for name in names if os.path.exists(name)]
    for name in there:
        noted = mrc.open_volume(name, voxel_size=1.0).made_of
        others = [OTHERS[part.split("=")[0]] for part in made_of.split() if part not in noted]
        if others:
            raise UserError("%s was made of %s; it is kept: give --overwrite to replace it, or "
                            "another output folder"
                            % (name, " and ".join(others) if noted else "what it does not tell"))
    if there == names:
        console.say("%s is finished: skipped" % path)
        return True
    picture = _companion(path, files.PICTURE)
    if os.path.exists(picture):  # as of a run that was killed before the tomogram had its name
        files.refuse_existing([picture], figures.drew(picture))
    return False


def box_of(volume, region):
    """(first voxel, shape), both (Z, Y, X), of the part of a volume that a DenoiseConfig's
    ``region`` names, of all if it is empty. Raises UserError if it lies outside."""
    first, shape = tuple(region[:3]) or (0, 0, 0), tuple(region[3:]) or volume.shape
    if min(shape) < 1 or any(at + side > length
                             for at, side, length in zip(first, shape, volume.shape)):
        raise UserError("--region is %s; expected a part of %s, which has %d x %d x %d voxels (Z, "
                        "Y, X)" % ((" ".join(map(str, region)), volume.source.path)
                                   + volume.shape))
    return first, shape


def _denoise_all(tomograms, predictors, config, trained):
    """Denoise ``tomograms``, tuples (volume, box, path of the result, what that is made of), on all
    devices.

    Each device has tomograms of its own while there is one for every device; of the rest, they
    share the tiles.
    """
    count, devices = len(tomograms), len(predictors)
    # A pool of masked copies takes a tomogram's memory several times: one at a time.
    pools = trained.perturbation == "masks"
    apart = 0 if devices == 1 or pools else count - count % devices
    prepare = preparation(trained, config.defocus)

    def perturbation_of(number):
        # Prepared voxels take a temporary file as large as the tomogram: only when its turn comes.
        return perturbation_for_prediction(
            tomograms[number][0].prepared_by(prepare), trained, predictors[0].device,
            config.predictions, config.pool_size)

    ahead = Ahead(perturbation_of, works_apart(predictors[0].device) and not pools)

    def denoise_number(workers, number):
        volume, box, path, made_of = tomograms[number]
        console.say("tomogram %d of %d: %s" % (number + 1, count, volume.source.path))
        with lock.held(path):
            perturbation = ahead.take(number)
            if apart <= number < count - 1:
                ahead.begin(number + 1)
            with in_contrast([predictor.network for predictor in workers], perturbation.volume,
                             trained, workers[0].device, workers[0].dtype):
                _denoise_one(box, perturbation, path, workers, config, trained, made_of)

    def dismiss():
        for predictor in predictors:
            predictor.dismissed.set()

    for _ in in_order(lambda predictor, number: denoise_number([predictor], number), range(apart),
                      predictors, dismiss):
        pass
    for number in range(apart, count):
        denoise_number(predictors, number)


def _denoise_one(box, perturbation, path, predictors, config, trained, made_of):
    """Denoise the ``box`` (see :func:`box_of`) of a perturbation's tomogram, in smaller tiles if a
    GPU's memory does not suffice."""
    volume = perturbation.volume
    workers = []
    for predictor in predictors:
        workers += [(predictor, perturbation.on(predictor.device))] * predictor.hands()
    side, multiple = config.tile_size, NETWORK_MULTIPLE[trained.network]
    # All models are called model.pt: the folders tell which it is.
    model = os.sep.join(os.path.abspath(config.model).split(os.sep)[-3:])
    while True:
        try:
            _denoise_in_tiles(volume, box, path, workers, side, trained.network, config.std,
                              "denoised by " + model, made_of)
            break
        except torch.cuda.OutOfMemoryError:
            if side <= SMALLEST_TILE:
                raise UserError("the GPU's memory does not suffice even for tiles of %d voxels; "
                                "expected a GPU with more free memory, or --device cpu" % side)
        # Only now, without the error, is there nothing that holds what the failed tile had taken.
        torch.cuda.empty_cache()
        side = halved(side, multiple)
        console.warn("the GPU's memory does not suffice; starting %s again with tiles of %d voxels"
                    % (volume.source.path, side))
    console.say("written to %s" % path)
    excess = Intensities.measured(mrc.open_volume(path, 1.0)).std / volume.std
    if excess > MOST_CONTRAST:
        console.warn("%s has %.1f times the standard deviation of the tomogram; expected less than "
                    "once: the model does not suit it; train longer, or with larger patches"
                    % (path, excess))


def _denoise_in_tiles(volume, box, path, workers, side, network, std, label, made_of):
    """Write the denoised ``box`` of a tomogram, with ``std`` its companion, and the picture.

    ``workers``: a list of (Predictor, perturbation), which share the tiles of ``side`` voxels for
    the ``network`` of this name; ``label``: what the headers say. Only a part of the tomogram is
    held in memory.
    """
    first, shape = with_context(box, volume)
    tiles = tiling(shape, side, network)

    def predict(worker, at):
        predictor, perturbation = worker
        start = tuple(corner + offset for corner, offset in zip(first, at))
        mean, *variance = predictor.moments(perturbation, start, tiles.size)
        # The variance in the file's units may be beyond what float32 holds.
        return [volume.restore(mean, start).astype(np.float32), *variance]

    def abandon():
        for predictor, _ in workers:
            predictor.abandoned.set()

    for predictor, _ in workers:
        predictor.abandoned.clear()
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(mrc.new_volume(
            name, *volume.source.header(*box), volume.source.labels, label, made_of))
            for name in _volumes_of(path, std)]
        bar = stack.enter_context(console.progress(len(tiles), "tile"))
        blended = outputs if shape == box[1] else [np.zeros(shape, np.float32) for _ in outputs]
        for _ in tiles.blend(in_order(predict, tiles.starts(), workers, abandon), blended):
            bar.update()
        if blended is not outputs:
            inner = tuple(slice(at - start, at - start + length)
                          for at, length, start in zip(*box, first))
            for output, values in zip(outputs, blended):
                output[:] = values[inner]
        if std:
            for slab in mrc.slabs(box[1]):
                outputs[1][slab] = np.sqrt(outputs[1][slab]) * volume.std
        after = [np.array(outputs[0][index]) for index in figures.central_slices(box[1])]
        # The denoised tomogram gets its name last: where it is, nothing is left to do.
        figures.draw_slices(volume.central_sections(*box), after, _companion(path, files.PICTURE),
                           volume.source.name)
