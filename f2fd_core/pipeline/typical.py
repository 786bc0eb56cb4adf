"""Which of many tomograms a model should be trained on."""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.noise import NoiseSettings, periodogram

# So many tomograms are chosen at most: more add little to what a model learns.
MOST_CHOSEN = 3
# Windows that a spectrum is measured on, and its bands, in cycles per voxel.
WINDOWS = 64
BANDS = np.linspace(0.02, 0.5, 13)
# Tomograms are chosen among this share of them, those nearest to the median: an outlier (ice, a
# failed alignment) is nothing to learn from.
KEPT = 0.8
# A tomogram so many times as far from the medoid as the others usually are is reported.
OUTLYING = 3.0


class Chosen(NamedTuple):
    """A tomogram that was chosen: its ``number`` and why, in words."""

    number: int
    why: str


def features_of(volume) -> np.ndarray:
    """What a standardised tomogram is like: its log power in each of BANDS.

    Power at low frequencies is signal and contrast, at high ones noise.
    """
    size = periodogram.window_size(volume.shape, NoiseSettings().window)
    corners = periodogram.window_corners(volume.shape, size, WINDOWS)
    power = periodogram.periodograms(volume.region, corners, size).mean(0)
    grid = fourier.grid_of(size)
    level = grid.ratio(power, torch.ones_like(power)).numpy()
    frequencies = grid.frequencies.numpy()
    centres = (BANDS[1:] + BANDS[:-1]) / 2
    bands = np.interp(centres, frequencies[frequencies <= 0.5], level[frequencies <= 0.5])
    return np.log(np.maximum(bands, 1e-30))


def distances(features: Sequence[np.ndarray]) -> np.ndarray:
    """How unlike tomograms are, (n, n): the root mean square over the features, each in units of
    its interquartile range."""
    table = np.stack(features)
    low, high = np.quantile(table, (0.25, 0.75), axis=0)
    scale = np.where(high > low, high - low, 1.0)
    return np.sqrt((((table[:, None] - table[None]) / scale) ** 2).mean(-1))


def typical(features: Sequence[np.ndarray], most: int = MOST_CHOSEN) -> List[Chosen]:
    """The tomograms to train on.

    First the medoid, which is least unlike all others; then, among those that are no outliers, the
    one that is least like those already chosen (farthest-first traversal; Gonzalez, Theor. Comput.
    Sci. 38 (1985) 293).

    Parameters
    ----------
    features : sequence of arrays
        As :func:`features_of` gives them.
    most : int
        How many are chosen at most.

    Returns
    -------
    list of Chosen
    """
    apart = distances(features)
    first = int(apart.sum(1).argmin())
    near = np.argsort(apart[first], kind="stable")
    kept = near[: max(min(most, len(near)), int(np.ceil(KEPT * len(near))))]
    chosen = [Chosen(first, "its spectrum is the closest to all the others")]
    while len(chosen) < min(most, len(kept)):
        numbers = [one.number for one in chosen]
        left = [number for number in kept if number not in numbers]
        farthest = max(left, key=lambda number: apart[number, numbers].min())
        if apart[farthest, numbers].min() == 0:
            break
        chosen.append(
            Chosen(
                int(farthest), "its spectrum is the least like those already chosen, and no outlier"
            )
        )
    return chosen


def outliers(features: Sequence[np.ndarray]) -> List[Tuple[int, float]]:
    """(number, how many times farther from the medoid than half of the others) of tomograms that
    are more than OUTLYING times as far."""
    apart = distances(features)
    from_first = apart[int(apart.sum(1).argmin())]
    usual = float(np.median(from_first[from_first > 0])) if (from_first > 0).any() else 0.0
    return [
        (number, float(value / usual))
        for number, value in enumerate(from_first)
        if usual and value > OUTLYING * usual
    ]
