"""A tomogram as the network sees it: clipped, standardised and read region by region."""

import copy
from typing import Optional, Tuple

import numpy as np

from f2fd_core.config import MINIMUM_SIDE, UserError
from f2fd_core.data import formats
from f2fd_core.data.intensity import Intensities, opened
from f2fd_core.data.orientation import USUAL
from f2fd_core.data.regions import crop, in_words
from f2fd_core.data.rescaling import Rescaling
from f2fd_core.data.source import Source, refuse_bad_voxels

# So many voxels around it show which of a region are outliers or lie in constant parts.
AROUND = 2
LEAST_CONTRAST = 1e-7


class Standardised:
    """What volumes in units of their standard deviation have in common.

    ``shape`` (Z, Y, X); ``voxel_size`` (Å); ``mean`` and ``std`` in the file's intensities;
    ``region(start, size)`` gives standardised voxels as float32, reflected where outside the
    volume; ``destandardise(values, start)`` brings such voxels back into the file's intensities;
    ``content(start, size)`` is the share of a region that is no constant part.
    """

    shape: Tuple[int, int, int]
    source: Source
    voxel_size: float
    axes_found: Optional[Tuple[int, int, int]] = None
    """The axes as the missing wedge shows them, set by who has looked for it; None: not shown."""
    rescaling: Optional[Rescaling] = None
    """How it came to its voxel size, if that is not the file's; ``unscaled``: what it was before.
    """
    unscaled: Optional["Standardised"] = None

    def region(self, start, size):
        """Standardised voxels as float32, shape ``size``; reflected where outside the volume."""
        raise NotImplementedError

    def destandardise(self, values, start=(0, 0, 0)):
        """Standardised voxels (Z, Y, X) of the region at ``start`` in the file's intensities."""
        raise NotImplementedError

    @property
    def before(self):
        """It as the file has it: itself, unless it is rescaled."""
        return self.unscaled or self

    @property
    def nyquist(self):
        """The highest frequency along an axis of which it knows anything, in cycles per voxel: 0.5,
        and less if it was brought to smaller voxels."""
        return min(0.5, 0.5 * self.voxel_size / self.before.voxel_size)

    @property
    def axes(self):
        """The axes (Z is 0, Y 1, X 2) along which the depth, the tilt axis and the direction across
        both lie, by which the network sees it; as usual where the spectrum doesn't show them."""
        return self.axes_found or USUAL

    def orientation(self):
        """A sentence on how it lies, if it is not as expected; else ""."""
        if self.axes_found is None and self.shape[0] > min(self.shape):
            return (
                f"{self.source.path} has {in_words(self.shape)} voxels (Z, Y, X), and its "
                "spectrum has no missing wedge that shows its orientation; expected the depth "
                "along Z and the tilt axis along Y: if it lies otherwise, rotate it before"
            )
        if self.axes == USUAL:
            return ""
        depth, tilt_axis, _ = ("ZYX"[axis] for axis in self.axes)
        return (
            f"{self.source.path} has its depth along {depth} and its tilt axis along "
            f"{tilt_axis}, as its missing wedge shows; expected Z and Y: it is rotated for the "
            "network, and the result rotated back"
        )

    def central_sections(self, first=(0, 0, 0), shape=None):
        """The central XY, XZ and YZ sections in the file's units, arrays of two dimensions; of the
        whole or of the box of ``shape`` at the voxel ``first`` (Z, Y, X). They are the file's own,
        if the volume is rescaled."""
        if self.unscaled is not None:
            return self.unscaled.central_sections(first, shape)
        sections = []
        for axis in range(3):
            start, size = list(first), list(shape or self.shape)
            start[axis] += size[axis] // 2
            size[axis] = 1
            sections.append(self.destandardise(self.region(start, size), start).take(0, axis))
        return sections


