"""Files as arrays in memory that don't keep them open.

Python's mmap, and with it numpy's memmap, keeps a file open for every array, and the system often
lets a process have no more than 1024.
"""

import ctypes
import math
import mmap
import os
import tempfile
import weakref

import numpy as np

from f2fd_core.config import UserError

_library = ctypes.CDLL(None, use_errno=True)
_library.mmap.restype = ctypes.c_void_p
_library.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
FAILED = ctypes.c_void_p(-1).value


def mapped(stream, size, writable=False):
    """The first ``size`` bytes of an open file, which may be closed or removed then: an array.

    Raises OSError where the system refuses.
    """
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    address = _library.mmap(None, size, access, mmap.MAP_SHARED, stream.fileno(), 0)
    if address == FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_ubyte * size).from_address(address)
    # Not at Python's end, when a thread may still be reading.
    weakref.finalize(memory, _library.munmap, address, size).atexit = False
    array = np.frombuffer(memory, np.uint8)
    array.flags.writeable = writable
    return array


def release(array):
    """Let a mapped array take none of this process's memory until it is used again."""
    _library.madvise(array.ctypes.data, array.nbytes, mmap.MADV_DONTNEED)


class DiskArray:
    """An array of zeros in a file without a name, which is gone when nobody uses it any more.

    ``array`` is the numpy array. It is in the ``folder``, else in that for temporary files, the
    environment variable TMPDIR. Raises UserError where there is no room for it.
    """

    def __init__(self, shape, dtype, folder=""):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        # By itself, tempfile silently takes another folder where TMPDIR is full or missing.
        other = " or in another folder, named by the environment variable TMPDIR"
        other = "" if folder else other
        folder = folder or os.environ.get("TMPDIR") or tempfile.gettempdir()
        try:
            with tempfile.TemporaryFile(prefix="f2fd_", dir=folder) as stream:
                os.posix_fallocate(stream.fileno(), 0, size)
                values = mapped(stream, size, writable=True)
        except OSError as error:
            raise UserError(
                f"cannot make a temporary file of {size / 2**30:.1f} GiB in "
                f"{folder}: {error.strerror or error}; expected room there{other}"
            )
        self.array = values.view(dtype).reshape(shape)

    def release(self):
        """Take none of this process's memory until the array is used again."""
        release(self.array)
