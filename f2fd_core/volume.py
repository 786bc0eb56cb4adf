"""A tomogram as the network sees it: clipped, standardised and read region by region."""
import copy
import dataclasses
import functools
import itertools

import numpy as np

from f2fd_core import half_maps, mrc, report
from f2fd_core.config import MINIMUM_SIDE, UserError
from f2fd_core.deconvolution import preparation
from f2fd_core.intensity import Intensities, opened, reflected
from f2fd_core.noise import axes_of_volume
from f2fd_core.noise.orientation import USUAL

# So many voxels around it tell which of a region are outliers or lie in constant parts.
AROUND = 2
LEAST_CONTRAST = 1e-7
VOXEL_SIZE_TOLERANCE = 0.1


def crop(array, start, size):
    """Region of the last three axes; what lies outside is filled by reflection.

    ``array`` (a numpy array or a torch tensor) is (..., Z, Y, X); ``start`` may be negative and
    ``start + size`` beyond the end. Wholly inside, the result is a view.
    """
    ranges, mirrored = [], []
    for axis, first, count, length in zip((-3, -2, -1), start, size, array.shape[-3:]):
        if not 0 <= first <= length - count:
            index = reflected(first, count, length)
            first, count = index.min(), np.ptp(index) + 1
            mirrored.append((axis, index - first))
        ranges.append(slice(first, first + count))
    # The ranges first, which copy nothing: the array may be a large file.
    array = array[(Ellipsis, *ranges)]
    for axis, index in mirrored:
        array = array[(Ellipsis, index) + (slice(None),) * (-1 - axis)]
    return array


def _within(result, voxels):
    """Of what it never learned a network makes anything: but nothing beyond what is there."""
    return np.clip(result, voxels.min(), voxels.max())


class Standardised:
    """What volumes in units of their standard deviation have in common.

    ``shape`` (Z, Y, X); ``std`` in the file's units; ``region(start, size)`` gives standardised
    voxels as float32, reflected where outside the volume; ``restore(values, start)`` brings such
    voxels back into the file's intensities; ``content(start, size)`` is the share of a region that
    is no constant part.
    """

    @functools.cached_property
    def _axes_found(self):
        return axes_of_volume(self)

    @property
    def axes(self):
        """The axes (Z is 0, Y 1, X 2) along which the depth, the tilt axis and the direction across
        both lie, by which the network sees it; as usual where the spectrum doesn't tell."""
        return self._axes_found or USUAL

    def orientation(self):
        """A sentence on how it lies, if it is not as expected; else ""."""
        if self._axes_found is None and self.shape[0] > min(self.shape):
            return ("%s has %d x %d x %d voxels (Z, Y, X), and its spectrum has no missing wedge "
                    "that tells how it lies; expected the depth along Z and the tilt axis along Y: "
                    "if it lies otherwise, turn it before" % ((self.source.path,) + self.shape))
        if self.axes == USUAL:
            return ""
        return ("%s has its depth along %s and its tilt axis along %s, as its missing wedge tells; "
                "expected Z and Y: it is turned for the network, and the result turned back"
                % (self.source.path, *("ZYX"[axis] for axis in self.axes[:2])))

    def central_sections(self, first=(0, 0, 0), shape=None):
        """The central XY, XZ and YZ sections in the file's units, arrays of two dimensions; of the
        whole or of the box of ``shape`` at the voxel ``first`` (Z, Y, X)."""
        sections = []
        for axis in range(3):
            start, size = list(first), list(shape or self.shape)
            start[axis] += size[axis] // 2
            size[axis] = 1
            sections.append(self.restore(self.region(start, size), start).take(0, axis))
        return sections


