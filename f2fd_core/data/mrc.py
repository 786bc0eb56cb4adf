"""MRC files: header checks, memory-mapped reading, streamed and atomic writing.

Arrays are (Z, Y, X). Format: Cheng et al., MRC2014, J. Struct. Biol. 192 (2015) 146.
"""
import contextlib
import os
from dataclasses import dataclass
from typing import Tuple

import mrcfile
import numpy as np

from f2fd_core import __version__
from f2fd_core.config import VOXEL_SIZES, UserError
from f2fd_core.data.mrc_header import (
    HEADER_BYTES,
    dtype_of,
    has_unsigned_bytes,
    origin_of,
    read_header,
)
from f2fd_core.runtime import files
from f2fd_core.runtime.mapped import mapped

LABEL_BYTES = 80
SLAB_VOXELS = 1 << 24
ANISOTROPY = 0.01
MOST_LABELS, OWN_LABEL = 10, b"F2Fd "


@dataclass(frozen=True)
class MrcVolume:
    """An MRC volume whose voxels are still on disk.

    ``data`` is a read-only memory map (Z, Y, X) in the file's own type, best read by indexing the
    volume itself, which looks first whether the file still has it all; ``voxel_size`` (Å) is
    (x, y, z) as in the header, ``stated`` (Å) what the user says, 0: nothing; ``origin`` (Å) is
    (x, y, z), ``start`` the start indices (x, y, z) and ``labels`` the texts in the header.
    ``state`` is the file's :func:`state` when it was opened.
    """
    path: str
    data: np.ndarray
    voxel_size: Tuple[float, float, float]
    stated: float
    origin: Tuple[float, float, float]
    start: Tuple[int, int, int]
    labels: Tuple[bytes, ...]
    state: Tuple[int, int, int, int]

    @property
    def shape(self):
        return self.data.shape

    @property
    def size(self):
        return self.data.size

    def __getitem__(self, index):
        """A part of ``data``; raises UserError if the file has become shorter."""
        self.changed()
        return self.data[index]

    @property
    def made_of(self):
        """What F2Fd noted when it wrote the file, see :func:`new_volume`; empty if nothing."""
        own = [label for label in self.labels if label.startswith(OWN_LABEL)]
        return own[-1].decode("ascii", "replace") if own else ""

    @property
    def true_voxel_size(self):
        """Voxel size (x, y, z) in Å: what the user says, else the header's."""
        return (self.stated,) * 3 if self.stated else self.voxel_size

    def doubts(self):
        """Sentences on what is odd about the voxel size."""
        size, told = self.voxel_size, []
        if max(size) > min(size) * (1 + ANISOTROPY):
            told.append("%s has anisotropic voxels of %g x %g x %g Å (x, y, z); they are treated "
                        "as cubic" % ((self.path,) + size))
        if self.stated and abs(size[0] - self.stated) > 0.01 * self.stated:
            told.append("%s has voxel size %g Å in its header, not the %g Å of --voxel-size, which "
                        "results get" % (self.path, size[0], self.stated))
        if not self.stated and size == (1, 1, 1):
            told.append("%s has voxel size 1 Å in its header, which many programs write when they "
                        "don't know it; expected the tomogram's, often 5 to 20 Å: give it with "
                        "--voxel-size" % self.path)
        return told

    def header(self, first=(0, 0, 0), shape=None):
        """What a result of the same size, or for the box of ``shape`` at the voxel ``first`` (Z, Y,
        X), takes over: the arguments of :func:`new_volume`."""
        start = tuple(index + at for index, at in zip(self.start, first[::-1]))
        origin = tuple(place + at * size for place, at, size
                       in zip(self.origin, first[::-1], self.true_voxel_size))
        return shape or self.shape, self.true_voxel_size, origin, start

    def changed(self):
        """Whether the file was written to since it was opened, but is at least as long as it was.

        What was removed, or replaced by another file, is still there for who has opened it. Raises
        UserError if the file has become shorter, since touching what is gone would end the process.
        """
        try:
            now = state(self.path)
        except OSError:
            return False
        if now[:2] != self.state[:2]:
            return False
        if now[2] < self.state[2]:
            raise UserError("%s was cut to %d bytes while it was being read; expected the %d that "
                            "it had" % (self.path, now[2], self.state[2]))
        return now != self.state

    @property
    def name(self):
        """File name without folder and extension."""
        return files.stem(self.path)


