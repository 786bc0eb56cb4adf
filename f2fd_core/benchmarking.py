"""All methods side by side, on simulated tomograms or on one of the user's.

Each method runs in a process of its own, so that its peak memory is its own. The default method,
spectrum, trains for the given number of steps; the other learned methods for as long as that took
(in seconds of the processor on the CPU, which don't count what else the machine does), or for the
same number of steps.
The filters get the setting, of a list, whose result correlates best with the reference; where
there is none, the middle one.
"""
import csv
import dataclasses
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple, Optional

import numpy as np
import torch

from f2fd_core import checkpoint, files, fourier, lock, metrics, mrc, report
from f2fd_core.config import (
    FILTERS,
    DeconvolveConfig,
    DenoiseConfig,
    SimulateConfig,
    TrainConfig,
    UserError,
)
from f2fd_core.deconvolution import deconvolved
from f2fd_core.denoising import denoise
from f2fd_core.device import choose_devices, prepare_cpu
from f2fd_core.estimate import resident_gib
from f2fd_core.phantom import simulate_volumes
from f2fd_core.training import open_for_training, train
from f2fd_core.volume import crop

SIRT_ITERATIONS = 10
DENSE_STEP = 0.5
LOW_PASS, LOW_PASS_WIDTH = 0.25, 0.03
INT8_RANGE = 4.0
TUNING_CROP = (64, 96, 96)
TIMED_STEPS, WARMING_STEPS = 10, 3
LEARNED = {
    "spectrum": {},
    "masks": {"perturbation": "masks"},
    "points": {"perturbation": "points", "dropout": 0.3},
    "blindspot": {"perturbation": "blindspot", "blind_reach": 1},
    "halves": {"perturbation": "halves"},
    "published": {"preset": "published"},
}
"""What differs from the default in each learned method's best known settings."""
STARTING = ("spectrum", "halves")
"""The methods that the benchmark's ``start`` is for."""
SCORES = ("correlation", "psnr", "ssim", "published_psnr", "published_ssim", "fsc_mean", "fsc_0.5",
          "fsc_0.143", "membrane_average_precision")
MEASURED = ("steps", *SCORES, "fsc_halves_0.143", "contrast", "train_seconds", "denoise_seconds",
            "peak_gib")
COLUMNS = ("case", "snr", "method", "seeds", "setting", *MEASURED)
CORNER = ("correlation", "membrane_average_precision", "fsc_halves_0.143", "contrast")


class Case(NamedTuple):
    """One tomogram to denoise: paths of MRC files, None or () where there is none."""
    name: str
    snr: Optional[float]
    seed: Optional[int]
    tomogram: str
    halves: tuple = ()
    reference: Optional[str] = None
    membrane: Optional[str] = None


class Outcome(NamedTuple):
    """What a method gave: path of its volume, and what it took."""
    path: str
    setting: str
    steps: int
    train_seconds: float
    denoise_seconds: float
    peak_gib: float


# The cases.

def uneven_strength(shape):
    """What the noise of the case ``uneven`` is multiplied by, an array (Z, Y, X).

    It is 1.6 times as strong in one half of the depth and falls towards the borders.
    """
    z, y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    return ((1 + 0.3 * np.tanh(3 * z))[:, None, None] * (1 - 0.4 * y ** 4)[None, :, None]
            * (1 - 0.4 * x ** 4)[None, None, :])


def _uneven(volumes):
    strength = uneven_strength(volumes["clean"].shape)
    for name in ("odd", "even", "tomogram"):
        volumes[name] = volumes["clean"] + strength * (volumes[name] - volumes["clean"])


def _low_pass(volumes):
    radius = fourier.radial_frequency(volumes["clean"].shape)
    transfer = torch.sigmoid((LOW_PASS - radius) / LOW_PASS_WIDTH * 4)
    transfer[radius > LOW_PASS + LOW_PASS_WIDTH] = 0
    for name in ("odd", "even", "tomogram", "clean"):
        spectrum = torch.fft.rfftn(torch.from_numpy(volumes[name])) * transfer
        volumes[name] = torch.fft.irfftn(spectrum, s=volumes[name].shape).numpy()


def _bin(volumes):
    for name, volume in volumes.items():
        z, y, x = (side // 2 for side in volume.shape)
        volumes[name] = volume.reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))


def _round(volumes):
    for name in ("odd", "even", "tomogram"):
        step = INT8_RANGE * volumes[name].std() / 127
        volumes[name] = np.clip(np.round(volumes[name] / step), -128, 127).astype(np.float32)


