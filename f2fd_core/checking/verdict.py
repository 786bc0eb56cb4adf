"""The verdict on a denoised tomogram: sentences, each with a mark and the rule that gives it."""

import numpy as np

from f2fd_core.checking.examine import DENOISED, GAUSSIAN, REFERENCE, START
from f2fd_core.checking.planted import RECOVERED
from f2fd_core.checking.shells import TOMOGRAM
from f2fd_core.checking.wedge import BELIEVED, DOUBTED

MARKS = ("green", "yellow", "red")
# Differences of an estimated correlation: worse, or much worse, than something else.
WORSE = 0.01
MUCH_WORSE = 0.03
# Estimated correlations below these are no longer good, or bad.
FAIR = 0.6
POOR = 0.4
# Contrast that is made of noise alone, over that of the result.
INVENTED = 0.25
MUCH_INVENTED = 0.5
# What noise alone may account for, of all that stands out.
FALSE = 0.01
MUCH_FALSE = 0.1
# The contrast, in standard deviations, from which what was planted is found.
FAINT = 1.0
STRONG = 2.0
# The share of the signal that was removed.
LOST = 0.25
MUCH_LOST = 0.5
# A response to noise below this turns the sign of weak signal.
REVERSED = -0.05
# How much the result changes in other tiles, over its contrast.
SEAMS = 0.1
BAD_SEAMS = 0.25
# How much voxels differ by their place in the network's pixel shuffle, over the contrast.
GRID = 0.02
BAD_GRID = 0.1
# Shells count for the response where the signal is at least this share of the power.
SIGNAL = 0.05
# Shells count for what was lost where the noise is at most this share of the power.
MOST_NOISE = 0.8


def _mark(bad, doubtful):
    return "red" if bad else "yellow" if doubtful else "green"


def _range(value):
    return f"{value['estimate']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def verdict(numbers):
    """The sentences for the numbers of :func:`~f2fd_core.checking.examine.examine`: a list of
    {"title", "mark", "sentence", "rule"}."""
    return [
        {"title": title, **dict(zip(("mark", "sentence", "rule"), judge(numbers)))}
        for title, judge in (
            ("Is it better?", _better),
            ("How right is it?", _right),
            ("What is invented?", _invented),
            ("What is found?", _found),
            ("What is lost?", _lost),
            *((("Is the wedge right?", _wedge),) if "wedge" in numbers else ()),
        )
    ]


def _better(numbers):
    found = numbers["correlation"]
    value = found[DENOISED]["estimate"]
    others = {name: found[name]["estimate"] for name in (TOMOGRAM, GAUSSIAN, START, REFERENCE)}
    words = (
        f"the tomogram as it is has {others[TOMOGRAM]:.2f}, the best Gaussian filter "
        f"{others[GAUSSIAN]:.2f}, the pretrained weights {others[START]:.2f}, and a short "
        f"training on this very tomogram {others[REFERENCE]:.2f}"
    )
    least = max(others[name] for name in (TOMOGRAM, GAUSSIAN, START))
    if value < least - WORSE:
        mark, start = "red", "The model is worse than what it should improve on"
    elif _invented(numbers)[0] == "red":
        mark, start = (
            "red",
            ("The model makes so much of noise alone that its estimate is worth nothing"),
        )
    elif value < others[REFERENCE] - MUCH_WORSE:
        mark, start = "yellow", "A model trained on this tomogram would be better"
    elif numbers["opposite"]:
        mark, start = (
            "yellow",
            ("The model has learned from the opposite contrast, and is inverted for this tomogram"),
        )
    else:
        mark, start = "green", "The model is better than what it is compared with"
    return (
        mark,
        f"{start}: its estimated correlation with the truth is {value:.2f}; {words}.",
        (
            "red: lower than that of the tomogram, of the best Gaussian filter or of the "
            "pretrained "
            f"weights by more than {WORSE:g}, or a red mark for what is invented; yellow: lower "
            f"than that of a short training by more than {MUCH_WORSE:g}, or the opposite contrast"
        ),
    )


def _right(numbers):
    value, resolution = numbers["correlation"][DENOISED], numbers["shells"]["resolution"]
    where = (
        "at every resolution that its voxels have"
        if resolution is None
        else f"down to {resolution:.0f} Å"
    )
    source = (
        "half-maps"
        if numbers["half_maps"]
        else "what several networks remove, since there are no half-maps"
    )
    return (
        _mark(value["estimate"] < POOR or _invented(numbers)[0] == "red", value["estimate"] < FAIR),
        (
            f"The correlation with the truth is {_range(value)}, and the Fourier shell correlation "
            f"is above 0.5 {where}; the noise is known from {source}."
        ),
        (
            f"yellow: a correlation below {FAIR:g}; red: below {POOR:g}, or a red mark for what is "
            "invented"
        ),
    )


