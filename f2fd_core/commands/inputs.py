"""The tomograms, half-maps and ground truth that a command is given: opened, examined, prepared."""

import dataclasses
import itertools

from f2fd_core.config import UserError
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.volume import Volume
from f2fd_core.filters.deconvolution import preparation
from f2fd_core.noise import axes_of_volume, half_maps
from f2fd_core.runtime import console

# From this relative difference on, voxel sizes are not the same.
VOXEL_SIZE_TOLERANCE = 0.1


def open_silently(config, trained):
    """The same as :func:`open_as_they_are`, without a word."""

    def volumes_of(paths):
        return [Volume(path, trained.clip, config.voxel_size) for path in paths]

    volumes = volumes_of(config.half_maps or config.tomograms)
    if config.half_maps:
        volumes = [
            HalfMaps(pair, path, trained.perturbation != "noise2noise")
            for pair, path in zip(zip(volumes[::2], volumes[1::2]), config.names())
        ]
        for halves, whole in itertools.zip_longest(volumes, volumes_of(config.tomograms)):
            halves.warnings += half_maps.check(halves, whole)
    for volume in volumes:
        volume.axes_found = axes_of_volume(volume)
    return volumes


def open_as_they_are(config, trained):
    """The tomograms or half-maps of a TrainConfig or another, with their warnings reported.

    ``trained``: the TrainConfig of the model, which says whether outliers are clipped and what is
    learned from half-maps. Raises UserError.
    """
    volumes = open_silently(config, trained)
    for volume in volumes:
        for warning in [*volume.warnings, *filter(None, [volume.orientation()])]:
            console.warn(warning)
    return volumes


def warn_of_voxel_sizes(volumes, expected, other):
    """Warn of tomograms whose voxel size differs from the one that is ``expected`` (Å); ``other``:
    what has that one, with its verb."""
    for volume in volumes:
        if abs(volume.voxel_size - expected) > VOXEL_SIZE_TOLERANCE * expected:
            console.warn(
                f"{volume.source.path} has voxels of {volume.voxel_size:g} Å, but "
                f"{other} {expected:g} Å; results may suffer"
            )


def open_volumes(config):
    """The same of a TrainConfig, prepared as it says."""
    return [
        volume.prepared_by(preparation(volume.source.path, config))
        for volume in open_as_they_are(config, config)
    ]


def open_ground_truth(config, volumes):
    """The ground truth of a TrainConfig, one for each of its ``volumes``; raises UserError for
    other shapes."""
    truths = open_volumes(
        dataclasses.replace(
            config,
            tomograms=config.ground_truth,
            half_maps=(),
            ground_truth=(),
            sampling_masks=(),
            perturbation="noise_matched",
        )
    )
    for truth, volume in zip(truths, volumes):
        if truth.shape != volume.shape:
            raise UserError(
                f"the ground truth {truth.source.path} has shape {truth.shape}; "
                f"expected {volume.shape} (Z, Y, X) as in {volume.source.path}"
            )
    return truths