class Volume(Standardised):
    """A standardised tomogram (mean 0, standard deviation 1, see
    :class:`~f2fd_core.intensity.Intensities`), memory-mapped.

    Attributes: ``source`` (the :class:`~f2fd_core.mrc.MrcVolume`), ``shape`` (Z, Y, X),
    ``voxel_size`` (Å, as stated by the user, else by the header along X), ``warnings`` (sentences
    on what looks odd), and ``intensities``, in the file's units.
    """

    def __init__(self, path, clip=True, voxel_size=0.0):
        """Open and measure; raises UserError for unusable content, naming the file."""
        self.source = mrc.open_volume(path, voxel_size)
        self.shape = self.source.shape
        for axis, length in zip("ZYX", self.shape):
            if length < MINIMUM_SIDE:
                raise UserError("%s has %d voxels along %s; expected at least %d"
                                % (path, length, axis, MINIMUM_SIDE))
        self.warnings = self.source.doubts()
        self.voxel_size = self.source.true_voxel_size[0]
        mrc.refuse_bad_voxels(self.source)
        self.clip, self.prepared = clip, None
        self._measure()
        if self.intensities.abrupt:
            self.warnings.append("the background of %s changes abruptly, as at the edge of a "
                                 "carbon film; near there the result is less reliable: leave that "
                                 "part out, with --sampling-masks or --region" % path)
        if not self.std > LEAST_CONTRAST * abs(self.mean):
            raise UserError("%s is constant: every voxel is %g; expected a tomogram with contrast"
                            % (path, self.mean))

    def prepared_by(self, prepare):
        """This tomogram, with the voxels that ``prepare(voxels, voxel size)`` makes of its own.

        ``prepare`` None: as it is.
        """
        if prepare is None:
            return self
        other = copy.copy(self)
        other.prepared = prepare(self.source, self.voxel_size)
        other._measure()
        return other

    @property
    def data(self):
        """The voxels as the intensity scale finds them, (Z, Y, X), to be read by indexing."""
        return self.source if self.prepared is None else self.prepared

    def _measure(self):
        self.intensities = (Intensities.measured if self.clip else Intensities.plain)(self.data)

    @property
    def mean(self):
        return self.intensities.offset + self.intensities.mean

    @property
    def std(self):
        return self.intensities.std

    def refuse_changed(self):
        """Raise UserError if the file has other content than when it was measured."""
        if self.prepared is not None or not self.source.changed():
            return
        before = self.mean, self.std
        self.source = dataclasses.replace(self.source, state=mrc.state(self.source.path))
        self._measure()
        if (self.mean, self.std) != before:
            raise UserError("%s was overwritten while it was being read: its mean and standard "
                            "deviation were %g and %g and are %g and %g; expected a file that "
                            "stays as it is" % ((self.source.path,) + before
                                                + (self.mean, self.std)))

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
        return tuple(np.broadcast_to(part, voxels.shape)[inner] for part in (
            voxels, background, outliers, scale.constant(voxels)))

    def region(self, start, size):
        """Standardised voxels as float32, shape ``size``; reflected where outside the volume.

        Raises UserError if the file was cut or overwritten since.
        """
        voxels, background, _, constant = self._parts(start, size)
        scale = self.intensities
        values = (np.clip(voxels - background, scale.low, scale.high) - scale.mean) / scale.std
        values[constant] = 0
        return values.astype(np.float32)

    def restore(self, values, start=(0, 0, 0)):
        """Standardised voxels (Z, Y, X) of the region at ``start`` in the file's intensities, with
        the background, beads and constant parts that it has there."""
        return _within(*self.restored_freely(values, start))

    def restored_freely(self, values, start):
        """The same, whatever the values, and the voxels that the region has."""
        voxels, background, outliers, constant = self._parts(start, values.shape)
        scale = self.intensities
        result = background + values * scale.std + scale.mean
        limited = np.clip(voxels, background + scale.low, background + scale.high)
        result[outliers] += (voxels - limited)[outliers]
        result[constant] = voxels[constant]
        return result, voxels

    def content(self, start, size):
        """See :class:`Standardised`."""
        return self.intensities.content(start, size)


class _Mean:
    """The mean of two volumes (Z, Y, X), read by indexing."""

    def __init__(self, first, second):
        self.first, self.second = first, second
        self.shape, self.size = first.shape, first.size

    def __getitem__(self, index):
        return (np.asarray(self.first[index], np.float64) + self.second[index]) / 2


