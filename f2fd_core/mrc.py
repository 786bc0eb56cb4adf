"""MRC files: header checks, memory-mapped reading, streamed and atomic writing.

Arrays are (Z, Y, X). Format: Cheng et al., MRC2014, J. Struct. Biol. 192 (2015) 146.
"""
import contextlib
import io
import os
import stat
import warnings
from dataclasses import dataclass
from typing import Tuple

import mrcfile
import mrcfile.utils
import numpy as np
from mrcfile.mrcinterpreter import MrcInterpreter

from f2fd_core import files
from f2fd_core.config import UserError

HEADER_BYTES = 1024
EXTENDED_SIZE = slice(92, 96)  # where a header says how long the extended one is
REAL_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
IMOD_STAMP = 1146047817
SLAB_VOXELS = 1 << 24


@dataclass(frozen=True)
class MrcVolume:
    """An MRC volume whose voxels are still on disk.

    ``data`` is a read-only memory map (Z, Y, X) in the file's own type, best read by indexing the
    volume itself, which looks first whether the file still has it all; ``voxel_size`` (Å) and
    ``origin`` (Å) are (x, y, z) as in the header, ``start`` its start indices (x, y, z). ``state``
    is the file's :func:`state` when it was opened.
    """
    path: str
    data: np.ndarray
    voxel_size: Tuple[float, float, float]
    origin: Tuple[float, float, float]
    start: Tuple[int, int, int]
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

    def header(self, first=(0, 0, 0), shape=None):
        """What a result of the same size, or for the box of ``shape`` at the voxel ``first`` (Z, Y,
        X), takes over: the arguments of :func:`new_volume`."""
        start = tuple(index + at for index, at in zip(self.start, first[::-1]))
        return shape or self.shape, self.voxel_size, self.origin, start

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
        return os.path.splitext(os.path.basename(self.path))[0]


def state(path):
    """What changes when a file does: (device, number, bytes, time of change in nanoseconds)."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _first_bytes(path):
    """The bytes of a file's MRC header; raises UserError if it can't have one."""
    if not os.path.exists(path):
        raise UserError("%s does not exist; expected an MRC tomogram" % path)
    if os.path.isdir(path):
        raise UserError("%s is a folder; expected an MRC tomogram" % path)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError("%s is a device or a pipe; expected an MRC tomogram" % path)
    try:
        with open(path, "rb") as stream:
            found = stream.read(HEADER_BYTES)
    except OSError as error:
        raise UserError("cannot read %s: %s" % (path, error.strerror or error))
    if found[:2] in COMPRESSED:
        raise UserError("%s is compressed with %s; expected an uncompressed MRC tomogram"
                        % (path, COMPRESSED[found[:2]]))
    if len(found) < HEADER_BYTES:
        raise UserError("%s has %d bytes; expected an MRC tomogram, whose header alone has %d"
                        % (path, len(found), HEADER_BYTES))
    return found


def _read_header(path):
    """(header, bytes of the extended header)."""
    found = _first_bytes(path)
    if found[208:211] != b"MAP":
        raise UserError("%s is not an MRC file: its map identifier is %r; expected b'MAP '"
                        % (path, found[208:212]))
    # Reading the extended header, mrcfile would take as much memory as the file says that it has.
    alone = bytearray(found)
    alone[EXTENDED_SIZE] = bytes(4)
    with warnings.catch_warnings():
        # In permissive mode mrcfile warns of what is judged, with the file's name, below.
        warnings.simplefilter("ignore")
        header = MrcInterpreter(io.BytesIO(alone), permissive=True, header_only=True).header
    return header, int.from_bytes(found[EXTENDED_SIZE], _order(header), signed=True)


def _order(header):
    return "big" if header.mode.dtype.byteorder == ">" else "little"


def _unsigned_bytes(header):
    """Whether mode 0 means unsigned bytes: IMOD's stamp without the flag for signed ones."""
    extra = bytes(header.extra2)
    stamp, flags = (int.from_bytes(extra[at:at + 4], _order(header)) for at in (40, 44))
    return stamp == IMOD_STAMP and not flags & 1


