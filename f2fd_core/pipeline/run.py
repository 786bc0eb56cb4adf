"""``f2fd run``: a few typical tomograms are chosen, a model trained, all denoised and judged."""

import dataclasses
import json
import os

from f2fd_core.checking.short import report
from f2fd_core.commands.denoise import denoise
from f2fd_core.commands.inputs import open_silently
from f2fd_core.commands.train import train
from f2fd_core.config import DenoiseConfig, RunConfig, TrainConfig, UserError
from f2fd_core.pipeline import overview
from f2fd_core.pipeline.typical import MOST, features_of, outliers, typical
from f2fd_core.runtime import console, distributed, files, lock
from f2fd_core.runtime.run_folder import model_in

TRAINING, DENOISED, CHOICE, PAGE = "training", "denoised", "chosen.json", "overview.html"


def run(config: RunConfig) -> str:
    """Train on a few typical tomograms, denoise all, and show how far to believe the results.

    Into the output folder go the model (training/model.pt), the results (denoised/), which
    tomograms were chosen and why (chosen.json) and a page with a picture of each tomogram
    (overview.html). A run that was ended goes on with ``resume``.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    str
        The path of overview.html.

    Raises
    ------
    UserError
        For bad input, naming the option or file.
    """
    group, _ = distributed.from_environment(os.environ)
    if group.size > 1:
        raise UserError(
            f"f2fd run is one of {group.size} tasks; expected one: let 'f2fd train' and 'f2fd "
            "denoise' share their work among tasks"
        )
    left_out = files.results_among(config.names(), config.result_file)
    console.warn_of_results(left_out)
    config = config.without(left_out)
    page = os.path.join(config.output, PAGE)
    place = os.path.join(config.output, CHOICE)
    files.refuse_existing(
        [page, place],
        config.overwrite or config.resume,
        "--resume to go on or --overwrite to replace it",
    )
    files.make_folder(config.output)
    with lock.held(page):
        chosen = _known_choice(place, config) or _choose(place, config)
        model = _train(config, chosen)
        paths = _denoise(config, model)
        overview.write(page, config, dict(zip(config.names(), paths)), chosen, model)
    console.say(f"overview written to {page}")
    return page


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
        chosen = {names[one.number]: one.why for one in typical(features, MOST)}
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


def _train(config, chosen):
    """The path of the model, trained if that is not done yet."""
    some = config.without(set(config.names()) - set(chosen))
    own = _own(config, TrainConfig, TRAINING, tomograms=some.tomograms, half_maps=some.half_maps)
    model = model_in(own.output)
    if config.resume and os.path.exists(model):
        console.say(f"{model} is finished: no further training")
        return model
    return train(own)


def _denoise(config, model):
    """The paths of the results, each with its verdict beside it."""
    own = _own(
        config,
        DenoiseConfig,
        DENOISED,
        model=model,
        tomograms=config.tomograms,
        half_maps=config.half_maps,
    )
    return denoise(own, lambda volumes: report(model, own, volumes, write=True))