class HalfMaps(Standardised):
    """Two half-maps of one tomogram, standardised on one scale.

    Stands where a :class:`Volume` does; ``region`` is the mean of both halves, :meth:`half` one of
    them, and :meth:`difference` the noise of the mean.
    """

    def __init__(self, halves, path="", for_mean=False):
        """``halves``: two Volumes; ``path``: the tomogram's, by which the result is called;
        ``for_mean``: the unit is the standard deviation of the mean, as in the tomogram of all
        tilts or frames, instead of a half's.

        Raises UserError if they don't belong together.
        """
        odd, even = self.halves = halves
        half_maps.refuse_other_files(odd.source, even.source, (odd.voxel_size, even.voxel_size))
        self.source = dataclasses.replace(odd.source, path=path or odd.source.path)
        self.shape, self.voxel_size = odd.shape, odd.voxel_size
        self.warnings = odd.warnings + even.warnings
        self.for_mean = for_mean
        if for_mean:
            self.whole = odd.prepared_by(lambda *_: _Mean(odd.data, even.data))
            self.mean, self.std = self.whole.mean, self.whole.std
        else:
            self.mean, self.std = (odd.mean + even.mean) / 2, (odd.std + even.std) / 2

    def prepared_by(self, prepare):
        """See :meth:`Volume.prepared_by`."""
        return HalfMaps([half.prepared_by(prepare) for half in self.halves], self.source.path,
                        self.for_mean)

    def restore(self, values, start=(0, 0, 0)):
        """See :class:`Standardised`."""
        if self.for_mean:
            return self.whole.restore(values, start)
        halves = [half.restored_freely(values * (self.std / half.std), start)
                  for half in self.halves]
        return _within(*np.mean(halves, 0))

    def content(self, start, size):
        """See :class:`Standardised`."""
        return min(half.content(start, size) for half in self.halves)

    def half(self, number, start, size):
        """Standardised voxels of the odd (0) or even (1) half-map; see :meth:`Volume.region`."""
        volume = self.halves[number]
        return volume.region(start, size) * np.float32(volume.std / self.std)

    def region(self, start, size):
        """Mean of both halves; see :meth:`Volume.region`."""
        if self.for_mean:
            for half in self.halves:
                half.refuse_changed()
            return self.whole.region(start, size)
        return (self.half(0, start, size) + self.half(1, start, size)) / 2

    def difference(self, start, size):
        """Half the difference of both halves: noise such as the mean has, without signal."""
        return (self.half(0, start, size) - self.half(1, start, size)) / 2


def open_silently(config, trained):
    """The same as :func:`open_as_they_are`, without a word."""
    def volumes_of(paths):
        return [Volume(path, trained.clip, config.voxel_size) for path in paths]

    volumes = volumes_of(config.half_maps or config.tomograms)
    if config.half_maps:
        volumes = [HalfMaps(pair, path, trained.perturbation != "halves") for pair, path
                   in zip(zip(volumes[::2], volumes[1::2]), config.names())]
        for halves, whole in itertools.zip_longest(volumes, volumes_of(config.tomograms)):
            halves.warnings += half_maps.check(halves, whole)
    return volumes


def open_as_they_are(config, trained):
    """The tomograms or half-maps of a TrainConfig or another, with their warnings told.

    ``trained``: the TrainConfig of the model, which says whether outliers are clipped and what is
    learned from half-maps. Raises UserError.
    """
    volumes = open_silently(config, trained)
    for volume in volumes:
        for warning in [*volume.warnings, *filter(None, [volume.orientation()])]:
            report.warn(warning)
    return volumes


def warn_of_voxel_sizes(volumes, expected, other):
    """Tell of tomograms whose voxel size differs from the one that is ``expected`` (Å); ``other``:
    what has that one, with its verb."""
    for volume in volumes:
        if abs(volume.voxel_size - expected) > VOXEL_SIZE_TOLERANCE * expected:
            report.warn("%s has voxels of %g Å, but %s %g Å; results may suffer"
                        % (volume.source.path, volume.voxel_size, other, expected))


def open_volumes(config):
    """The same of a TrainConfig, prepared as it says."""
    return [volume.prepared_by(preparation(config))
            for volume in open_as_they_are(config, config)]
