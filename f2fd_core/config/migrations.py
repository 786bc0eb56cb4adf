"""What trainings of this and of earlier versions left behind, in today's words."""

import os

from f2fd_core.config.parameter import read_json

BEFORE = {"optimizer": "adam", "averaging": 0.0, "noise_gain": False, "start": "random"}
"""What settings were before they could be chosen."""
GONE = ("spectrum_quantile", "refine_at", "refine_every", "spectrum_share", "spared_frequency")
"""Settings of earlier versions that nothing depends on any more: how the noise was estimated."""


def todays(settings, before=BEFORE):
    """The settings in a model of any version, a dictionary, in today's words; ``before``: what
    those had that it does not have."""
    settings = {**before, **settings}
    for name in GONE:
        settings.pop(name, None)
    return settings


def recorded(output):
    """What an earlier ``f2fd train`` recorded in its output folder; {} when there is nothing."""
    path = os.path.join(output, "train.json")
    return todays(read_json(path), {}) if os.path.exists(path) else {}
