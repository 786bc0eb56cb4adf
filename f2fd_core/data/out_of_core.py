"""What is as large as a tomogram: Fourier transforms a few sections at a time, arrays on disk.

A transform of a whole volume at once holds several copies of it; these hold one, the spectrum.
"""

import math
import os
import tempfile

import numpy as np
import torch

from f2fd_core.config import UserError
from f2fd_core.data.mrc import slabs
from f2fd_core.runtime.mapped import mapped, release


def _along_z(spectrum, transform, device):
    """Transform along the first axis in place, a few rows at a time."""
    depth, height, width = spectrum.shape
    for rows in slabs((height, depth, 2 * width)):
        spectrum[:, rows] = transform(spectrum[:, rows].to(device), dim=0).cpu()


def spectrum_of(read, shape, device="cpu"):
    """The rfftn of a volume of ``shape``: complex64 (Z, Y, X // 2 + 1), on the CPU.

    ``read(slab)`` returns the float32 sections of a slice along Z; the transforms are made on
    ``device``.
    """
    spectrum = torch.empty((*shape[:2], shape[2] // 2 + 1), dtype=torch.complex64)
    for slab in slabs(shape):
        spectrum[slab] = torch.fft.rfftn(read(slab).to(device), dim=(-2, -1)).cpu()
    _along_z(spectrum, torch.fft.fft, device)
    return spectrum


def sections_of(spectrum, shape, device="cpu"):
    """The irfftn of a spectrum, which is used up: yields (slice along Z, its sections)."""
    _along_z(spectrum, torch.fft.ifft, device)
    for slab in slabs(shape):
        yield slab, torch.fft.irfftn(spectrum[slab].to(device), s=shape[1:], dim=(-2, -1)).cpu()


class DiskArray:
    """An array of zeros in a file without a name, which is gone when nobody uses it any more.

    ``array`` is the numpy array. Raises UserError where the folder for temporary files, the
    environment variable TMPDIR, has no room for it.
    """

    def __init__(self, shape, dtype):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        # By itself, tempfile silently takes another folder where TMPDIR is full or missing.
        folder = os.environ.get("TMPDIR") or tempfile.gettempdir()
        try:
            with tempfile.TemporaryFile(prefix="f2fd_", dir=folder) as stream:
                os.posix_fallocate(stream.fileno(), 0, size)
                values = mapped(stream, size, writable=True)
        except OSError as error:
            raise UserError(
                f"cannot make a temporary file of {size / 2**30:.1f} GiB in "
                f"{folder}: {error.strerror or error}; expected room there or in "
                "another folder, named by the environment variable TMPDIR"
            )
        self.array = values.view(dtype).reshape(shape)

    def release(self):
        """Take none of this process's memory until the array is used again."""
        release(self.array)
