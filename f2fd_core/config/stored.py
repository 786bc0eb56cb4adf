"""What trainings of this and of earlier versions left behind, in today's words."""
import os

from f2fd_core.config.parameter import read_json

BEFORE = {"optimizer": "adam", "averaging": 0.0, "noise_gain": False, "start": "random"}
"""What settings were before they could be chosen."""
# Settings of version 1.0.0 that are gone: of both, denoising needs only whether the noise spectrum
# is estimated anew.
QUANTILE, REFINE_AT, REFINE_STEPS = "spectrum_quantile", "refine_at", 200


def todays(settings):
    """The settings in a model of any version, a dictionary, in today's words."""
    settings = {**BEFORE, **settings}
    settings.pop(QUANTILE, None)
    if REFINE_AT in settings:
        settings["refine_every"] = REFINE_STEPS if settings.pop(REFINE_AT) else 0
    return settings


def recorded(output):
    """What an earlier ``f2fd train`` recorded in its output folder; {} when there is nothing."""
    path = os.path.join(output, "train.json")
    return read_json(path) if os.path.exists(path) else {}
