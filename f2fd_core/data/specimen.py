"""Where the specimen lies in a tomogram: in a slab, which may be inclined."""

import itertools
from typing import Optional, Tuple

import numpy as np

from f2fd_core.data.regions import in_words

# Side (voxels) of the blocks that are compared.
COMPARED_BLOCK = 16
# Side (voxels) of what is averaged in them: at low frequencies there is most of the contrast of
# matter and little noise.
AVERAGED = 4
# Slopes of the slab that are tried, voxels along the depth for each across.
SLAB_SLOPES = np.linspace(-0.36, 0.36, 7)
# Those about the best of them, added to it.
FINER = np.linspace(-0.09, 0.09, 7)
# A slab counts if it leaves out this share of the blocks.
LEAST_OUTSIDE = 0.1
# It counts if the log of the contrast inside exceeds that outside by so many standard deviations.
# In simulations (seeds 1 and 2, SNR 0.05 to 0.3) slabs reach 0.58 to 2.3, cells without a border up
# to 0.55.
LEAST_DIFFERENCE = 0.65


class Slab:
    """The voxels between two parallel planes, as an array (Z, Y, X) of booleans that is read by
    slices and takes no memory.

    ``axis``: that of the depth; ``slopes``: by how many voxels the planes rise for each voxel along
    the other two; ``first`` and ``last``: where they cross the volume's middle.
    """

    def __init__(self, shape, axis, slopes, first, last):
        self.shape, self.axis = tuple(shape), axis
        self.slopes, self.first, self.last = slopes, first, last

    def __getitem__(self, index):
        """The part in ``index``, slices of the last three axes."""
        index = [part for part in index if part is not Ellipsis]
        places = np.ix_(*(np.arange(length)[part] for part, length in zip(index, self.shape)))
        height = depth_of(places, self.shape, self.axis, self.slopes)
        return (height >= self.first) & (height <= self.last)

    def central_sections(self):
        """The central XY, XZ and YZ sections, arrays of two dimensions."""
        sections = []
        for axis, length in enumerate(self.shape):
            index = [slice(None)] * 3
            index[axis] = slice(length // 2, length // 2 + 1)
            sections.append(self[index].take(0, axis))
        return sections

    @property
    def share(self):
        """Its share of the volume, about."""
        every = tuple(slice(None, None, 4) for _ in self.shape)
        return float(self[every].mean())

    def describe(self):
        """A sentence on where it lies."""
        slopes = " and ".join(f"{100 * slope:.0f} %" for slope in self.slopes)
        return (
            f"the specimen is {100 * self.share:.0f} % of the volume of {in_words(self.shape)} "
            f"voxels (Z, Y, X): from {self.first:.0f} to {self.last:.0f} along "
            f"{'ZYX'[self.axis]} in the middle, with slopes of {slopes}"
        )


def depth_of(places, shape, axis, slopes):
    """The height of voxels at ``places`` (Z, Y, X) over a plane of these ``slopes`` through the
    middle of a volume of ``shape``."""
    across = [other for other in range(3) if other != axis]
    height = np.asarray(places[axis], float)
    for other, slope in zip(across, slopes):
        height = height - slope * (places[other] - (shape[other] - 1) / 2)
    return height


def contrast_of_blocks(volume):
    """The log of the contrast that matter has in blocks, array (Z, Y, X) of blocks.

    ``volume``: :class:`~f2fd_core.data.volume.Standardised`.
    """
    counts = [length // COMPARED_BLOCK for length in volume.shape]
    found = np.empty(counts)
    inner = COMPARED_BLOCK // AVERAGED
    for number in range(counts[0]):
        size = (COMPARED_BLOCK, counts[1] * COMPARED_BLOCK, counts[2] * COMPARED_BLOCK)
        values = volume.region((number * COMPARED_BLOCK, 0, 0), size)
        binned = values.reshape(
            inner, AVERAGED, counts[1] * inner, AVERAGED, counts[2] * inner, AVERAGED
        ).mean((1, 3, 5))
        blocks = binned.reshape(inner, counts[1], inner, counts[2], inner)
        found[number] = blocks.var((0, 2, 4))
    return np.log(np.maximum(found, np.finfo(np.float32).tiny))


def find_specimen(volume) -> Optional[Slab]:
    """The slab in which the specimen lies, by the contrast of blocks inside and outside.

    Parameters
    ----------
    volume : Standardised
        The tomogram.

    Returns
    -------
    Slab or None
        None where no slab stands out: there is matter everywhere, or too little contrast.
    """
    axis = volume.axes[0]
    if (
        min(length // COMPARED_BLOCK for length in volume.shape) < 1
        or volume.shape[axis] // COMPARED_BLOCK < 3
    ):
        return None
    contrast = contrast_of_blocks(volume)
    places = [
        (place + 0.5) * COMPARED_BLOCK - 0.5
        for place in np.meshgrid(*map(np.arange, contrast.shape), indexing="ij")
    ]
    values = contrast.ravel()

    def best(middle, steps):
        tried = []
        for change in itertools.product(steps, steps):
            slopes = tuple(np.add(middle, change))
            height = depth_of(places, volume.shape, axis, slopes).ravel()
            tried.append((*_best_interval(height, values), slopes))
        return max(tried, key=lambda one: one[0])

    explained, first, last, slopes = best(best((0.0, 0.0), SLAB_SLOPES)[3], FINER)
    slab = Slab(volume.shape, axis, slopes, first - COMPARED_BLOCK / 2, last + COMPARED_BLOCK / 2)
    height = depth_of(places, volume.shape, axis, slopes)
    inside = (height >= first) & (height <= last)
    if not explained or (~inside).mean() < LEAST_OUTSIDE:
        return None
    within, without = contrast[inside], contrast[~inside]
    spread = np.sqrt((within.var() + without.var()) / 2)
    difference = within.mean() - without.mean()
    return slab if difference >= LEAST_DIFFERENCE * spread else None


def _best_interval(height, values) -> Tuple[float, float, float]:
    """(sum of squares that it explains, first, last) of the interval of heights inside of which the
    values are higher than outside, as the mean of each explains most of their variation."""
    levels = np.round((height - height.min()) / (COMPARED_BLOCK / 2)).astype(int)
    counts = np.bincount(levels).astype(float)
    sums = np.bincount(levels, values - values.mean())
    counts, sums = (np.concatenate([[0.0], np.cumsum(part)]) for part in (counts, sums))
    first, last = np.triu_indices(len(counts), 1)
    inside, total = counts[last] - counts[first], sums[last] - sums[first]
    outside = counts[-1] - inside
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = total**2 / inside + total**2 / outside
    explained[(inside == 0) | (outside == 0) | (total <= 0)] = 0
    number = int(np.argmax(explained))
    low = height.min()
    return (
        float(explained[number]),
        low + first[number] * COMPARED_BLOCK / 2,
        low + (last[number] - 1) * COMPARED_BLOCK / 2,
    )