class Volume(Standardised):
    """A standardised tomogram (mean 0, standard deviation 1, see
    :class:`~f2fd_core.data.intensity.Intensities`), memory-mapped.

    Attributes: ``source`` (the :class:`~f2fd_core.data.source.Source`), ``shape`` (Z, Y, X),
    ``voxel_size`` (Å, as stated by the user, else by the header along X), ``warnings`` (sentences
    on what looks odd), and ``intensities``, in the file's units.
    """

    def __init__(self, path, clip=True, voxel_size=0.0):
        """Open and measure; raises UserError for unusable content, naming the file."""
        self.source = formats.open_volume(path, voxel_size)
        self.shape = self.source.shape
        for axis, length in zip("ZYX", self.shape):
            if length < MINIMUM_SIDE:
                raise UserError(
                    f"{path} has {length} voxels along {axis}; expected at least {MINIMUM_SIDE}"
                )
        self.warnings = self.source.doubts()
        self.voxel_size = self.source.true_voxel_size[0]
        refuse_bad_voxels(self.source)
        self.clip, self.prepared, self.resampled = clip, None, None
        self._measure()
        if self.intensities.abrupt:
            self.warnings.append(
                f"the background of {path} changes abruptly, as at the edge of a "
                "carbon film; near there the result is less reliable: leave "
                "that part out, with --sampling-masks or --region"
            )
        if not self.std > LEAST_CONTRAST * abs(self.mean):
            raise UserError(
                f"{path} is constant: every voxel is {self.mean:g}; expected a "
                "tomogram with contrast"
            )

    def prepared_by(self, prepare):
        """This tomogram, with the voxels that ``prepare(voxels, voxel size)`` makes of its own.

        ``prepare`` None: as it is.
        """
        if prepare is None:
            return self
        other = copy.copy(self)
        other.prepared = prepare(self._unprepared, self.voxel_size)
        other._measure()
        return other

    def rescaled(self, voxel_size):
        """This tomogram with voxels of another size (Å), see
        :class:`~f2fd_core.data.rescaling.Rescaling`."""
        other = copy.copy(self)
        other.unscaled = self
        other.rescaling = Rescaling(self.shape, self.voxel_size / voxel_size)
        other.resampled, other.prepared = other.rescaling.there(self._unprepared), None
        other.shape, other.voxel_size = other.rescaling.scaled, voxel_size
        other._measure()
        return other

    @property
    def data(self):
        """The voxels as the intensity scale finds them, (Z, Y, X), to be read by indexing."""
        return self._unprepared if self.prepared is None else self.prepared

    @property
    def _unprepared(self):
        return self.source if self.resampled is None else self.resampled

    def _measure(self):
        self.intensities = (Intensities.measured if self.clip else Intensities.plain)(self.data)

    @property
    def mean(self):
        """The mean that standardises, in the file's intensities."""
        return self.intensities.offset + self.intensities.mean

    @property
    def std(self):
        """The standard deviation that standardises, in the file's intensities."""
        return self.intensities.std

    @property
    def scale(self):
        """The mean and the standard deviation by which a training knows it again."""
        return self.mean, self.std

    def refuse_changed(self):
        """Raise UserError if the file has other content than when it was measured."""
        if self.data is not self.source or not self.source.changed():
            return
        mean, std = self.mean, self.std
        self.source = self.source.reopened()
        self._measure()
        if (self.mean, self.std) != (mean, std):
            raise UserError(
                f"{self.source.path} was overwritten while it was being read: its mean and "
                f"standard deviation were {mean:g} and {std:g} and are {self.mean:g} and "
                f"{self.std:g}; expected a file that stays as it is"
            )

    def _parts(self, start, size):
        """A region's voxels, the background below them, which are outliers that lie close together
        and which are in constant parts: four arrays (Z, Y, X).

        Raises UserError if the file was cut or overwritten since.
        """
        self.refuse_changed()
        scale = self.intensities
        margin = AROUND if self.clip else 0
        start, size = [at - margin for at in start], [side + 2 * margin for side in size]
        voxels = crop(self.data, start, size).astype(np.float64)
        background = scale.offset + scale.background(start, size)
        outliers = (voxels < background + scale.low) | (voxels > background + scale.high)
        if outliers.any():
            outliers = opened(outliers)
        inner = tuple(slice(margin, side - margin) for side in size)
        return tuple(
            np.broadcast_to(part, voxels.shape)[inner]
            for part in (voxels, background, outliers, scale.constant(voxels))
        )

    def region(self, start, size):
        """Standardised voxels as float32, shape ``size``; reflected where outside the volume.

        Raises UserError if the file was cut or overwritten since.
        """
        voxels, background, _, constant = self._parts(start, size)
        scale = self.intensities
        values = (np.clip(voxels - background, scale.low, scale.high) - scale.mean) / scale.std
        values[constant] = 0
        return values.astype(np.float32)

    def destandardise(self, values, start=(0, 0, 0)):
        """Standardised voxels (Z, Y, X) of the region at ``start`` in the file's intensities, with
        the background, beads and constant parts that it has there."""
        voxels, background, outliers, constant = self._parts(start, values.shape)
        scale = self.intensities
        result = background + values * scale.std + scale.mean
        limited = np.clip(voxels, background + scale.low, background + scale.high)
        result[outliers] += (voxels - limited)[outliers]
        result[constant] = voxels[constant]
        # Of what it never learned a network makes anything: but nothing beyond what is there.
        return np.clip(result, voxels.min(), voxels.max())

    def content(self, start, size):
        """See :class:`Standardised`."""
        return self.intensities.content(start, size)
