"""What the header of an MRC file says, in the dialects of the programs that write it."""
import io
import os
import stat
import warnings

import mrcfile.utils
import numpy as np
from mrcfile.mrcinterpreter import MrcInterpreter

from f2fd_core.config import UserError

HEADER_BYTES = 1024
EXTENDED_SIZE = slice(92, 96)  # where a header says how long the extended one is
REAL_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2"}
IMOD_STAMP = 1146047817
IMOD_SIGNED, IMOD_INVERTED_ORIGIN = 1, 4  # flags beside the stamp
MRC2014 = 20140  # the first version of the format that says which sign the origin has


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


def read_header(path):
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


def _imod_flags(header):
    """The flags that IMOD sets in its files; None in those of others."""
    extra = bytes(header.extra2)
    stamp, flags = (int.from_bytes(extra[at:at + 4], _order(header)) for at in (40, 44))
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
    mode = int(header.mode)
    if mode not in REAL_MODES:
        raise UserError("%s has MRC mode %d; expected one of %s"
                        % (path, mode, ", ".join("%d (%s)" % item for item in REAL_MODES.items())))
    return mrcfile.utils.data_dtype_from_header(header)
