"""The command: a report on what a model makes of some tomograms."""

import json
import math
import os

from f2fd_core import __version__
from f2fd_core.checking import page, pictures, wedge
from f2fd_core.checking.examine import (
    DENOISED,
    REFERENCE,
    START,
    count_of,
    examine,
    unfit_half_maps,
)
from f2fd_core.checking.halves import independent_halves
from f2fd_core.checking.parts import LEAST_VOXELS, denoiser_of
from f2fd_core.checking.reference import reference
from f2fd_core.checking.start import settings_of, start_of
from f2fd_core.checking.verdict import verdict
from f2fd_core.commands.inputs import (
    as_trained,
    open_as_they_are,
    shape_as_trained,
    share_of,
    warn_of_voxel_sizes,
)
from f2fd_core.config import PRETRAINED, CheckConfig, UserError
from f2fd_core.data.regions import in_words
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_core.filters.wedge import tilt_range_of
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.noise_matched import noise_of
from f2fd_core.runtime import console, distributed, files, lock
from f2fd_core.runtime.device import choose_devices, choose_dtype, prepare_cpu, reproducible
from f2fd_core.training.contrast import in_contrast

# What comes out beside pictures and maps.
REPORT = "report.json"
PAGE = "report.html"


class _NoiseUnknown(Exception):
    """There is hardly any noise that could be told from signal."""


def check(config: CheckConfig) -> str:
    """Check how far the results of a model on tomograms are to be believed.

    For each tomogram there is a folder with report.json, error.mrc (the relative error by place),
    removed.mrc (how much the residual is like the result, by place) and pictures; report.json of
    all holds {tomogram: numbers}. Tasks that torchrun or srun have started share the tomograms; one
    that dies loses only its own.

    Parameters
    ----------
    config : CheckConfig

    Returns
    -------
    str
        The path of report.html.

    Raises
    ------
    UserError
        For bad input, before anything is written; and, when the others are checked, for tomograms
        with hardly any noise that could be told from signal.

    References
    ----------
    Stein, Ann. Stat. 9 (1981) 1135, for the estimate of the error. docs/check.md has the rest.
    """
    prepare_cpu(config.threads)
    group, _ = distributed.from_environment(os.environ)
    devices = choose_devices(config.device)
    device = devices[0] if group.size == 1 else group.device(devices, config.device)
    dtype = choose_dtype(config.precision, device)
    state = checkpoint.load(config.model)
    network, trained = checkpoint.restore(state, config.model, config.precision)
    models = [each.to(device) for each in (network, *checkpoint.fillers(state, config.model))]
    config.refuse_model(trained)
    config, folders, results = _plan(config, group)
    voxel_size = state["voxel_size"] if config.rescale else 0.0
    volumes = _open(config, trained, voxel_size, len(models) > 1)
    made_of = _fingerprints(config, trained)
    if not voxel_size and config.model != PRETRAINED:
        warn_of_voxel_sizes(volumes, state["voxel_size"])
    files.make_folder(config.output)
    console.announce_devices([device], dtype, "checking")
    unknown = []
    about = state, voxel_size, models, trained, device, dtype
    with reproducible():
        for volume, name in zip(volumes, config.names()):
            if config.resume and _made_of(folders[name]) == made_of[name]:
                console.say(f"{name} was checked: skipped")
                continue
            try:
                _report_on(config, volume, name, folders[name], made_of[name], *about)
            except _NoiseUnknown:
                unknown.append(name)
    if len(unknown) < len(config.names()):
        _write_all(folders, results)
    _refuse_unknown(unknown)
    return results[1]


def _refuse_unknown(tomograms):
    """Raise UserError if there are tomograms whose noise is not known."""
    if tomograms:
        raise UserError(
            f"{', '.join(tomograms)}: hardly any noise could be told from signal, by which the "
            "error is estimated; expected tomograms as they were reconstructed"
        )


def _report_on(
    config, volume, name, folder, made_of, state, voxel_size, models, trained, device, dtype
):
    """Write the report on one tomogram to its ``folder``; raises _NoiseUnknown."""
    report = os.path.join(folder, REPORT)
    files.make_folder(folder)
    with lock.held(report):
        volume = as_trained(volume, trained, config, voxel_size)
        numbers = _check_one(config, volume, models, trained, device, dtype, folder)
        about = _about(config, state, volume)
        _write_json(report, dict(numbers, about=about, made_of=made_of))
    console.say(f"{name}: {numbers['verdict'][0]['sentence']}")


def _write_all(folders, results):
    """The report on all tomograms: {tomogram: the folder of its report}.

    Each of several tasks writes what is there, so that the last has all, even if one has died.
    """
    with lock.held(results[0], wait=True):
        found = {name: _read(folder) for name, folder in folders.items() if _made_of(folder)}
        _write_json(results[0], found)
        page.write(results[1], {name: (numbers, folders[name]) for name, numbers in found.items()})
    console.say(f"report on {len(found)} of {len(folders)} tomograms written to {results[1]}")


