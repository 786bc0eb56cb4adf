"""How the float32 voxels of a result are stored in a smaller type."""

import math

import numpy as np

from f2fd_core.config import UserError

MODES = {"float32": 2, "float16": 12, "int8": 0}
"""The types that results can have, and their modes in an MRC file."""

# Voxels from which the range of the bytes is found, about.
SAMPLE = 1 << 22
# Share of the voxels at either end, gold beads mostly, that may saturate.
SATURATED = 1e-4
LARGEST_BYTE = 127
# Beyond so many standard deviations there are hardly any voxels of a denoised tomogram.
RANGE = 10
# A step of the stored values, in standard deviations of the tomogram, that adds less than 0.03 of
# it as noise.
LARGEST_STEP = 0.1


def refuse_coarse(dtype, path, mean, std):
    """Raise UserError if the ``dtype`` can't hold values of such a mean and standard deviation."""
    if dtype != "float16":
        return
    largest, limit = abs(mean) + RANGE * std, float(np.finfo(np.float16).max)
    if largest >= limit or np.spacing(np.float16(largest)) > LARGEST_STEP * std:
        raise UserError(
            f"--dtype is float16, which can't hold the values of {path} finely enough, with mean "
            f"{mean:g} and standard deviation {std:g}; expected float32 or int8"
        )


class Encoding:
    """From float32 voxels to stored ones: value = ``offset`` + ``step`` times the stored number."""

    def __init__(self, dtype, values):
        """``values``: all voxels of the result, an array (Z, Y, X) that may be on disk."""
        self.dtype = np.dtype(dtype)
        self.offset, self.step = 0.0, 1.0
        if dtype == "int8":
            every = max(1, math.ceil((values.size / SAMPLE) ** (1 / 3)))
            low, high = np.quantile(
                values[::every, ::every, ::every], (SATURATED, 1 - SATURATED)
            ).tolist()
            self.offset = (low + high) / 2
            self.step = (high - low) / (2 * LARGEST_BYTE) or 1.0

    def stored(self, values):
        """Voxels as they are stored; what lies beyond the type's range is put at its end."""
        scaled = (np.asarray(values, np.float64) - self.offset) / self.step
        if self.dtype == np.int8:
            return np.clip(np.rint(scaled), -LARGEST_BYTE, LARGEST_BYTE).astype(np.int8)
        largest = float(np.finfo(self.dtype).max)
        return np.clip(scaled, -largest, largest).astype(self.dtype)

    def values(self, stored):
        """Stored voxels as what they stand for, float32."""
        return (stored * self.step + self.offset).astype(np.float32)

    @property
    def words(self):
        """What the label of a file says."""
        return f"value = {self.offset:.7g} + {self.step:.7g} * byte" if self.step != 1 else ""
