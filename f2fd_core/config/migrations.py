"""What trainings of this and of earlier versions left behind, in today's words."""

import os

from f2fd_core.config.aliases import renamed
from f2fd_core.config.parameter import read_json

BEFORE = {"optimizer": "adam", "averaging": 0.0, "noise_profile": False, "start": "random"}
"""What settings were before they could be chosen."""
GONE = (
    "spectrum_quantile",
    "refine_at",
    "refine_every",
    "spectrum_share",
    "spared_frequency",
    "spectrum_window",
)
"""Settings of earlier versions that nothing depends on any more: how the noise was estimated."""


def migrate(settings, before=BEFORE):
    """The settings in a model of any version, a dictionary, in today's words; ``before``: what
    those had that it does not have."""
    settings = {**before, **renamed(settings)}
    for name in GONE:
        settings.pop(name, None)
    return settings


def recorded(output):
    """What an earlier ``f2fd train`` recorded in its output folder; {} when there is nothing."""
    path = os.path.join(output, "train.json")
    return migrate(read_json(path), {}) if os.path.exists(path) else {}