def _plan(config, group):
    """(the CheckConfig with this task's tomograms and without results among them,
    {tomogram of any task: the folder of its report}, the files of all); raises UserError if one of
    them must not be written."""
    left_out = files.results_among(config.names())
    console.warn_of_results(left_out)
    config = config.without(left_out)
    folders = _folders(config)
    results = [os.path.join(config.output, name) for name in (REPORT, PAGE)]
    config = share_of(config, group)
    # A tomogram that could not be judged has left an empty one.
    existing = [folders[name] for name in config.names() if files.files_in(folders[name])]
    if group.size == 1:  # else it may be another task's of this very run
        existing += results
    files.refuse_existing(
        existing,
        config.overwrite or config.resume,
        "--overwrite to replace it or --resume to skip what was checked",
    )
    files.refuse_inputs(
        [*results, *folders.values()],
        [config.model, *(path for paths in config.inputs() for path in paths)],
    )
    return config, folders, results


def _open(config, trained, voxel_size, fills):
    """The tomograms, standardised; raises UserError for one that is too small to be checked at the
    ``voxel_size`` (Å); 0: at its own; and, if the model ``fills`` the missing wedge, for one that
    shows none."""
    volumes = open_as_they_are(config, trained)
    for volume in volumes:
        shape = shape_as_trained(volume, voxel_size)
        if math.prod(shape) < LEAST_VOXELS:
            rescaled = "" if shape == volume.shape else f" of {voxel_size:g} Å"
            raise UserError(
                f"{volume.source.path} has {in_words(shape)} voxels{rescaled} (Z, Y, X), "
                f"too few to be checked; expected at least {LEAST_VOXELS} in all"
            )
        if fills:
            tilt_range_of(volume, config.tilt_range)
    return volumes


def _fingerprints(config, trained):
    """{tomogram: what its report is made of}."""

    def settings(name):
        ctf = ctf_of(name, trained, config) if trained.deconvolve else ""
        return f"{config.settings()}{ctf}"

    return {
        name: files.fingerprint(config.model, *paths, text=settings(name))
        for name, paths in zip(config.names(), config.inputs())
    }


def _folders(config):
    """{tomogram: the folder of its report}."""
    return {
        name: os.path.splitext(path)[0]
        for name, path in files.output_paths(
            config.names(), config.output, files.NAME + files.MRC
        ).items()
    }


def _read(folder):
    with open(os.path.join(folder, REPORT), encoding="utf-8") as stream:
        return json.load(stream)


def _made_of(folder):
    """What the report in a folder was made of; None where there is no whole one."""
    try:
        return _read(folder).get("made_of")
    except (OSError, ValueError, AttributeError):
        return None


def _write_json(path, values):
    with files.replaced(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        json.dump(values, stream, indent=1)


def _about(config, state, volume):
    """Whence the numbers come."""
    return {
        "version": __version__,
        "model": os.path.abspath(config.model),
        "step": state["step"],
        "tomogram": volume.source.path,
        "shape": list(volume.before.shape),
        "voxel_size": volume.before.voxel_size,
        "checked_at": volume.voxel_size,
    }


def _check_one(config, volume, models, trained, device, dtype, folder):
    """The numbers of one tomogram; maps and pictures go to its ``folder``.

    ``models``: the model's network and, if it has learned it, the one that fills the missing wedge.
    """
    about = models, trained, device, dtype, folder
    numbers, maps = _examine_one(config, volume, *about)
    if unfit_half_maps(volume, numbers["half_maps"]):
        numbers, maps = _examine_one(config, volume.alone(), *about)
    if config.independent:
        numbers["halves"] = independent_halves(config, volume, trained, folder)
        pictures.draw_halves(numbers["halves"], os.path.join(folder, pictures.HALVES))
    for name, places in maps.items():
        path = os.path.join(folder, name + files.MRC)
        places.write(path, volume.source, f"{name}, by f2fd check", volume.rescaling)
    return numbers


def _examine_one(config, volume, models, trained, device, dtype, folder):
    """The numbers of one tomogram, and its maps {name: Places}; see :func:`_check_one`."""
    settings = settings_of(config, folder)
    noise = noise_of(volume, trained, device)
    console.say(f"{volume.source.path}: {noise.describe()}")
    if noise.hardly_any():
        raise _NoiseUnknown
    fills = len(models) > 1
    tilt_range = tilt_range_of(volume, config.tilt_range) if fills else None
    count = settings.steps + count_of(volume, 3) + fills * wedge.predictions(volume)
    with in_contrast(models, volume, trained, device, dtype) as opposite:
        with console.progress(count, "step") as bar:
            networks = {
                START: start_of(volume, settings, device, dtype),
                REFERENCE: reference(volume, settings, device, dtype, bar.update),
            }
            own = [
                denoiser_of(volume, each, trained, device, dtype, config.tile_size, config.seed)
                for each in models
            ]
            denoisers = {DENOISED: own[0]}
            denoisers.update(
                {
                    name: denoiser_of(volume, other, settings, device, dtype)
                    for name, other in networks.items()
                }
            )
            numbers, maps, sections = examine(denoisers, noise, config.seed, bar.update)
            if fills:
                numbers["wedge"], planes = wedge.examine_wedge(
                    own[1], own[0], noise, tilt_range, numbers["sign"], config.seed, bar.update
                )
        numbers.update(opposite=opposite, noise=noise.by_shell(), words=noise.describe())
        numbers["verdict"] = verdict(numbers)
        pictures.draw(numbers, sections, volume, denoisers[DENOISED], maps, folder)
        if fills:
            pictures.draw_wedge(numbers["wedge"], planes, os.path.join(folder, pictures.WEDGE))
    return numbers, maps
