"""What the header of an MRC file says, in the dialects of the programs that write it."""

import io
import os
import stat
import warnings

import mrcfile.utils
import numpy as np
from mrcfile.mrcinterpreter import MrcInterpreter

from f2fd_core.config import UserError
from f2fd_core.data.source import chosen_voxel_size

HEADER_BYTES = 1024
EXTENDED_SIZE = slice(92, 96)  # where a header says how long the extended one is
REAL_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
IMOD_STAMP = 1146047817
IMOD_SIGNED = 1  # a flag beside the stamp
IMOD_INVERTED_ORIGIN = 4  # another one
LABEL_BYTES = 80
MOST_LABELS = 10
MRC2014 = 20140  # the first version of the format that says which sign the origin has


def _first_bytes(path):
    """The bytes of a file's MRC header; raises UserError if it can't have one."""
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist; expected an MRC tomogram")
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; expected an MRC tomogram")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError(f"{path} is a device or a pipe; expected an MRC tomogram")
    try:
        with open(path, "rb") as stream:
            found = stream.read(HEADER_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}")
    if found[:2] in COMPRESSED:
        raise UserError(
            f"{path} is compressed with {COMPRESSED[found[:2]]}; expected an "
            "uncompressed MRC tomogram"
        )
    if len(found) < HEADER_BYTES:
        raise UserError(
            f"{path} has {len(found)} bytes; expected an MRC tomogram, whose "
            f"header alone has {HEADER_BYTES}"
        )
    return found


def read_header(path):
    """(header, bytes of the extended header)."""
    found = _first_bytes(path)
    if found[208:211] != b"MAP":
        raise UserError(
            f"{path} is not an MRC file: its map identifier is {found[208:212]!r}; expected b'MAP '"
        )
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


def _imod_flags(header):
    """The flags that IMOD sets in its files; None in those of others."""
    extra = bytes(header.extra2)
    stamp, flags = (int.from_bytes(extra[at : at + 4], _order(header)) for at in (40, 44))
    return flags if stamp == IMOD_STAMP else None


def has_unsigned_bytes(header, data):
    """Whether the bytes of mode 0, ``data`` as signed ones, are unsigned: by IMOD's flag; in files
    of others by the extremes in the header, as IMOD does it; where it has none, by what makes the
    bytes differ less."""
    flags = _imod_flags(header)
    if flags is not None:
        return not flags & IMOD_SIGNED
    low, high = float(header.dmin), float(header.dmax)
    if low < high:
        return low >= 0 or high >= 128 and -low <= high - 128
    section = data[len(data) // 2]
    return section.view(np.uint8).std() < section.std()


def origin_of(header):
    """The origin (x, y, z) in Å with the sign of MRC2014, which IMOD turned before; 0 where it is
    not finite."""
    flags = _imod_flags(header)
    turned = flags is not None and not flags & IMOD_INVERTED_ORIGIN and header.nversion < MRC2014
    origin = np.array([header.origin[axis] for axis in "xyz"], dtype=np.float64)
    origin[~np.isfinite(origin)] = 0
    return tuple((0 - origin if turned else origin).tolist())


def dtype_of(path, header):
    """The type of the voxels, in the file's byte order; raises UserError for none that is real."""
    mode = int(header.mode)
    if mode not in REAL_MODES:
        raise UserError(
            f"{path} has MRC mode {mode}; expected one of "
            f"{', '.join(f'{mode} ({kind})' for mode, kind in REAL_MODES.items())}"
        )
    return mrcfile.utils.data_dtype_from_header(header)


def shape_of(path, header):
    """The shape (Z, Y, X) of the one volume in a file; raises UserError if that is not what it
    holds."""
    nx, ny, nz, sections = (int(value) for value in (header.nx, header.ny, header.nz, header.mz))
    if min(nx, ny, nz) < 1:
        raise UserError(
            f"{path} has dimensions {nx} x {ny} x {nz} (x, y, z); expected positive ones"
        )
    if nz == 1:
        raise UserError(
            f"{path} is a two-dimensional image of {nx} x {ny}; expected a tomogram (x, y, z)"
        )
    space_group = int(header.ispg)
    if space_group == 0 and sections == 1:
        raise UserError(
            f"{path} is a stack of {nz} images by its header (space group 0, mz 1); "
            f"expected one tomogram: if it is one, set space group 1, mz {nz} and the "
            "voxel size, in Python with mrcfile.mmap(path, 'r+'), its set_volume() "
            "and voxel_size"
        )
    if 401 <= space_group <= 630 and nz != sections:
        raise UserError(
            f"{path} is a stack of {nz // max(sections, 1)} volumes; expected one tomogram"
        )
    axes = int(header.mapc), int(header.mapr), int(header.maps)
    if sorted(axes) == [1, 2, 3] and axes != (1, 2, 3):
        raise UserError(
            f"{path} stores its axes in the order {' '.join(map(str, axes))}; "
            "expected 1 2 3 (x, y, z)"
        )
    return nz, ny, nx


def voxel_size_of(path, header, stated):
    """The voxel size (x, y, z) in Å of the header; what the user has ``stated`` where that can't
    be. Raises UserError without either."""
    cell = np.array([header.cella.x, header.cella.y, header.cella.z], dtype=np.float64)
    samples = np.array([header.mx, header.my, header.mz], dtype=np.float64)
    size = np.divide(cell, samples, out=np.zeros(3), where=samples > 0)
    x, y, z = size.tolist()
    found = f"voxel size {x:g} x {y:g} x {z:g} Å in its header"
    return chosen_voxel_size(path, (x, y, z), stated, found)


def set_labels(header, labels, own):
    """Give a header the ``labels`` of what the file was made of, and F2Fd's ``own``."""
    own = [label[:LABEL_BYTES].ljust(LABEL_BYTES) for label in own]
    kept = [*labels[: MOST_LABELS - len(own)], *own]
    header.nlabl = len(kept)
    header.label[: len(kept)] = kept
