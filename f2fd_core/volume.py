"""A tomogram as the network sees it: clipped, standardised and read region by region."""
import numpy as np

from f2fd_core import mrc
from f2fd_core.config import UserError

MINIMUM_SIDE = 8
CLIP_QUANTILES = (0.0005, 0.9995)
SAMPLED_VOXELS = 1 << 24
ANISOTROPY = 0.01


def reflected(start, size, length):
    """Indices start .. start + size - 1, mirrored into 0 .. length - 1 without repeating edges."""
    period = 2 * (length - 1)
    index = np.arange(start, start + size) % period
    return np.minimum(index, period - index)


def crop(array, start, size):
    """Region of the last three axes; what lies outside is filled by reflection.

    ``array`` (a numpy array or a torch tensor) is (..., Z, Y, X); ``start`` may be negative and
    ``start + size`` beyond the end. Wholly inside, the result is a view.
    """
    for axis, (first, count) in zip((-3, -2, -1), zip(start, size)):
        length = array.shape[axis]
        rest = (slice(None),) * (-1 - axis)
        if 0 <= first <= length - count:
            array = array[(Ellipsis, slice(first, first + count)) + rest]
        else:
            array = array[(Ellipsis, reflected(first, count, length)) + rest]
    return array


class Volume:
    """A standardised tomogram (mean 0, standard deviation 1), memory-mapped.

    Attributes: ``source`` (the :class:`~f2fd_core.mrc.MrcVolume`), ``shape`` (Z, Y, X),
    ``voxel_size`` (Å, as stated by the user, else by the header along X), ``warnings`` (sentences
    on what looks odd), and the intensity scale in the file's units: ``low`` and ``high`` (clip
    limits), ``mean`` and ``std`` (after the clip).
    """

    def __init__(self, path, clip=True, voxel_size=0.0):
        """Open and measure; raises UserError for unusable content, naming the file."""
        self.source = mrc.open_volume(path, voxel_size)
        self.shape = self.source.shape
        for axis, length in zip("ZYX", self.shape):
            if length < MINIMUM_SIDE:
                raise UserError("%s has %d voxels along %s; expected at least %d"
                                % (path, length, axis, MINIMUM_SIDE))
        self.warnings = []
        size = self.source.voxel_size
        if max(size) > min(size) * (1 + ANISOTROPY):
            self.warnings.append("%s has anisotropic voxels of %g x %g x %g Å (x, y, z); they are "
                                 "treated as cubic" % ((path,) + size))
        if voxel_size and abs(size[0] - voxel_size) > 0.01 * voxel_size:
            self.warnings.append("%s has voxel size %g Å in its header, not the %g Å of "
                                 "--voxel-size; results keep the header's"
                                 % (path, size[0], voxel_size))
        self.voxel_size = voxel_size or size[0]
        self._measure(path, clip)

    def _measure(self, path, clip):
        data = self.source.data
        for slab in mrc.slabs(self.shape):
            bad = data[slab].size - int(np.isfinite(data[slab]).sum())
            if bad:
                raise UserError("%s holds %d NaN or infinite voxels in sections %d to %d; expected "
                                "finite ones" % (path, bad, slab.start, slab.stop - 1))
        self.low, self.high = -np.inf, np.inf
        if clip:
            step = max(1, int(np.ceil((data.size / SAMPLED_VOXELS) ** (1 / 3))))
            sample = np.asarray(data[::step, ::step, ::step], dtype=np.float64)
            low, high = np.quantile(sample, CLIP_QUANTILES)
            if low < high:
                self.low, self.high = float(low), float(high)
        # Two passes: the sum of squares about the mean does not cancel for a large offset.
        self.mean = sum(self._clipped(slab).sum() for slab in mrc.slabs(self.shape)) / data.size
        square = sum(np.square(self._clipped(slab) - self.mean).sum()
                     for slab in mrc.slabs(self.shape))
        self.std = float(np.sqrt(square / data.size))
        if not self.std > 1e-7 * abs(self.mean):
            raise UserError("%s is constant: every voxel is %g; expected a tomogram with contrast"
                            % (path, self.mean))

    def _clipped(self, slab):
        return np.clip(np.asarray(self.source.data[slab], dtype=np.float64), self.low, self.high)

    def region(self, start, size):
        """Standardised voxels as float32, shape ``size``; reflected where outside the volume."""
        values = np.asarray(crop(self.source.data, start, size), dtype=np.float64)
        return ((np.clip(values, self.low, self.high) - self.mean) / self.std).astype(np.float32)

    def whole(self):
        """All standardised voxels as float32 (Z, Y, X)."""
        return self.region((0, 0, 0), self.shape)

    def restore(self, values):
        """Standardised values back in the file's intensity units and contrast."""
        return values * self.std + self.mean
