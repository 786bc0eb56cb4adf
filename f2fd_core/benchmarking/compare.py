"""All methods side by side, on simulated tomograms or on one of the user's: scores and pictures.

The default method, spectrum, trains for the given number of steps; the other learned methods for as
long as that took (in seconds of the processor on the CPU, which don't count what else the machine
does), or for the same number of steps.
"""

import csv
import os

import numpy as np
import torch

from f2fd_core.benchmarking.cases import Case, simulated_case, voxels
from f2fd_core.benchmarking.methods import HALF_MAPS, in_own_process
from f2fd_core.commands.evaluate import read_reference
from f2fd_core.config import FILTERS, BenchmarkConfig, UserError
from f2fd_core.data import formats
from f2fd_core.evaluation import metrics
from f2fd_core.runtime import console, figures, files, lock

SCORES = (
    "correlation",
    "psnr",
    "ssim",
    "published_psnr",
    "published_ssim",
    "fsc_mean",
    "fsc_0.5",
    "fsc_0.143",
    "membrane_average_precision",
)
MEASURED = (
    "steps",
    *SCORES,
    "fsc_halves_0.143",
    "contrast",
    "train_seconds",
    "denoise_seconds",
    "peak_gib",
)
TABLE_COLUMNS = ("case", "snr", "method", "seeds", "setting", *MEASURED)
CORNER = ("correlation", "membrane_average_precision", "fsc_halves_0.143", "contrast")


def _read(path):
    return torch.from_numpy(np.array(voxels(path)[:], dtype=np.float32))


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
        path = os.path.join(folder, f"{name}_half_{number}.mrc")
        curves.append(_read(in_own_process(name, config, own, path, budget).path))
    frequency, curve = metrics.fourier_shell_correlation(*curves)
    return metrics.crossing(frequency, curve, 0.143)


def run_case(config, case, folder):
    """All methods on one case: (rows of scores, {method: path of its volume})."""
    methods = [name for name in config.methods if name not in HALF_MAPS or case.halves]
    # The default method first: the others get its time.
    methods.sort(key=lambda name: (name not in FILTERS, name != "noise_matched"))
    about = {"case": case.name, "snr": case.snr, "seed": case.seed}
    membranes = None
    if case.reference:
        shape = voxels(case.tomogram).shape
        reference, membranes = read_reference(case.reference, case.membrane, shape)
    rows = [dict(about, method="input", **scores_of(case.tomogram, case, membranes))]
    volumes, budget = {"input": case.tomogram}, None
    for name in methods:
        console.say(f"{case.name}, SNR {case.snr}, seed {case.seed}: {name}")
        path = os.path.join(folder, name + ".mrc")
        outcome = in_own_process(name, config, case, path, budget)
        if name == "noise_matched" and config.equal == "time":
            budget = outcome.train_seconds
        row = dict(about, method=name, **scores_of(path, case, membranes))
        row.update(outcome._asdict())
        if config.tomogram and case.halves and name not in HALF_MAPS:
            row["fsc_halves_0.143"] = fsc_of_halves(name, config, case, folder, budget)
        rows.append(row)
        volumes[name] = path
    if case.reference:
        volumes["reference"] = case.reference
    if membranes:
        # No filter finds all membranes, not even without noise.
        rows.append(
            dict(
                about, method="reference", membrane_average_precision=membranes.precision(reference)
            )
        )
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
        return f"{value:.3g}" if abs(value) >= 100 else f"{value:.3f}"
    return "" if value is None else str(value)


def markdown(rows):
    """The table of mean scores; columns that are empty throughout are left out."""
    shown = [
        column for column in TABLE_COLUMNS if any(row.get(column) not in (None, "") for row in rows)
    ]
    lines = [f"| {' | '.join(shown)} |", "|---" * len(shown) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in shown)} |" for row in rows]
    return "\n".join(lines)


def write_tables(rows, folder):
    """scores.csv, a row for every run, and scores.md, means over the seeds; returns the latter."""
    path = os.path.join(folder, "scores.csv")
    with files.replaced(path) as partial, open(
        partial, "w", newline="", encoding="utf-8"
    ) as stream:
        writer = csv.DictWriter(
            stream,
            ["seed", *(name for name in TABLE_COLUMNS if name != "seeds")],
            extrasaction="ignore",
        )
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
        words = [
            f"{name.split('_')[0]} {row[name]:.2f}" for name in CORNER if row.get(name) is not None
        ]
        titles[row["case"], row["snr"], row["method"]] = "\n".join(words[:2])
    methods = dict.fromkeys(method for volumes in pictures.values() for method in volumes)
    columns = sorted(methods, key=lambda method: method == "reference")
    grid = []
    for (case, snr), volumes in pictures.items():
        label = case if snr is None else f"{case}, SNR {snr:g}"
        grid.append(
            (
                label,
                [
                    (method, _section(volumes[method]), titles.get((case, snr, method), ""))
                    if method in volumes
                    else None
                    for method in columns
                ],
            )
        )
    figures.draw_grid(grid, path)


def _section(path):
    volume = voxels(path)
    return np.array(volume[volume.shape[0] // 2], dtype=np.float32)


def benchmark(config: BenchmarkConfig) -> str:
    """Compare F2Fd with other methods.

    Writes scores.csv, scores.md (renewed after every case) and methods.png into
    ``config.output``.

    Parameters
    ----------
    config : BenchmarkConfig

    Returns
    -------
    str
        The Markdown table.

    Raises
    ------
    UserError
        For bad input, and where scikit-image is missing that a method needs.
    """
    if set(config.methods) & (set(FILTERS) - {"deconvolve"}):
        _require_scikit_image()
    files.refuse_existing(
        [os.path.join(config.output, name) for name in ("scores.csv", "scores.md", "methods.png")],
        config.overwrite,
    )
    files.make_folder(config.output)
    rows, pictures, text = [], {}, ""
    with lock.held(os.path.join(config.output, "benchmark")):
        for case, folder in _cases(config):
            found, volumes = run_case(config, case, folder)
            rows += found
            pictures.setdefault((case.name, case.snr), volumes)
            text = write_tables(rows, config.output)
            draw(pictures, rows, os.path.join(config.output, "methods.png"))
    console.say(f"tables and picture written to {config.output}")
    return text


def _require_scikit_image():
    try:
        import skimage  # noqa: F401
    except ImportError:
        raise UserError(
            "--methods names filters of scikit-image, which is not installed; expected "
            "it (pip install scikit-image) or other methods"
        )


def _cases(config):
    """The cases with the folders of their volumes, simulated one by one."""
    if config.tomogram:
        source = formats.open_volume(config.tomogram, config.voxel_size)
        console.say(f"{config.tomogram}, voxels of {source.true_voxel_size[0]:g} Å")
        for doubt in source.doubts():
            console.warn(doubt)
        folder = os.path.join(config.output, "volumes")
        files.refuse_inputs(
            [folder],
            filter(None, [config.tomogram, *config.half_maps, config.reference, config.membrane]),
        )
        files.make_folder(folder)
        yield (
            Case(
                "tomogram",
                None,
                None,
                config.tomogram,
                config.half_maps,
                config.reference or None,
                config.membrane or None,
            ),
            folder,
        )
        return
    for name in config.cases:
        # Without noise, or without signal, the ratio means nothing.
        for snr in config.snr[:1] if name in ("empty", "noisefree") else config.snr:
            for seed in config.seeds:
                folder = os.path.join(config.output, f"{name}_snr{snr:g}_seed{seed}")
                yield simulated_case(name, config, snr, seed, folder), folder