def _dtype(path, header):
    mode = int(header.mode)
    if mode not in REAL_MODES:
        raise UserError("%s has MRC mode %d; expected one of %s"
                        % (path, mode, ", ".join("%d (%s)" % item for item in REAL_MODES.items())))
    dtype = mrcfile.utils.data_dtype_from_header(header)
    return np.dtype(np.uint8) if mode == 0 and _unsigned_bytes(header) else dtype


def open_volume(path, voxel_size=0.0):
    """Open an MRC volume for reading.

    ``voxel_size`` (Å) is used when the header holds none. Raises UserError, naming the file, for
    whatever is no single three-dimensional real volume with its complete data.
    """
    path = os.fspath(path)
    header, extended = _read_header(path)
    nx, ny, nz, sections = (int(value) for value in (header.nx, header.ny, header.nz, header.mz))
    if min(nx, ny, nz) < 1:
        raise UserError("%s has dimensions %d x %d x %d (x, y, z); expected positive ones"
                        % (path, nx, ny, nz))
    if nz == 1:
        raise UserError("%s is a two-dimensional image of %d x %d; expected a tomogram (x, y, z)"
                        % (path, nx, ny))
    space_group = int(header.ispg)
    if space_group == 0 and sections == 1:
        raise UserError("%s is a stack of %d images; expected one tomogram" % (path, nz))
    if 401 <= space_group <= 630 and nz != sections:
        raise UserError("%s is a stack of %d volumes; expected one tomogram"
                        % (path, nz // max(sections, 1)))
    axes = int(header.mapc), int(header.mapr), int(header.maps)
    if sorted(axes) == [1, 2, 3] and axes != (1, 2, 3):
        raise UserError("%s stores its axes in the order %d %d %d; expected 1 2 3 (x, y, z)"
                        % ((path,) + axes))
    dtype = _dtype(path, header)
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
    if not (np.isfinite(size).all() and (size > 0).all()):
        if voxel_size <= 0:
            raise UserError("%s has voxel size %g x %g x %g in its header; expected a positive "
                            "one: give it in Å with --voxel-size" % ((path,) + tuple(size)))
        size = np.full(3, voxel_size)
    return MrcVolume(
        path, np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(nz, ny, nx)),
        tuple(float(value) for value in size),
        tuple(float(np.nan_to_num(header.origin[axis], posinf=0, neginf=0)) for axis in "xyz"),
        tuple(int(header[axis]) for axis in ("nxstart", "nystart", "nzstart")), opened)


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
    mrc.header.rms = np.sqrt(max(square / mrc.data.size - mean ** 2, 0.0))


def contrast(path):
    """The standard deviation that the header of a finished map tells."""
    with mrcfile.open(path, header_only=True) as mrc:
        return float(mrc.header.rms)


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


@contextlib.contextmanager
def new_volume(path, shape, voxel_size, origin=(0, 0, 0), start=(0, 0, 0)):
    """Yield a float32 memory map of zeros (Z, Y, X), which becomes the file ``path`` at the end.

    Voxels go to ``path`` + ".part", renamed once they are complete and finite; on an error that
    file is removed and nothing else touched. ``voxel_size`` and ``origin`` are in Å, (x, y, z).
    """
    partial = path + files.PARTIAL
    with files.removed_after(partial):
        with _allocate(partial, shape) as mrc:
            mrc.set_volume()
            mrc.voxel_size = tuple(voxel_size)
            for axis, value, first in zip("xyz", origin, start):
                mrc.header.origin[axis] = value
                mrc.header["n%sstart" % axis] = first
            yield mrc.data
            _complete_header(mrc, path)
        files.finish(partial, path)


def write_volume(path, array, voxel_size):
    """Write an array (Z, Y, X) as a float32 MRC file with cubic voxels of ``voxel_size`` Å."""
    with new_volume(path, array.shape, (voxel_size,) * 3) as data:
        data[:] = array
