"""How long a training and denoising will take, by the first steps, and what memory they have."""

import math

import torch

from f2fd_core.config import prediction_defaults
from f2fd_core.prediction.predictor import tiling
from f2fd_core.runtime.console import duration

# Steps that measure how long a training will take, and those before that do not count.
MEASURED_STEPS = 5
WARMING_STEPS = 2
FORWARD_SHARE = 1 / 3
"""Share of the forward pass in a training step: the backward pass takes about twice as long."""


def resident_gib(peak=False):
    """Memory that this process has resident, or the most it had."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status", encoding="ascii") as stream:
        (line,) = [line for line in stream if line.startswith(wanted)]
    return int(line.split()[1]) / 2**20


def predicted_voxels(shape, trained):
    """Voxels that pass through the network when a tomogram of ``shape`` is denoised.

    ``trained``: the TrainConfig of the model, denoising with its defaults.
    """
    defaults = prediction_defaults(trained)
    tiles = tiling(shape, defaults["tile_size"], trained.network)
    return len(tiles) * math.prod(tiles.size) * defaults["predictions"]


def of_training(training, seconds):
    """A sentence on a :class:`~f2fd_core.training.state.Training` whose steps take so many seconds.

    The time of denoising is estimated from that of the steps.
    """
    config = training.config
    steps = training.most_steps()
    computed = config.batch_size * config.samples_per_patch * config.patch_size**3
    voxels = sum(predicted_voxels(shape, config) for shape in training.shapes)
    denoising = FORWARD_SHARE * seconds / computed * voxels / training.group.size
    used = f"{resident_gib():.1f} GiB of memory in use"
    if training.device.type == "cuda":
        used += f", {torch.cuda.max_memory_allocated(training.device) / 2**30:.1f} GiB of the GPU's"
    which = "the tomogram" if len(training.shapes) == 1 else f"the {len(training.shapes)} tomograms"
    return (
        f"a step takes {seconds:.2g} s: {'' if training.steps else 'at most '}{steps} steps "
        f"about {duration(steps * seconds)}, and then denoising {which} about "
        f"{duration(denoising)}; {used}"
    )
