"""The tomograms, half-maps and ground truth that a command is given: opened, examined, prepared."""

import dataclasses
import functools
import itertools

from f2fd_core.commands import half_maps
from f2fd_core.config import UserError
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.rescaling import Rescaling
from f2fd_core.data.source import refuse_other_shape
from f2fd_core.data.volume import Volume
from f2fd_core.filters.deconvolution import preparation
from f2fd_core.noise import axes_of_volume
from f2fd_core.perturbation.noise_matched import noise_of
from f2fd_core.runtime import console
from f2fd_core.runtime.device import choose_devices

# From this relative difference on, voxel sizes are not the same.
VOXEL_SIZE_TOLERANCE = 0.1


def share_of(config, group):
    """The configuration of a command with the tomograms of this task of a group, of which it
    says how many they are."""
    if group.size == 1:
        return config
    own = {name for _, name in group.shard(config.names())}
    console.say(f"task {group.rank + 1} of {group.size} has {len(own)} of the tomograms")
    return config.without(set(config.names()) - own)


def open_silently(config, trained):
    """The same as :func:`open_as_they_are`, without a word."""

    def volumes_of(paths):
        return [Volume(path, trained.clip, config.voxel_size) for path in paths]

    volumes = volumes_of(config.half_maps or config.tomograms)
    if config.half_maps:
        volumes = [
            HalfMaps(pair, path)
            for pair, path in zip(zip(volumes[::2], volumes[1::2]), config.names())
        ]
        for halves, whole in itertools.zip_longest(volumes, volumes_of(config.tomograms)):
            halves.warnings += half_maps.check(halves, noises_of(config, trained), whole)
    for volume in volumes:
        volume.axes_found = axes_of_volume(volume)
    return volumes


def noises_of(config, trained):
    """The function that gives the NoiseModel of a volume, on the device of a command."""
    return functools.partial(noise_of, config=trained, device=choose_devices(config.device)[0])


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


def warn_of_voxel_sizes(volumes, expected, model="model", remedy="; --rescale avoids it"):
    """Warn of tomograms whose voxel size differs from the one (Å) that is ``expected`` by the
    ``model``; ``remedy``: what can be done."""
    for volume in volumes:
        if _differs(volume, expected):
            console.warn(
                f"{volume.source.path} has voxels of {volume.voxel_size:g} Å, but "
                f"the {model} was trained at {expected:g} Å; results may suffer{remedy}"
            )


def _differs(volume, voxel_size):
    return abs(volume.voxel_size - voxel_size) > VOXEL_SIZE_TOLERANCE * voxel_size


def as_trained(volume, trained, own=None, voxel_size=0.0):
    """A tomogram as a training prepares it, for its TrainConfig ``trained``.

    ``own``: the configuration of another command, with the tomogram's CTF; ``voxel_size`` (Å):
    which it is brought to if its own differs by more than VOXEL_SIZE_TOLERANCE; 0: none.
    """
    if voxel_size and _differs(volume, voxel_size):
        volume = volume.rescaled(voxel_size)
    return volume.prepared_by(preparation(volume.source.path, trained, own))


def shape_as_trained(volume, voxel_size):
    """The shape (Z, Y, X) that a tomogram has once it is brought to a voxel size, as by
    :func:`as_trained`; raises UserError if it would be too small."""
    if voxel_size and _differs(volume, voxel_size):
        return Rescaling(volume.shape, volume.voxel_size / voxel_size).scaled
    return volume.shape


def open_volumes(config):
    """The same as :func:`open_as_they_are` of a TrainConfig, prepared as it says; raises UserError
    for different voxel sizes, unless they are to be rescaled to that of the first."""
    volumes = open_as_they_are(config, config)
    for volume in volumes:
        first = volumes[0]
        if _differs(volume, first.voxel_size) and not config.rescale:
            raise UserError(
                f"{volume.source.path} has voxels of {volume.voxel_size:g} Å, but "
                f"{first.source.path} {first.voxel_size:g} Å; expected the same: train on each "
                "apart, or give --rescale"
            )
    volumes = [as_trained(volume, config, voxel_size=volumes[0].voxel_size) for volume in volumes]
    return [_without_unfit_half_maps(volume, config) for volume in volumes]


def _without_unfit_half_maps(volume, config):
    """A volume, without its half-maps if the noise can't be read off their difference."""
    if (
        config.perturbation != "noise_matched"
        or not isinstance(volume, HalfMaps)
        or half_maps.difference_over_noise(volume, noises_of(config, config))
        <= half_maps.MORE_NOISE
    ):
        return volume
    console.warn(
        f"{volume.source.path}: its half-maps differ by more than noise, as those of every other "
        "tilt of a thick specimen do; it is trained on without them"
    )
    return volume.alone()


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
        name = f"the ground truth {truth.source.path}"
        refuse_other_shape(name, truth.shape, volume.shape, volume.source.path)
    return truths
