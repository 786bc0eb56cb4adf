"""Every method on one tomogram, the filters and all that learn, each in a process of its own: its
peak memory is its own then.

The filters get the setting, of a list, whose result correlates best with the reference; where
there is none, the middle one.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Dict, NamedTuple

import numpy as np
import torch

from f2fd_core.benchmarking.cases import voxels
from f2fd_core.commands.denoise import denoise
from f2fd_core.commands.train import open_for_training, train
from f2fd_core.config import FILTERS, DeconvolveConfig, DenoiseConfig, TrainConfig, UserError
from f2fd_core.data import formats, mrc
from f2fd_core.data.regions import crop
from f2fd_core.evaluation import metrics
from f2fd_core.filters.deconvolution import deconvolved
from f2fd_core.network import checkpoint
from f2fd_core.runtime.device import choose_devices, prepare_cpu
from f2fd_core.training.eta import resident_gib
from f2fd_core.training.trainer import train_step

# Voxels (Z, Y, X) of the part on which filters are tuned.
TUNING_CROP = (64, 96, 96)
# Steps that measure the rate, and those before that do not count.
TIMED_STEPS = 10
UNTIMED_STEPS = 3
LEARNED: Dict[str, Dict[str, Any]] = {
    "noise_matched": {},
    "fourier_masks": {"perturbation": "fourier_masks"},
    "self2self": {"perturbation": "self2self", "dropout": 0.3},
    "noise2void": {"perturbation": "noise2void", "blind_reach": 1},
    "noise2noise": {"perturbation": "noise2noise"},
    "half-maps": {},
    "published": {"preset": "published"},
}
"""What differs from the default in each learned method's best known settings."""
HALF_MAPS = ("noise2noise", "half-maps")
"""The methods that learn from half-maps: by Noise2Noise, and by noise-matched pairs of their mean.
"""


class Outcome(NamedTuple):
    """What a method gave: path of its volume, and what it took."""

    path: str
    setting: str
    steps: int
    train_seconds: float
    denoise_seconds: float
    peak_gib: float


# The methods that need no training.


def _gaussian(volume, sigma, about):
    from skimage.filters import gaussian

    return gaussian(volume, sigma)


def _total_variation(volume, weight, about):
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(volume, weight)


def _non_local_means(volume, strength, about):
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(volume, patch_size=3, patch_distance=4, h=strength, fast_mode=True)


def _wiener_like(volume, strength, about):
    return deconvolved(volume, about.true_voxel_size[0], strength)


def _filter_settings(name, config):
    """(function, settings to choose from) of a filter; volumes are in standard deviations."""
    if name == "deconvolve":
        return _wiener_like, [
            DeconvolveConfig(
                defocus=config.defocus,
                phase_flipped=not config.tomogram,
                strength=strength,
                snr_falloff=falloff,
            )
            for strength in (-2.0, -1.0, 0.0, 1.0, 2.0)
            for falloff in (0.3, 0.5, 1.0, 2.0)
        ]
    return {
        "gaussian": (_gaussian, (0.7, 1.0, 1.5, 2.0, 3.0)),
        "tv": (_total_variation, (0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0)),
        "nlm": (_non_local_means, (0.5, 0.8, 1.2, 2.0, 3.0)),
    }[name]


def _words_of(setting):
    """A filter's setting in a few letters."""
    if isinstance(setting, DeconvolveConfig):
        return f"{setting.strength:g}/{setting.snr_falloff:g}"
    return f"{setting:g}"


def run_filter(name, config, case, path):
    """Run a filter with the best of its settings; returns an :class:`Outcome`."""
    function, settings = _filter_settings(name, config)
    source = formats.open_volume(case.tomogram, config.voxel_size)
    volume = np.array(source[:], dtype=np.float32)
    mean, std = float(volume.mean()), float(volume.std()) or 1.0
    volume = (volume - mean) / std
    best = settings[len(settings) // 2]
    if case.reference:
        size = tuple(min(pair) for pair in zip(TUNING_CROP, volume.shape))
        corner = [(length - side) // 2 for length, side in zip(volume.shape, size)]
        part = np.ascontiguousarray(crop(volume, corner, size))
        truth = torch.from_numpy(
            np.array(crop(voxels(case.reference), corner, size), dtype=np.float32)
        )

        def quality(setting):
            result = torch.from_numpy(np.array(function(part, setting, source), dtype=np.float32))
            return metrics.correlation(result, truth)

        best = max(settings, key=quality)
    began = time.monotonic()
    result = function(volume, best, source)
    seconds = time.monotonic() - began
    mrc.write_volume(
        path, np.asarray(result, dtype=np.float32) * std + mean, source.true_voxel_size[0]
    )
    return Outcome(path, _words_of(best), 0, 0.0, seconds, resident_gib(peak=True))


# The methods that learn.


def _train_config(name, config, case, folder, steps):
    halves = case.halves if name in HALF_MAPS else ()
    start = config.start if name in ("noise_matched", *HALF_MAPS) else "random"
    return TrainConfig.create(
        dict(
            LEARNED[name],
            start=start,
            tomograms=(case.tomogram,),
            half_maps=halves,
            output=folder,
            steps=steps,
            voxel_size=config.voxel_size,
            checkpoint_every=10**9,
            device=config.device,
            threads=config.threads,
            overwrite=True,
        )
    )


def _clock(device):
    """Seconds of this process: of its threads together on the CPU, by the wall with a GPU."""
    on_cpu = choose_devices(device)[0].type == "cpu"
    return time.process_time() / torch.get_num_threads() if on_cpu else time.monotonic()


def seconds_per_step(settings):
    """Time of a training step, measured on a few of them."""
    training = open_for_training(settings)
    for number in range(UNTIMED_STEPS + TIMED_STEPS):
        if number == UNTIMED_STEPS:
            began = _clock(settings.device)
        train_step(training)
        training.step += 1
    return (_clock(settings.device) - began) / TIMED_STEPS


def run_learned(name, config, case, path, budget):
    """Train and denoise; ``budget``: seconds of training, None: config.steps steps.

    Returns an :class:`Outcome`.
    """
    folder = os.path.splitext(path)[0]
    steps = config.published_steps if name == "published" else 0
    if not steps:
        steps = config.steps
        if budget is not None:
            trial = _train_config(name, config, case, folder + "_trial", steps)
            steps = max(1, round(budget / seconds_per_step(trial)))
    settings = _train_config(name, config, case, folder, steps)
    began = _clock(config.device)
    model = train(settings)
    trained = _clock(config.device)
    (result,) = denoise(
        DenoiseConfig(
            model=model,
            tomograms=(case.tomogram,),
            half_maps=settings.half_maps,
            output=folder,
            voxel_size=config.voxel_size,
            device=config.device,
            threads=config.threads,
            overwrite=True,
        )
    )
    seconds = _clock(config.device) - trained
    os.replace(result, path)
    # The published training may have ended early, by its own rule.
    steps = checkpoint.load(model)["step"]
    return Outcome(path, "", steps, trained - began, seconds, resident_gib(peak=True))


def run(name, config, case, path, budget):
    """One method on one case, in the process made for it."""
    prepare_cpu(config.threads)
    if name in FILTERS:
        return run_filter(name, config, case, path)
    return run_learned(name, config, case, path, budget)


def in_own_process(*arguments):
    """:func:`run` in a fresh process, which may start others; raises UserError if it dies."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run, *arguments).result()
        except BrokenProcessPool:
            raise UserError(
                f"the process of the method {arguments[0]} was killed; expected it to "
                "go on: the machine's memory may not suffice"
            )