def state(path):
    """What changes when a file does: (device, number, bytes, time of change in nanoseconds)."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def open_volume(path, voxel_size=0.0):
    """Open an MRC volume for reading.

    ``voxel_size`` (Å), if not 0, is what the user says that it is. Raises UserError, naming the
    file, for whatever is no single three-dimensional real volume with its complete data.
    """
    path = os.fspath(path)
    if 0 < voxel_size < VOXEL_SIZES[0]:
        raise UserError("--voxel-size is %g; expected 0 (that of the header) or at least %g Å"
                        % (voxel_size, VOXEL_SIZES[0]))
    header, extended = read_header(path)
    nx, ny, nz, sections = (int(value) for value in (header.nx, header.ny, header.nz, header.mz))
    if min(nx, ny, nz) < 1:
        raise UserError("%s has dimensions %d x %d x %d (x, y, z); expected positive ones"
                        % (path, nx, ny, nz))
    if nz == 1:
        raise UserError("%s is a two-dimensional image of %d x %d; expected a tomogram (x, y, z)"
                        % (path, nx, ny))
    space_group = int(header.ispg)
    if space_group == 0 and sections == 1:
        raise UserError("%s is a stack of %d images by its header (space group 0, mz 1); expected "
                        "one tomogram: if it is one, set space group 1, mz %d and the voxel size, "
                        "in Python with mrcfile.mmap(path, 'r+'), its set_volume() and voxel_size"
                        % (path, nz, nz))
    if 401 <= space_group <= 630 and nz != sections:
        raise UserError("%s is a stack of %d volumes; expected one tomogram"
                        % (path, nz // max(sections, 1)))
    axes = int(header.mapc), int(header.mapr), int(header.maps)
    if sorted(axes) == [1, 2, 3] and axes != (1, 2, 3):
        raise UserError("%s stores its axes in the order %d %d %d; expected 1 2 3 (x, y, z)"
                        % ((path,) + axes))
    dtype = dtype_of(path, header)
    if extended < 0:
        raise UserError("%s declares an extended header of %d bytes; expected 0 or more"
                        % (path, extended))
    offset = HEADER_BYTES + extended
    expected = offset + nx * ny * nz * dtype.itemsize
    opened = state(path)
    found = opened[2]
    if found < expected:
        raise UserError("%s is truncated: it has %d bytes; expected %d for %d x %d x %d voxels "
                        "(x, y, z) of %s" % (path, found, expected, nx, ny, nz, dtype.name))
    cell = np.array([header.cella.x, header.cella.y, header.cella.z], dtype=np.float64)
    samples = np.array([header.mx, header.my, header.mz], dtype=np.float64)
    size = np.divide(cell, samples, out=np.zeros(3), where=samples > 0)
    if not ((size >= VOXEL_SIZES[0]) & (size <= VOXEL_SIZES[1])).all():
        if not voxel_size:
            raise UserError("%s has voxel size %g x %g x %g Å in its header; expected %g to %g Å: "
                            "give it in Å with --voxel-size" % ((path, *size) + VOXEL_SIZES))
        size = np.full(3, voxel_size)
    with open(path, "rb") as stream:
        data = np.ndarray((nz, ny, nx), dtype, mapped(stream, expected), offset)
    if header.mode == 0 and has_unsigned_bytes(header, data):
        data = data.view(np.uint8)
    return MrcVolume(
        path, data, tuple(size.tolist()), voxel_size, origin_of(header),
        tuple(int(header[axis]) for axis in ("nxstart", "nystart", "nzstart")),
        tuple(bytes(label) for label in header.label if label.strip()), opened)


def originals(paths):
    """Those of the files that F2Fd has not made from others, as their labels tell."""
    return [path for path in paths
            if not any(label.startswith(OWN_LABEL) and b": " in label
                       for label in open_volume(path, 1.0).labels)]


def slabs(shape, voxels=0):
    """Slices along Z that cover a volume in blocks of about so many ``voxels``; 0: 16 million."""
    depth = max(1, (voxels or SLAB_VOXELS) // (shape[1] * shape[2]))
    return [slice(z, min(z + depth, shape[0])) for z in range(0, shape[0], depth)]


def refuse_bad_voxels(volume):
    """Raise UserError if an :class:`MrcVolume` holds NaN or infinite voxels."""
    for slab in slabs(volume.shape):
        bad = volume[slab].size - int(np.isfinite(volume[slab]).sum())
        if bad:
            raise UserError("%s holds %d NaN or infinite voxels in sections %d to %d; expected "
                            "finite ones" % (volume.path, bad, slab.start, slab.stop - 1))


def _complete_header(mrc, path):
    """Write the statistics of a finished map; refuses values that are not finite."""
    total = square = 0.0
    low, high = np.inf, -np.inf
    for slab in slabs(mrc.data.shape):
        values = np.asarray(mrc.data[slab], dtype=np.float64)
        if not np.isfinite(values).all():
            raise UserError("the result for %s holds NaN or infinite voxels; expected finite ones: "
                            "nothing was written" % path)
        total, square = total + values.sum(), square + np.square(values).sum()
        low, high = min(low, values.min()), max(high, values.max())
    mean = total / mrc.data.size
    mrc.header.dmin, mrc.header.dmax, mrc.header.dmean = low, high, mean
    spread = max(square - total * mean, 0.0)
    # Programs that compute it in float32 can't hold more; -1 is the format's word for unknown.
    mrc.header.rms = np.sqrt(spread / mrc.data.size) if spread < np.finfo(np.float32).max else -1


def _allocate(path, shape):
    """An empty float32 map of ``shape`` on disk; a full disk shows here, not in the middle."""
    try:
        files.create(path)
        mrc = mrcfile.new_mmap(path, tuple(shape), mrc_mode=2, overwrite=True)
        with open(path, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, os.path.getsize(path))
    except OSError as error:
        raise files.cannot_write(path, error)
    return mrc


def _own_labels(done, made_of):
    """What F2Fd adds to the labels of a file that it makes."""
    texts = [": ".join(filter(None, (__version__, done))), *filter(None, [made_of])]
    return [(OWN_LABEL + text.encode("ascii", "replace"))[:LABEL_BYTES].ljust(LABEL_BYTES)
            for text in texts]


@contextlib.contextmanager
def new_volume(path, shape, voxel_size, origin=(0, 0, 0), start=(0, 0, 0), labels=(), done="",
               made_of=""):
    """Yield a float32 memory map of zeros (Z, Y, X), which becomes the file ``path`` at the end.

    Voxels go to ``path`` + ".part", renamed once they are complete and finite; on an error that
    file is removed and nothing else touched. ``voxel_size`` and ``origin`` are in Å, (x, y, z);
    ``labels`` are the texts of what it was made of, to which are added the program with what was
    ``done``, and the few words ``made_of``, by which it is known what that was.
    """
    partial = path + files.PARTIAL
    with files.removed_after(partial):
        with _allocate(partial, shape) as mrc:
            mrc.set_volume()
            mrc.voxel_size = tuple(voxel_size)
            for axis, value, first in zip("xyz", origin, start):
                mrc.header.origin[axis] = value
                mrc.header["n%sstart" % axis] = first
            own = _own_labels(done, made_of)
            texts = [*labels[:MOST_LABELS - len(own)], *own]
            mrc.header.nlabl = len(texts)
            mrc.header.label[:len(texts)] = texts
            yield mrc.data
            _complete_header(mrc, path)
        files.finish(partial, path)


def write_volume(path, array, voxel_size):
    """Write an array (Z, Y, X) as a float32 MRC file with cubic voxels of ``voxel_size`` Å."""
    with new_volume(path, array.shape, (voxel_size,) * 3) as data:
        data[:] = array
