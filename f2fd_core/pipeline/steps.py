"""The steps of ``f2fd run``: choose, train, denoise, show."""

import dataclasses
import json
import os

from f2fd_core.checking.short import report
from f2fd_core.commands.denoise import denoise
from f2fd_core.commands.inputs import open_silently
from f2fd_core.commands.train import train
from f2fd_core.config import DenoiseConfig, TrainConfig, UserError
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_core.network import checkpoint
from f2fd_core.pipeline import overview
from f2fd_core.pipeline.typical import MOST_CHOSEN, features_of, outliers, typical
from f2fd_core.runtime import console, files, lock
from f2fd_core.runtime.run_folder import check_settings, model_in

# What is in a pipeline's folder.
TRAINING_FOLDER = "training"
DENOISED_FOLDER = "denoised"
CHOICE = "chosen.json"
OVERVIEW = "overview.html"


def page_of(config):
    """The path of the overview."""
    return os.path.join(config.output, OVERVIEW)


def begin(config):
    """Make the output folder and choose the tomograms to train on, {tomogram: why}; raises
    UserError if the folder has results that are to be kept, and for a tomogram without a CTF."""
    for name in config.names():
        ctf_of(name, config)
    page, place = page_of(config), os.path.join(config.output, CHOICE)
    files.refuse_existing(
        [page, place],
        config.overwrite or config.resume,
        "--resume to go on or --overwrite to replace it",
    )
    files.make_folder(config.output)
    with lock.held(page):
        return _known_choice(place, config) or _choose(place, config)


def _own(config, config_class, output, **more):
    """Another command's configuration with what a RunConfig says of its fields."""
    names = [item.name for item in dataclasses.fields(config_class)]
    shared = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name in names and name not in ("tomograms", "half_maps", "output")
    }
    return config_class(**dict(shared, output=os.path.join(config.output, output), **more))


def _known_choice(place, config):
    """{tomogram: why} of a run that is resumed; None without one."""
    if not (config.resume and os.path.exists(place)):
        return None
    with open(place, encoding="utf-8") as stream:
        chosen = json.load(stream)
    if not set(chosen) <= set(config.names()):
        raise UserError(
            f"{place} has other tomograms than were given; expected the same, or --overwrite"
        )
    return chosen


def _choose(place, config):
    """{tomogram: why} of those that the model is trained on, written to ``place``."""
    names = config.names()
    if config.train_on:
        missing = [path for path in config.train_on if path not in names]
        if missing:
            raise UserError(
                f"--train-on names {missing[0]}, which is none of the tomograms; expected some of "
                "them"
            )
        chosen = dict.fromkeys(config.train_on, "named by --train-on")
    elif len(names) == 1:
        chosen = {names[0]: "it is the only one"}
    else:
        console.say(f"looking at the spectra of {len(names)} tomograms")
        features = [features_of(volume) for volume in open_silently(config, TrainConfig())]
        chosen = {names[one.number]: one.why for one in typical(features, MOST_CHOSEN)}
        for number, times in outliers(features):
            console.warn(
                f"the spectrum of {names[number]} is {times:.0f} times as far from the typical one "
                "as is usual here: look at it, or denoise it with a model of its own"
            )
    for path, why in chosen.items():
        console.say(f"training on {path}: {why}")
    with files.replaced(place) as partial, open(partial, "w", encoding="utf-8") as stream:
        json.dump(chosen, stream, indent=1)
    return chosen


def train_on(config, chosen):
    """The path of the model, trained if that is not done yet; raises UserError if it was trained
    with other settings."""
    some = config.without(set(config.names()) - set(chosen))
    own = _own(
        config, TrainConfig, TRAINING_FOLDER, tomograms=some.tomograms, half_maps=some.half_maps
    )
    model = model_in(own.output)
    if config.resume and os.path.exists(model):
        state = checkpoint.load(model)
        check_settings(TrainConfig.stored(state["config"]), config, model)
        if not config.fill_wedge or checkpoint.FILLER in state:
            console.say(f"{model} is finished: no further training")
            return model
    return train(own)


def denoise_all(config, model):
    """Denoise this task's tomograms, each with its verdict beside it."""
    own = _own(
        config,
        DenoiseConfig,
        DENOISED_FOLDER,
        model=model,
        tomograms=config.tomograms,
        half_maps=config.half_maps,
    )
    denoise(own, lambda volumes: report(model, own, volumes, write=True))


def show(config, chosen, model):
    """Write the overview of the results that are there.

    Each of several tasks does it, so that the last shows all, even if one has died.
    """
    page = page_of(config)
    with lock.held(page, wait=True):
        results = files.output_paths(
            config.names(), os.path.join(config.output, DENOISED_FOLDER), config.result_file
        )
        there = {name: path for name, path in results.items() if os.path.exists(path)}
        overview.write(page, there, chosen, model)
    console.say(f"overview of {len(there)} of {len(results)} tomograms written to {page}")
