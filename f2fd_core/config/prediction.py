"""How a model predicts, by what it has learned."""

import os
from typing import Tuple

from f2fd_core.config.parameter import PREDICTION, param

PRETRAINED = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "network", "pretrained.pt"
)
"""The weights that come with F2Fd, which the word "pretrained" stands for as a model."""

PREDICTION_DEFAULTS = {
    # For CPUs, the caches of which are too small for what two tiles take at once.
    "default": dict(predictions=4, batch_size=1, tile_size=96, pool_size=4),
    "published": dict(predictions=100, batch_size=10, tile_size=64, pool_size=20),
}
"""What 0 ("as the model's preset") means in :class:`DenoiseConfig`."""

LEAST_PREDICTIONS = {"self2self": 20, "noise2noise": 1, "noise2void": 1}
"""Predictions of the default preset for these perturbations, whose copies lack more of the tomogram
or, without dropout, don't differ by chance."""

WEDGE_PRESERVING_FLIPS: Tuple[Tuple[int, ...], ...] = ((), (-3, -1), (-3, -2), (-2, -1))
"""Axes (Z, Y, X are -3, -2, -1) along which a volume is flipped to leave it as it is and to turn
it by 180 degrees about Y, X and Z, which maps the missing wedge of a tilt axis along Y onto itself.
"""


def predictions():
    """How many predictions are averaged."""
    return param(
        0,
        "Predictions",
        "Number of predictions that are averaged; the time is proportional to it. Each uses new "
        "dropout and the next of four orientations of the tomogram (as it is, and rotated by 180 "
        "degrees about Y, X and Z), unless the model was trained without these rotations. Up to 4 "
        "predictions of a noise_matched model, and all of a noise2noise model, are made from the "
        "tomogram itself; others from new perturbed copies. 0: as the model's preset says (default "
        "4, self2self 20; published 100).",
        PREDICTION,
        ge=0,
        zero="automatic",
        original="predict_N_times",
    )


def std():
    """Whether their standard deviation is written."""
    return param(
        False,
        "Standard deviation map",
        "Also write <name>_std.mrc, the standard deviation over "
        "the predictions: where it is high, trust the result less.",
        PREDICTION,
    )


def tta_flips(trained):
    """How the inputs of predictions are flipped for test-time augmentation, one after the other and
    then from the first again, as in WEDGE_PRESERVING_FLIPS: by what the network has learned to turn
    with. ``trained``: the TrainConfig of the model."""
    learned = trained.augmentation in ("mirrors", "wedge")
    return WEDGE_PRESERVING_FLIPS[: len(WEDGE_PRESERVING_FLIPS) if learned else 1]


def unperturbed(trained, predictions):
    """Whether so many predictions are made from the tomogram itself, with no noise added: for
    ``noise_matched``, as long as no two of them would be the same."""
    return trained.perturbation == "noise2noise" or (
        trained.perturbation == "noise_matched" and predictions <= len(tta_flips(trained))
    )


def prediction_defaults(trained):
    """What 0 means in a DenoiseConfig for models of the TrainConfig ``trained``, {field: value}."""
    defaults = dict(PREDICTION_DEFAULTS[trained.preset])
    if trained.preset == "default":
        usual = defaults["predictions"]
        least = LEAST_PREDICTIONS.get(trained.perturbation, usual)
        defaults["predictions"] = max(
            least, len(tta_flips(trained)), usual if trained.dropout else 0
        )
    return defaults
