"""Fourier transforms of whole tomograms, a few sections at a time.

A transform of a whole volume at once holds several copies of it; these hold one, the spectrum.
"""

import torch

from f2fd_core.data.source import slabs


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
