"""What options and their values were called in earlier versions: all these names go on working."""

OPTIONS = {"devices": "device", "noise_gain": "noise_profile"}
"""{name of before: name}, on the command line, in configuration files and in models."""

OLD_PERTURBATIONS = {
    "spectrum": "noise_matched",
    "masks": "fourier_masks",
    "points": "self2self",
    "blindspot": "noise2void",
    "halves": "noise2noise",
}
VALUES = {
    "perturbation": OLD_PERTURBATIONS,
    "methods": OLD_PERTURBATIONS,
    "network": {"folded": "unshuffled"},
    "start": {"auto": "automatic", "shapes": "pretrained"},
}
"""{option: {value of before: value}}."""


def names_before(name):
    """What the option of a name was called before."""
    return [before for before, now in OPTIONS.items() if now == name]


def renamed(settings):
    """A dictionary of options with those of earlier versions under their names of today.

    Where both are given, today's counts.
    """
    return {
        **{OPTIONS[name]: value for name, value in settings.items() if name in OPTIONS},
        **{name: value for name, value in settings.items() if name not in OPTIONS},
    }
