"""MRC files: header checks, memory-mapped reading, streamed and atomic writing.

Arrays are (Z, Y, X). Format: Cheng et al., MRC2014, J. Struct. Biol. 192 (2015) 146.
"""

import contextlib
import os
from dataclasses import dataclass
from typing import Tuple

import mrcfile
import numpy as np

from f2fd_core.config import UserError
from f2fd_core.data.mrc_header import (
    HEADER_BYTES,
    dtype_of,
    has_unsigned_bytes,
    origin_of,
    read_header,
    set_labels,
    shape_of,
    voxel_size_of,
)
from f2fd_core.data.source import (
    Header,
    Source,
    file_stamp,
    refuse_bad_result,
    refuse_stated,
    slabs,
)
from f2fd_core.data.storage import MODES, Encoding
from f2fd_core.runtime import files
from f2fd_core.runtime.mapped import DiskArray, mapped


@dataclass(frozen=True)
class MrcVolume(Source):
    """An MRC volume whose voxels are still on disk.

    ``data`` is a read-only memory map (Z, Y, X) in the file's own type, best read by indexing the
    volume itself, which looks first whether the file still has it all; ``start`` are the start
    indices (x, y, z). The rest is as for every :class:`~f2fd_core.data.source.Source`.
    """

    data: np.ndarray
    start: Tuple[int, int, int]

    @property
    def shape(self):
        return self.data.shape

    def __getitem__(self, index):
        """A part of ``data``; raises UserError if the file has become shorter."""
        self.changed()
        return self.data[index]

    def header(self, first=(0, 0, 0), shape=None):
        start = tuple(index + at for index, at in zip(self.start, first[::-1]))
        return dict(super().header(first, shape), start=start)

    def stamp(self):
        return file_stamp(self.path)

    def changed(self):
        """Whether the file was written to since it was opened, but is at least as long as it was.

        What was removed, or replaced by another file, is still there for who has opened it. Raises
        UserError if the file has become shorter, since touching what is gone would end the process.
        """
        try:
            now = file_stamp(self.path)
        except OSError:
            return False
        if now[:2] != self.state[:2]:
            return False
        if now[2] < self.state[2]:
            raise UserError(
                f"{self.path} was cut to {now[2]} bytes while it was being read; "
                f"expected the {self.state[2]} that it had"
            )
        return now != self.state


def open_volume(path, voxel_size=0.0):
    """Open an MRC volume for reading.

    ``voxel_size`` (Å), if not 0, is what the user says that it is. Raises UserError, naming the
    file, for whatever is no single three-dimensional real volume with its complete data.
    """
    path = os.fspath(path)
    refuse_stated(voxel_size)
    header, extended = read_header(path)
    nz, ny, nx = shape_of(path, header)
    dtype = dtype_of(path, header)
    if extended < 0:
        raise UserError(
            f"{path} declares an extended header of {extended} bytes; expected 0 or more"
        )
    offset = HEADER_BYTES + extended
    expected = offset + nx * ny * nz * dtype.itemsize
    opened = file_stamp(path)
    found = opened[2]
    if found < expected:
        raise UserError(
            f"{path} is truncated: it has {found} bytes; expected {expected} for {nx} "
            f"x {ny} x {nz} voxels (x, y, z) of {dtype.name}"
        )
    size = voxel_size_of(path, header, voxel_size)
    with open(path, "rb") as stream:
        data = np.ndarray((nz, ny, nx), dtype, mapped(stream, expected), offset)
    if header.mode == 0 and has_unsigned_bytes(header, data):
        data = data.view(np.uint8)
    return MrcVolume(
        path,
        size,
        voxel_size,
        origin_of(header),
        tuple(bytes(label) for label in header.label if label.strip()),
        opened,
        data,
        (int(header.nxstart), int(header.nystart), int(header.nzstart)),
    )


def _complete_header(mrc, path):
    """Write the statistics of a finished map; refuses values that are not finite."""
    total = square = 0.0
    low, high = np.inf, -np.inf
    for slab in slabs(mrc.data.shape):
        values = np.asarray(mrc.data[slab], dtype=np.float64)
        refuse_bad_result(values, path)
        total, square = total + values.sum(), square + np.square(values).sum()
        low, high = min(low, values.min()), max(high, values.max())
    mean = total / mrc.data.size
    mrc.header.dmin, mrc.header.dmax, mrc.header.dmean = low, high, mean
    spread = max(square - total * mean, 0.0)
    # Programs that compute it in float32 can't hold more; -1 is the format's word for unknown.
    mrc.header.rms = np.sqrt(spread / mrc.data.size) if spread < np.finfo(np.float32).max else -1


def _allocate(path, shape, dtype):
    """An empty map of ``shape`` on disk; a full disk shows here, not in the middle."""
    try:
        files.create(path)
        mrc = mrcfile.new_mmap(path, tuple(shape), mrc_mode=MODES[dtype], overwrite=True)
        with open(path, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, os.path.getsize(path))
    except OSError as error:
        raise files.cannot_write(path, error)
    return mrc


def _store(values, stored, path):
    """Put float32 voxels into a map of another type; returns the words for its label."""
    for slab in slabs(values.shape):
        refuse_bad_result(values[slab], path)
    encoding = Encoding(stored.dtype, values)
    for slab in slabs(values.shape):
        stored[slab] = encoding.stored(values[slab])
    return encoding.words


@contextlib.contextmanager
def new_volume(path, header):
    """Yield a float32 memory map of zeros (Z, Y, X), which becomes the file ``path`` at the end,
    with a :class:`~f2fd_core.data.source.Header`.

    Voxels go to ``path`` + ".part", renamed once they are complete and finite; on an error that
    file is removed and nothing else touched.
    """
    partial = path + files.PARTIAL
    with files.removed_after(partial):
        with _allocate(partial, header.shape, header.dtype) as mrc:
            mrc.set_volume()
            mrc.voxel_size = tuple(header.voxel_size)
            for axis, value, first in zip("xyz", header.origin, header.start):
                mrc.header.origin[axis] = value
                mrc.header[f"n{axis}start"] = first
            direct = header.dtype == "float32"
            values = mrc.data if direct else DiskArray(header.shape, np.float32).array
            yield values
            words = "" if direct else _store(values, mrc.data, path)
            set_labels(mrc.header, header.labels, header.own_labels(words))
            _complete_header(mrc, path)
        files.finish(partial, path)


def write_volume(path, array, voxel_size):
    """Write an array (Z, Y, X) as a float32 MRC file with cubic voxels of ``voxel_size`` Å."""
    with new_volume(path, Header(array.shape, (voxel_size,) * 3)) as data:
        data[:] = array
