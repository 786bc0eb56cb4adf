"""What training and denoising take on this machine."""

import math
import os
import tempfile
import time

import numpy as np
import torch

from f2fd_core.commands.train import open_for_training
from f2fd_core.config import TrainConfig, prediction_defaults
from f2fd_core.data import mrc
from f2fd_core.prediction.predictor import Predictor
from f2fd_core.runtime.console import duration
from f2fd_core.runtime.device import device_name, prepare_cpu, runs_asynchronously
from f2fd_core.training.eta import predicted_voxels, resident_gib
from f2fd_core.training.trainer import train_step

MEASURED_SHAPE = (96, 96, 96)
MEASURED_SECONDS = 10.0
STEPS_TOLD = 1000
FLOAT32_BYTES = 4


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
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "noise.mrc")
        values = np.random.default_rng(0).normal(size=MEASURED_SHAPE).astype(np.float32)
        mrc.write_volume(path, values, 10.0)
        settings = TrainConfig(
            tomograms=(path,),
            output=folder,
            steps=STEPS_TOLD,
            device=config.device,
            threads=config.threads,
        )
        prepare_cpu(config.threads)
        training = open_for_training(settings)

        def step():
            train_step(training)
            training.step += 1

        defaults = prediction_defaults(settings)
        # As many at once as denoising does.
        on_gpu = runs_asynchronously(training.device)
        predictions = defaults["predictions" if on_gpu else "batch_size"]
        predictor = Predictor(
            training.model(), training.device, training.dtype, predictions, predictions
        )
        perturbation = training.perturbations[0].for_prediction(defaults["predictions"])
        side = (defaults["tile_size"],) * 3
        step_seconds = _calls_within(step, training.device, MEASURED_SECONDS)
        tile_seconds = _calls_within(
            lambda: predictor.predict_tile(perturbation, (0, 0, 0), side),
            training.device,
            MEASURED_SECONDS,
        )
    tomogram = math.prod(config.shape) * FLOAT32_BYTES / 2**30
    denoising = (
        predicted_voxels(config.shape, settings) * tile_seconds / (predictions * math.prod(side))
    )
    result = {
        "device": device_name(training.device),
        "precision": str(training.dtype).split(".")[-1],
        "shape": list(config.shape),
        "tomogram_gib": round(tomogram, 2),
        "seconds_per_step": round(step_seconds, 4),
        f"training_{STEPS_TOLD}_steps": duration(STEPS_TOLD * step_seconds),
        f"denoising_{defaults['predictions']}_predictions": duration(denoising),
        # Of the tomogram and of its result what was touched stays in memory while there is room.
        "memory_gib_at_most": round(resident_gib(peak=True) + 2 * tomogram, 1),
    }
    if training.device.type == "cuda":
        result["gpu_memory_gib"] = round(
            torch.cuda.max_memory_allocated(training.device) / 2**30, 1
        )
    return result
