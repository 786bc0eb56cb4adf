"""What a model makes of noise alone: structure that is not there."""

from typing import Any, Dict

import numpy as np

# Voxels between which a network's levels, and the shuffled blocks of the unshuffled one, repeat.
PERIOD = 8
# The strongest share of a denoised tomogram's voxels counts as structure.
STRONGEST = 0.01


def things(values, level):
    """The connected things in ``values`` (Z, Y, X) beyond ``level`` on either side of 0.

    Returns the ``share`` of the voxels in them, the voxels of the ``largest``, and the ``peak``,
    the strongest value in any.
    """
    from scipy.ndimage import label

    strong = np.abs(values) > level
    labels, count = label(strong, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    return {
        "share": float(strong.mean()),
        "count": int(count),
        "largest": int(sizes.max()) if count else 0,
        "peak": float(np.abs(values).max()),
    }


def grid(values):
    """How much of ``values`` (Z, Y, X) repeats every PERIOD voxels along all axes: the standard
    deviation of the mean period."""
    sides = [length // PERIOD for length in values.shape]
    if min(sides) < 2:
        return 0.0
    whole = values[tuple(slice(PERIOD * side) for side in sides)]
    parts = [number for side in sides for number in (side, PERIOD)]
    return float(whole.reshape(parts).mean((0, 2, 4)).std())


def invention(result, null):
    """What of a denoised tomogram, a list of arrays (Z, Y, X), can come of noise: ``null``, the
    same of noise alone.

    ``contrast``: the standard deviation of what is made of noise, over the result's; ``result`` and
    ``null``: the :func:`things` beyond the level that the STRONGEST voxels of the result exceed,
    the largest of all parts; ``rate``: how much of what is beyond it noise alone may account for.
    """
    everything = np.abs(np.concatenate([part.ravel() for part in result]))
    level = float(np.quantile(everything, 1 - STRONGEST))
    found: Dict[str, Any] = {"level": level}
    for name, parts in (("result", result), ("null", null)):
        each = [things(part, level) for part in parts]
        found[name] = {
            key: float(np.mean([one[key] for one in each]))
            if key == "share"
            else max(one[key] for one in each)
            for key in each[0]
        }
    share, false = found["result"]["share"], found["null"]["share"]
    spread = [np.sqrt(np.mean([part.var() for part in parts])) for parts in (null, result)]
    found["grid"] = float(np.mean([grid(part) for part in null]) / max(spread[1], 1e-30))
    found["contrast"] = float(spread[0] / max(spread[1], 1e-30))
    found["rate"] = min(false / max(share, 1e-30), 1.0)
    return found