def _take_noise_away(volumes):
    for name in ("odd", "even", "tomogram"):
        volumes[name] = volumes["clean"]


CHANGES = {"uneven": _uneven, "lowpass": _low_pass, "binned": _bin, "int8": _round,
           "noisefree": _take_noise_away}


def _simulation(name, config, snr, seed):
    """The SimulateConfig of a case."""
    shape, voxel_size = config.shape, 10.0
    if name == "binned":
        shape, voxel_size = tuple(2 * side for side in shape), 5.0
    elif name == "thick":
        shape = (3 * shape[0], shape[1] // 2, 3 * shape[2])
    return SimulateConfig(
        shape=shape, voxel_size=voxel_size, snr=snr, seed=seed, defocus=config.defocus,
        specimen=name if name in ("spheres", "crowded", "empty") else "cell",
        sirt_iterations=SIRT_ITERATIONS if name == "sirt" else 0)


def simulated_case(name, config, snr, seed, folder):
    """Simulate a case's volumes into ``folder``."""
    files.make_folder(folder)
    simulation = _simulation(name, config, snr, seed)
    volumes = simulate_volumes(simulation)
    if name == "thick":
        # Where slices don't overlap, much of a noise-free reconstruction is the streaks of what
        # lies above and below: it can't tell what is right.
        dense = dataclasses.replace(simulation, tilt_step=DENSE_STEP)
        volumes["clean"] = simulate_volumes(dense)["clean"]
    if name in CHANGES:
        CHANGES[name](volumes)
    voxel_size = simulation.voxel_size * simulation.shape[0] / volumes["clean"].shape[0]
    paths = {}
    for key in ("tomogram", "odd", "even", "clean", "membrane"):
        paths[key] = os.path.join(folder, key + ".mrc")
        mrc.write_volume(paths[key], volumes[key], voxel_size)
    return Case(name, snr, seed, paths["tomogram"], (paths["odd"], paths["even"]),
                paths["clean"] if volumes["clean"].std() > 0 else None,
                paths["membrane"] if volumes["membrane"].any() else None)


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
    return deconvolved(volume, about.voxel_size[0], strength)


def _filter_settings(name, config):
    """(function, settings to choose from) of a filter; volumes are in standard deviations."""
    if name == "deconvolve":
        return _wiener_like, [
            DeconvolveConfig(defocus=config.defocus, phase_flipped=not config.tomogram,
                             strength=strength, snr_falloff=falloff)
            for strength in (-2.0, -1.0, 0.0, 1.0, 2.0) for falloff in (0.3, 0.5, 1.0, 2.0)]
    return {"gaussian": (_gaussian, (0.7, 1.0, 1.5, 2.0, 3.0)),
            "tv": (_total_variation, (0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0)),
            "nlm": (_non_local_means, (0.5, 0.8, 1.2, 2.0, 3.0))}[name]


def _told(setting):
    """A filter's setting in a few letters."""
    if isinstance(setting, DeconvolveConfig):
        return "%g/%g" % (setting.strength, setting.snr_falloff)
    return "%g" % setting


def run_filter(name, config, case, path):
    """Run a filter with the best of its settings; returns an :class:`Outcome`."""
    function, settings = _filter_settings(name, config)
    source = mrc.open_volume(case.tomogram, config.voxel_size)
    volume = np.array(source[:], dtype=np.float32)
    mean, std = float(volume.mean()), float(volume.std()) or 1.0
    volume = (volume - mean) / std
    best = settings[len(settings) // 2]
    if case.reference:
        size = tuple(min(pair) for pair in zip(TUNING_CROP, volume.shape))
        corner = [(length - side) // 2 for length, side in zip(volume.shape, size)]
        part = np.ascontiguousarray(crop(volume, corner, size))
        truth = torch.from_numpy(np.array(
            crop(_voxels(case.reference), corner, size), dtype=np.float32))

        def quality(setting):
            result = torch.from_numpy(np.array(function(part, setting, source), dtype=np.float32))
            return metrics.correlation(result, truth)

        best = max(settings, key=quality)
    began = time.monotonic()
    result = function(volume, best, source)
    seconds = time.monotonic() - began
    mrc.write_volume(path, np.asarray(result, dtype=np.float32) * std + mean, source.voxel_size[0])
    return Outcome(path, _told(best), 0, 0.0, seconds, resident_gib(peak=True))


# The methods that learn.

def _train_config(name, config, case, folder, steps):
    halves = case.halves if name == "halves" else ()
    start = config.start if name in STARTING else "random"
    return TrainConfig.create(dict(
        LEARNED[name], start=start, tomograms=(case.tomogram,), half_maps=halves, output=folder,
        steps=steps, voxel_size=config.voxel_size, checkpoint_every=10 ** 9, device=config.device,
        threads=config.threads, overwrite=True))


def _clock(device):
    """Seconds of this process: of its threads together on the CPU, by the wall with a GPU."""
    on_cpu = choose_devices(device)[0].type == "cpu"
    return time.process_time() / torch.get_num_threads() if on_cpu else time.monotonic()


def seconds_per_step(settings):
    """Time of a training step, measured on a few of them."""
    training = open_for_training(settings)
    for number in range(WARMING_STEPS + TIMED_STEPS):
        if number == WARMING_STEPS:
            began = _clock(settings.device)
        training.take_step()
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
    result, = denoise(DenoiseConfig(
        model=model, tomograms=(case.tomogram,), half_maps=settings.half_maps, output=folder,
        voxel_size=config.voxel_size, device=config.device, threads=config.threads,
        overwrite=True))
    seconds = _clock(config.device) - trained
    os.replace(result, path)
    # The published training may have ended early, by its own rule.
    steps = checkpoint.load(model)["step"]
    return Outcome(path, "", steps, trained - began, seconds, resident_gib(peak=True))


def _run(name, config, case, path, budget):
    """One method on one case, in the process made for it."""
    prepare_cpu(config.threads)
    if name in FILTERS:
        return run_filter(name, config, case, path)
    return run_learned(name, config, case, path, budget)


def in_own_process(*arguments):
    """:func:`_run` in a fresh process, which may start others; raises UserError if it dies."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_run, *arguments).result()
        except BrokenProcessPool:
            raise UserError("the process of the method %s was killed; expected it to go on: the "
                            "machine's memory may not suffice" % arguments[0])


# Scores and tables.

def _voxels(path):
    """A volume whose voxel size does not matter, (Z, Y, X), to be read by indexing."""
    return mrc.open_volume(path, 1.0)


def _read(path):
    return torch.from_numpy(np.array(_voxels(path)[:], dtype=np.float32))


def scores_of(path, case, membranes=None):
    """Scores of a result, as far as there is something to score it by."""
    volume = _read(path)
    row = {"contrast": float(volume.std() / _read(case.tomogram).std())}
    if case.reference:
        row.update(metrics.score(volume, _read(case.reference), membranes))
    return row


def fsc_of_halves(name, config, case, folder, budget):
    """Crossing of 0.143 of the correlation between both halves, denoised independently."""
    curves = []
    for number, half in enumerate(case.halves):
        own = case._replace(tomogram=half, reference=None, halves=())
        path = os.path.join(folder, "%s_half_%d.mrc" % (name, number))
        curves.append(_read(in_own_process(name, config, own, path, budget).path))
    return metrics.crossing(*metrics.fourier_shell_correlation(*curves), 0.143)


def run_case(config, case, folder):
    """All methods on one case: (rows of scores, {method: path of its volume})."""
    methods = [name for name in config.methods if name != "halves" or case.halves]
    # The default method first: the others get its time.
    methods.sort(key=lambda name: (name not in FILTERS, name != "spectrum"))
    about = {"case": case.name, "snr": case.snr, "seed": case.seed}
    membranes = None
    if case.reference:
        shape = _voxels(case.tomogram).shape
        reference, membranes = metrics.read_reference(case.reference, case.membrane, shape)
    rows = [dict(about, method="input", **scores_of(case.tomogram, case, membranes))]
    volumes, budget = {"input": case.tomogram}, None
    for name in methods:
        report.say("%s, SNR %s, seed %s: %s" % (case.name, case.snr, case.seed, name))
        path = os.path.join(folder, name + ".mrc")
        outcome = in_own_process(name, config, case, path, budget)
        if name == "spectrum" and config.equal == "time":
            budget = outcome.train_seconds
        row = dict(about, method=name, **scores_of(path, case, membranes))
        row.update(outcome._asdict())
        if config.tomogram and case.halves and name != "halves":
            row["fsc_halves_0.143"] = fsc_of_halves(name, config, case, folder, budget)
        rows.append(row)
        volumes[name] = path
    if case.reference:
        volumes["reference"] = case.reference
    if membranes:
        # No filter tells all membranes, not even without noise.
        rows.append(dict(about, method="reference",
                         membrane_average_precision=membranes.precision(reference)))
    return rows, volumes


def means(rows):
    """Rows with the mean over the seeds: one for each case, SNR and method, in order."""
    groups = {}
    for row in rows:
        groups.setdefault((row["case"], row["snr"], row["method"]), []).append(row)
    result = []
    for group in groups.values():
        mean = dict(group[0], seeds=len(group))
        for column in MEASURED:
            values = [row.get(column) for row in group]
            known = all(value is not None for value in values)
            mean[column] = float(np.mean(values)) if known else None
        if mean["steps"] is not None:
            mean["steps"] = round(mean["steps"])
        result.append(mean)
    return result


def _cell(value):
    if isinstance(value, float):
        return "%.3g" % value if abs(value) >= 100 else "%.3f" % value
    return "" if value is None else str(value)


def markdown(rows):
    """The table of mean scores; columns that are empty throughout are left out."""
    shown = [column for column in COLUMNS if any(row.get(column) not in (None, "") for row in rows)]
    lines = ["| %s |" % " | ".join(shown), "|---" * len(shown) + "|"]
    lines += ["| %s |" % " | ".join(_cell(row.get(column)) for column in shown) for row in rows]
    return "\n".join(lines)


def write_tables(rows, folder):
    """scores.csv, a row for every run, and scores.md, means over the seeds; returns the latter."""
    path = os.path.join(folder, "scores.csv")
    with files.replaced(path) as partial, \
            open(partial, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["seed", *(name for name in COLUMNS if name != "seeds")],
                                extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    text = markdown(means(rows))
    path = os.path.join(folder, "scores.md")
    with files.replaced(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
    return text


def draw(pictures, rows, path):
    """One row a case, one column a method, the scores in the corner.

    ``pictures``: {(case, snr): {method: path}}, of one seed each.
    """
    titles = {}
    for row in means(rows):
        words = ["%s %.2f" % (name.split("_")[0], row[name]) for name in CORNER
                 if row.get(name) is not None]
        titles[row["case"], row["snr"], row["method"]] = "\n".join(words[:2])
    methods = dict.fromkeys(method for volumes in pictures.values() for method in volumes)
    columns = sorted(methods, key=lambda method: method == "reference")
    grid = []
    for (case, snr), volumes in pictures.items():
        label = case if snr is None else "%s, SNR %g" % (case, snr)
        grid.append((label, [
            (method, _section(volumes[method]), titles.get((case, snr, method), ""))
            if method in volumes else None for method in columns]))
    report.draw_grid(grid, path)


def _section(path):
    volume = _voxels(path)
    return np.array(volume[volume.shape[0] // 2], dtype=np.float32)


def benchmark(config):
    """Run a BenchmarkConfig; returns the Markdown table.

    Writes scores.csv, scores.md (renewed after every case) and methods.png into
    ``config.output``. Raises UserError.
    """
    if set(config.methods) & (set(FILTERS) - {"deconvolve"}):
        _require_scikit_image()
    files.refuse_existing([os.path.join(config.output, name)
                         for name in ("scores.csv", "scores.md", "methods.png")], config.overwrite)
    files.make_folder(config.output)
    rows, pictures, text = [], {}, ""
    with lock.held(os.path.join(config.output, "benchmark")):
        for case, folder in _cases(config):
            found, volumes = run_case(config, case, folder)
            rows += found
            pictures.setdefault((case.name, case.snr), volumes)
            text = write_tables(rows, config.output)
            draw(pictures, rows, os.path.join(config.output, "methods.png"))
    report.say("tables and picture written to %s" % config.output)
    return text


def _require_scikit_image():
    try:
        import skimage  # noqa: F401
    except ImportError:
        raise UserError("--methods names filters of scikit-image, which is not installed; expected "
                        "it (pip install scikit-image) or other methods")


def _cases(config):
    """The cases with the folders of their volumes, simulated one by one."""
    if config.tomogram:
        voxel_size = mrc.open_volume(config.tomogram, config.voxel_size).voxel_size
        report.say("%s, voxels of %g Å" % (config.tomogram, voxel_size[0]))
        folder = os.path.join(config.output, "volumes")
        files.make_folder(folder)
        yield Case("tomogram", None, None, config.tomogram, config.half_maps,
                   config.reference or None, config.membrane or None), folder
        return
    for name in config.cases:
        # Without noise, or without signal, the ratio means nothing.
        for snr in config.snr[:1] if name in ("empty", "noisefree") else config.snr:
            for seed in config.seeds:
                folder = os.path.join(config.output, "%s_snr%g_seed%d" % (name, snr, seed))
                yield simulated_case(name, config, snr, seed, folder), folder
