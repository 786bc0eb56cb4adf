"""What a training learns from: its patches, and the batch of each step, a pair of every patch."""

import itertools
from typing import NamedTuple, Optional

import torch

from f2fd_core.config import UserError
from f2fd_core.data import formats
from f2fd_core.data.orientation import turned
from f2fd_core.data.patches import all_patches, augment, shifted
from f2fd_core.data.source import refuse_other_shape, slabs
from f2fd_core.data.specimen import find_specimen
from f2fd_core.runtime.device import to_device
from f2fd_core.runtime.randomness import GLOBAL

# The least share of a patch that is no constant part.
LEAST_CONTENT = 0.5


def sampling_masks(config, volumes):
    """Where in its tomograms a training learns: for each an array-like (Z, Y, X), above 0.5 inside,
    or None for everywhere; none at all without masks.

    Raises UserError for masks that don't fit the tomograms.
    """
    if config.finds_specimen():
        return [find_specimen(volume) for volume in volumes]
    masks = [formats.open_volume(path, config.voxel_size or 1.0) for path in config.sampling_masks]
    for mask, volume in zip(masks, volumes):
        name = f"the sampling mask {mask.path}"
        refuse_other_shape(name, mask.shape, volume.shape, volume.source.path)
    return masks


def sampled_patches(config, volumes, masks):
    """The grid patches (see :func:`~f2fd_core.data.patches.all_patches`) that a training draws;
    none that is mostly a constant part, as long as there are others.

    ``masks``: see :func:`sampling_masks`. Raises UserError where one leaves nothing of a tomogram.
    """
    patches = all_patches([volume.shape for volume in volumes], config.patch_size, masks)
    drawn = {index for index, _ in patches}
    for index, mask in enumerate(masks):
        if index not in drawn:
            ends = [(mask[slab].min(), mask[slab].max()) for slab in slabs(mask.shape)]
            low, high = min(end[0] for end in ends), max(end[1] for end in ends)
            raise UserError(
                f"--sampling-masks: no patch of {config.patch_size} voxels has a "
                f"twentieth inside {mask.path}, whose values are {low:g} "
                f"to {high:g}; expected a mask with more voxels above 0.5"
            )
    size = (config.patch_size,) * 3
    return [
        (index, start)
        for index, start in patches
        if volumes[index].content(start, size) >= LEAST_CONTENT
    ] or patches


class Batch(NamedTuple):
    """What a step learns from, each (patches x pairs, 1, Z, Y, X).

    ``weights`` and the ground ``truth`` are None where there are none, and so are the noise
    ``scales``, which broadcast with the rest, see :class:`~f2fd_core.perturbation.base.Pairs`, if
    not all patches have one.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: Optional[torch.Tensor]
    truth: Optional[torch.Tensor]
    scales: Optional[torch.Tensor]


def batch_of(patches, volumes, perturbations, truths, config, held_out=None, randoms=None):
    """The :class:`Batch` of some patches, all parts of a patch turned alike: so that the depth is
    along Z and the tilt axis along Y, and then at random.

    ``held_out``: the :class:`~f2fd_core.training.validation.ValidationCubes`, if there are some;
    ``randoms``: a :class:`~f2fd_core.runtime.randomness.Randomness` for each patch; None:
    PyTorch's own generators.
    """
    side, count = (config.patch_size,) * 3, config.samples_per_patch
    stacks = []
    for (index, grid_start), random in zip(patches, randoms or itertools.repeat(GLOBAL)):
        start = shifted(
            grid_start, volumes[index].shape, config.patch_size, config.patch_shift, random
        )
        pairs = perturbations[index].pairs(start, side, count, random)
        device = pairs.inputs.device
        if held_out:
            allowed = to_device(held_out.weights(index, start), device).expand(count, *side)
            pairs = pairs._replace(
                weights=allowed if pairs.weights is None else allowed * pairs.weights
            )
        truth = None
        if truths:
            truth = to_device(torch.from_numpy(truths[index].region(start, side)), device)
            truth = truth.expand(count, *side)
        scale = pairs.scale and torch.full((count, 1, 1, 1), pairs.scale, device=device)
        parts = pairs.inputs, pairs.targets, pairs.weights, truth
        stack = turned(
            torch.stack([part for part in parts if part is not None]), volumes[index].axes
        )
        given = iter(augment(stack, config.augmentation, random))
        stacks.append([part if part is None else next(given) for part in parts] + [scale])
    return Batch._make(
        None if any(part is None for part in parts) else torch.cat(parts).unsqueeze(1)
        for parts in zip(*stacks)
    )
