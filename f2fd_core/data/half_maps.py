"""Two half-maps of one tomogram, which have their signal in common and not their noise."""

import copy
import dataclasses
import os

import numpy as np

from f2fd_core.config import UserError
from f2fd_core.data.volume import Standardised

SAME_VOXEL_SIZE = 0.01
# A Fourier shell correlation that is higher everywhere is that of copies.
COPIES = 0.999


def refuse_other_files(odd, even, sizes):
    """Raise UserError if two Sources, with voxels of these ``sizes`` (Å), can't be half-maps of
    one tomogram whatever they hold."""
    if odd.shape != even.shape:
        raise UserError(
            f"the half-maps {odd.path} and {even.path} have shapes {odd.shape} and "
            f"{even.shape}; expected the same (Z, Y, X)"
        )
    if abs(sizes[0] - sizes[1]) > SAME_VOXEL_SIZE * max(sizes):
        raise UserError(
            f"the half-maps {odd.path} and {even.path} have voxels of {sizes[0]:g} and "
            f"{sizes[1]:g} Å; expected the same"
        )
    if os.path.samefile(odd.path, even.path):
        raise UserError(f"{odd.path} is given as both half-maps; expected two files, odd and even")


def refuse_copies(odd, even, curve):
    """Raise UserError if the files ``odd`` and ``even`` have the Fourier shell correlation of one
    volume with itself."""
    if min(curve) > COPIES:
        raise UserError(
            f"the half-maps {odd} and {even} are the same but for their scale; "
            "expected noise of its own in each"
        )


class _Mean:
    """The mean of two volumes (Z, Y, X), read by indexing."""

    def __init__(self, first, second):
        self.first, self.second = first, second
        self.shape, self.size = first.shape, first.size

    def __getitem__(self, index):
        return (np.asarray(self.first[index], np.float64) + self.second[index]) / 2


class HalfMaps(Standardised):
    """Two half-maps of one tomogram.

    Stands where a :class:`Volume` does, for their mean, which is standardised as the tomogram of
    all tilts or frames would be; :meth:`half` is one of them, and :meth:`difference` the noise of
    the mean.
    """

    def __init__(self, halves, path=""):
        """``halves``: two Volumes; ``path``: the tomogram's, by which the result is called.

        Raises UserError if they don't belong together.
        """
        odd, even = self.halves = halves
        refuse_other_files(odd.source, even.source, (odd.voxel_size, even.voxel_size))
        self.source = dataclasses.replace(odd.source, path=path or odd.source.path)
        self.shape, self.voxel_size = odd.shape, odd.voxel_size
        self.warnings = odd.warnings + even.warnings
        self.rescaling = odd.rescaling
        self.whole = odd.prepared_by(lambda *_: _Mean(odd.data, even.data))
        self.mean, self.std = self.whole.mean, self.whole.std

    def alone(self):
        """Their mean, a Volume like a tomogram that has no half-maps."""
        volume = copy.copy(self.whole)
        volume.source, volume.axes_found, volume.unscaled = (
            self.source,
            self.axes_found,
            self.unscaled,
        )
        return volume

    def prepared_by(self, prepare):
        """See :meth:`Volume.prepared_by`."""
        return self._with([half.prepared_by(prepare) for half in self.halves], self.unscaled)

    def rescaled(self, voxel_size):
        """See :meth:`Volume.rescaled`."""
        return self._with([half.rescaled(voxel_size) for half in self.halves], self)

    def _with(self, halves, unscaled):
        other = HalfMaps(halves, self.source.path)
        other.axes_found, other.unscaled = self.axes_found, unscaled
        return other

    def destandardise(self, values, start=(0, 0, 0)):
        """See :class:`Standardised`."""
        return self.whole.destandardise(values, start)

    def content(self, start, size):
        """See :class:`Standardised`."""
        return min(half.content(start, size) for half in self.halves)

    @property
    def scale(self):
        """See :class:`Volume`: means over both halves, as checkpoints of version 1.1 have them."""
        odd, even = self.halves
        return (odd.mean + even.mean) / 2, (odd.std + even.std) / 2

    def half(self, number, start, size):
        """Standardised voxels of the odd (0) or even (1) half-map, in which the signal is as strong
        as in the mean; see :meth:`Volume.region`."""
        volume = self.halves[number]
        return volume.region(start, size) * np.float32(volume.std / self.std)

    def region(self, start, size):
        """Mean of both halves; see :meth:`Volume.region`."""
        for half in self.halves:
            half.refuse_changed()
        return self.whole.region(start, size)

    def difference(self, start, size):
        """Half the difference of both halves: noise such as the mean has, without signal."""
        return (self.half(0, start, size) - self.half(1, start, size)) / 2