def _invented(numbers):
    found = numbers["invention"]
    contrast, rate = found["contrast"], found["rate"]
    return (
        _mark(contrast > MUCH_INVENTED or rate > MUCH_FALSE, contrast > INVENTED or rate > FALSE),
        (
            f"Of noise alone the model makes {100 * contrast:.0f} % of the result's contrast, and "
            f"{100 * rate:.1f} % of what stands out in the result could be noise."
        ),
        (
            f"yellow: more than {100 * INVENTED:.0f} % of the contrast or {100 * FALSE:.0f} % of "
            "what stands out; "
            f"red: more than {100 * MUCH_INVENTED:.0f} % or {100 * MUCH_FALSE:.0f} %"
        ),
    )


def _found(numbers):
    found = numbers["planted"]
    if not found:
        return "yellow", "The tomogram has no room for structures to plant.", "yellow: no room"
    words = [
        f"{name} " + ("not at all" if one["from"] is None else f"from {one['from']:g} on")
        for name, one in found.items()
    ]
    least = [np.inf if one["from"] is None else one["from"] for one in found.values()]
    return (
        _mark(min(least) > STRONG, max(least) > FAINT),
        (
            f"Of what was added to the tomogram, at least {100 * RECOVERED:.0f} % comes out at "
            f"these contrasts, in standard deviations of the tomogram: {'; '.join(words)}."
        ),
        (
            f"yellow: something needs more than {FAINT:g}; red: everything needs more than "
            f"{STRONG:g}"
        ),
    )


def _lost(numbers):
    shells, seams, grid = numbers["shells"], numbers["seams"], numbers["invention"]["grid"]
    noise = np.array(shells["noise_share"])
    excess = (np.array(shells["removed_over_noise"]) - 1) * noise / np.maximum(1 - noise, SIGNAL)
    lost = float(excess[noise < MOST_NOISE].max(initial=0))
    response = float(min(np.array(shells["response"])[noise < 1 - SIGNAL].min(initial=1), 1))
    mark = _mark(
        lost > MUCH_LOST or response < REVERSED or seams > BAD_SEAMS or grid > BAD_GRID,
        lost > LOST or seams > SEAMS or grid > GRID,
    )
    problems = [
        words
        for wrong, words in (
            (lost > LOST, "signal was removed"),
            (response < REVERSED, "weak signal comes out with the wrong sign"),
            (seams > SEAMS, "tiles may show"),
            (grid > GRID, "a grid may show"),
        )
        if wrong
    ]
    start = " and ".join(problems) or "No sign that signal was lost"
    return (
        mark,
        (
            f"{start[0].upper() + start[1:]}: of the signal's power at most {100 * lost:.0f} % was "
            "removed in any Fourier shell that is not nearly all noise, the response to a little "
            f"noise is nowhere below {response:.2f}, in other tiles the result changes by "
            f"{100 * seams:.0f} % of its contrast, and what repeats every 8 voxels has "
            f"{100 * grid:.1f} % of it."
        ),
        (
            f"yellow: more than {100 * LOST:.0f} % of the signal, changes of more than "
            f"{100 * SEAMS:.0f} % or a grid of more than {100 * GRID:.0f} %; red: more than "
            f"{100 * MUCH_LOST:.0f} % of the signal, a response below {REVERSED:g}, changes of "
            f"more than {100 * BAD_SEAMS:.0f} % or a grid of more than {100 * BAD_GRID:.0f} %"
        ),
    )


def _wedge(numbers):
    found = numbers["wedge"]
    mean, invented = found["mean"], found["invented"]
    low, high = found["tilt_range"]
    planted = "; ".join(
        f"{100 * share:.0f} % of a {name}" for name, share in found["planted"].items()
    )
    return (
        _mark(mean < DOUBTED or invented > MUCH_INVENTED, mean < BELIEVED or invented > INVENTED),
        (
            f"What is filled in beyond tilts of {low:.0f} and {high:.0f} degrees is predicted, not "
            "measured. In measured directions that were hidden from the network, its prediction "
            f"has a mean Fourier shell correlation of {mean:.2f} with the signal; noise alone "
            f"makes {100 * invented:.0f} % of the contrast that is filled in"
            + (f"; of what the wedge lacks of known structures it finds {planted}" * bool(planted))
            + "."
        ),
        (
            f"yellow: a correlation below {BELIEVED:g}, or more than {100 * INVENTED:.0f} % of "
            f"noise; red: below {DOUBTED:g}, or more than {100 * MUCH_INVENTED:.0f} %"
        ),
    )
