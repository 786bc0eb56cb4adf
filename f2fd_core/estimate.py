"""How long training and denoising will take, and how much memory they need."""
import math
import os
import tempfile
import time

import numpy as np
import torch

from f2fd_core import mrc
from f2fd_core.config import TrainConfig
from f2fd_core.denoising import Predictor, tiling
from f2fd_core.device import device_name, prepare_cpu
from f2fd_core.report import duration

WARMING_STEPS, TIMED_STEPS = 2, 5
FORWARD_SHARE = 1 / 3
"""Share of the forward pass in a training step: the backward pass takes about twice as long."""
MEASURED_SHAPE = (96, 96, 96)
MEASURED_SECONDS = 10.0
STEPS_TOLD = 1000
FLOAT32_BYTES = 4


def resident_gib(peak=False):
    """Memory that this process has resident, or the most it had."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status", encoding="ascii") as stream:
        line, = [line for line in stream if line.startswith(wanted)]
    return int(line.split()[1]) / 2 ** 20


def predicted_voxels(shape, trained):
    """Voxels that pass through the network when a tomogram of ``shape`` is denoised.

    ``trained``: the TrainConfig of the model, denoising with its defaults.
    """
    defaults = trained.prediction_defaults()
    tiles = tiling(shape, defaults["tile_size"], trained.network)
    return len(tiles) * math.prod(tiles.size) * defaults["predictions"]


def of_training(training, seconds):
    """A sentence on a :class:`~f2fd_core.training.Training` whose steps take so many seconds.

    The time of denoising is told from that of the steps.
    """
    config = training.config
    steps = training.most_steps()
    computed = config.batch_size * config.samples_per_patch * config.patch_size ** 3
    voxels = sum(predicted_voxels(shape, config) for shape in training.shapes)
    denoising = FORWARD_SHARE * seconds / computed * voxels / training.group.size
    used = "%.1f GiB of memory in use" % resident_gib()
    if training.device.type == "cuda":
        used += ", %.1f GiB of the GPU's" % (
            torch.cuda.max_memory_allocated(training.device) / 2 ** 30)
    return "a step takes %.2g s: %s%d steps about %s, and then denoising %s about %s; %s" % (
        seconds, "" if training.steps else "at most ", steps, duration(steps * seconds),
        "the tomogram" if len(training.shapes) == 1 else "the %d tomograms" % len(training.shapes),
        duration(denoising), used)


def _calls_within(function, device, seconds):
    """Mean seconds of a call, from as many as fit into some seconds, after two to warm up."""
    function()
    function()
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < seconds:
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        count += 1
    return (time.monotonic() - began) / count


def measure(config):
    """What training and denoising take on this machine with the default settings, a dictionary.

    ``config``: an InfoConfig, whose ``shape`` (Z, Y, X) is that of the tomogram in question. Steps
    and tiles are timed on a small volume of random numbers.
    """
    from f2fd_core.training import open_for_training
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "noise.mrc")
        values = np.random.default_rng(0).normal(size=MEASURED_SHAPE).astype(np.float32)
        mrc.write_volume(path, values, 10.0)
        settings = TrainConfig(tomograms=(path,), output=folder, steps=STEPS_TOLD,
                               device=config.device, threads=config.threads)
        prepare_cpu(config.threads)
        training = open_for_training(settings)

        def step():
            training.take_step()
            training.step += 1

        defaults = settings.prediction_defaults()
        predictions = defaults["batch_size"]
        predictor = Predictor(training.model(), training.device, training.dtype, predictions,
                              predictions)
        perturbation = training.perturbations[0].for_prediction(defaults["predictions"])
        side = (defaults["tile_size"],) * 3
        step_seconds = _calls_within(step, training.device, MEASURED_SECONDS)
        tile_seconds = _calls_within(
            lambda: predictor.moments(perturbation, (0, 0, 0), side), training.device,
            MEASURED_SECONDS)
    tomogram = math.prod(config.shape) * FLOAT32_BYTES / 2 ** 30
    denoising = predicted_voxels(config.shape, settings) * tile_seconds / (
        predictions * math.prod(side))
    result = {
        "device": device_name(training.device), "precision": str(training.dtype).split(".")[-1],
        "shape": list(config.shape), "tomogram_gib": round(tomogram, 2),
        "seconds_per_step": round(step_seconds, 4),
        "training_%d_steps" % STEPS_TOLD: duration(STEPS_TOLD * step_seconds),
        "denoising_%d_predictions" % defaults["predictions"]: duration(denoising),
        # Of the tomogram and of its result what was touched stays in memory while there is room.
        "memory_gib_at_most": round(resident_gib(peak=True) + 2 * tomogram, 1)}
    if training.device.type == "cuda":
        result["gpu_memory_gib"] = round(
            torch.cuda.max_memory_allocated(training.device) / 2 ** 30, 1)
    return result
