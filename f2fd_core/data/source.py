"""What a tomogram on disk is to the rest of the engine, in whatever format."""

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, Tuple

import numpy as np

from f2fd_core import __version__
from f2fd_core.config import VOXEL_SIZES, UserError
from f2fd_core.runtime import files

SLAB_VOXELS = 1 << 24
ANISOTROPY = 0.01
OWN_LABEL = b"F2Fd "


@dataclass(frozen=True)
class Source:
    """A tomogram whose voxels are still on disk, and are read by indexing it.

    ``voxel_size`` (Å) is (x, y, z) as in the file, ``stated`` (Å) what the user says, 0: nothing;
    ``origin`` (Å) is (x, y, z), ``labels`` are the texts that say what was done, and ``state`` is
    what :meth:`stamp` gave when it was opened.

    A format says what its ``shape`` (Z, Y, X) is, how a part is read (``volume[index]``, a numpy
    array) and what changes with the file (``stamp``, ``changed``).
    """

    path: str
    voxel_size: Tuple[float, float, float]
    stated: float
    origin: Tuple[float, float, float]
    labels: Tuple[bytes, ...]
    state: Tuple[int, ...]
    HEADER: ClassVar[str] = "header"

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(Z, Y, X)."""
        raise NotImplementedError

    def __getitem__(self, index) -> np.ndarray:
        """A part of the voxels; raises UserError if it is there no more."""
        raise NotImplementedError

    def changed(self) -> bool:
        """Whether the file was written to since it was opened; raises UserError if voxels are there
        no more."""
        raise NotImplementedError

    def stamp(self) -> Tuple[int, ...]:
        """What changes when the file does."""
        raise NotImplementedError

    def reopened(self):
        """The same as it is now, after a change."""
        return dataclasses.replace(self, state=self.stamp())

    @property
    def size(self):
        """The number of voxels."""
        return math.prod(self.shape)

    @property
    def made_of(self):
        """What F2Fd noted when it wrote the file, see :class:`Header`; empty if nothing."""
        own = [label for label in self.labels if label.startswith(OWN_LABEL)]
        return own[-1].decode("ascii", "replace") if own else ""

    @property
    def original(self):
        """Whether F2Fd has not made it from others, as its labels say."""
        return not any(label.startswith(OWN_LABEL) and b": " in label for label in self.labels)

    @property
    def true_voxel_size(self):
        """Voxel size (x, y, z) in Å: what the user says, else the file's."""
        return (self.stated,) * 3 if self.stated else self.voxel_size

    def doubts(self):
        """Sentences on what is odd about the voxel size."""
        size, found = self.voxel_size, []
        if max(size) > min(size) * (1 + ANISOTROPY):
            x, y, z = size
            found.append(
                f"{self.path} has anisotropic voxels of {x:g} x {y:g} x {z:g} Å (x, y, z); they "
                "are treated as cubic"
            )
        if self.stated and abs(size[0] - self.stated) > 0.01 * self.stated:
            found.append(
                f"{self.path} has voxel size {size[0]:g} Å in its {self.HEADER}, not the "
                f"{self.stated:g} Å of --voxel-size, which results get"
            )
        if not self.stated and size == (1, 1, 1):
            found.append(
                f"{self.path} has voxel size 1 Å in its {self.HEADER}, which many programs write "
                "when they don't know it; expected the tomogram's, often 5 to 20 Å: give "
                "it with --voxel-size"
            )
        return found

    def header(self, first=(0, 0, 0), shape=None) -> Dict[str, Any]:
        """What a result of the same size, or for the box of ``shape`` at the voxel ``first`` (Z, Y,
        X), takes over: arguments of :func:`f2fd_core.data.formats.new_volume`."""
        origin = tuple(
            place + at * size
            for place, at, size in zip(self.origin, first[::-1], self.true_voxel_size)
        )
        return {"shape": shape or self.shape, "voxel_size": self.true_voxel_size, "origin": origin}

    @property
    def name(self):
        """File name without folder and extension."""
        return files.stem(self.path)


@dataclass(frozen=True)
class Header:
    """What the file of a result has beside its voxels.

    ``voxel_size`` and ``origin`` are in Å, (x, y, z), as are the ``start`` indices, which OME-Zarr
    does not have. ``labels`` are the texts of what it was made of, to which are added the program
    with what was ``done``, and the few words ``made_of``, by which it is known what that was.
    ``dtype``: the type of the voxels, one of :data:`~f2fd_core.data.storage.MODES`. ``chunks``
    (Z, Y, X), and how many ``levels`` the pyramid has, are for OME-Zarr alone.
    """

    shape: Tuple[int, int, int]
    voxel_size: Tuple[float, float, float]
    origin: Tuple[float, float, float] = (0, 0, 0)
    start: Tuple[int, int, int] = (0, 0, 0)
    labels: Tuple[bytes, ...] = ()
    done: str = ""
    made_of: str = ""
    dtype: str = "float32"
    chunks: Tuple[int, int, int] = (128, 128, 128)
    levels: int = 3

    def own_labels(self, encoding=""):
        """What is added to the labels: the program with what was done, how the voxels are encoded,
        and last the few words by which it is known what it was made of."""
        texts = [": ".join(filter(None, (__version__, self.done))), encoding, self.made_of]
        return [OWN_LABEL + text.encode("ascii", "replace") for text in filter(None, texts)]


def file_stamp(path):
    """What changes when a file does: (device, number, bytes, time of change in nanoseconds)."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def chosen_voxel_size(path, size, stated, found):
    """The voxel size (x, y, z) in Å that a file has, ``size``, None if it has none; what the user
    has ``stated`` where that can't be. ``found`` says what the file has. Raises UserError without
    either."""
    low, high = VOXEL_SIZES
    if size is not None and all(low <= value <= high for value in size):
        return tuple(float(value) for value in size)
    if not stated:
        raise UserError(
            f"{path} has {found}; expected {low:g} to {high:g} Å: give it in Å with --voxel-size"
        )
    return (stated,) * 3


def refuse_stated(voxel_size):
    """Raise UserError for a ``--voxel-size`` (Å) that no tomogram has; 0 is that of the file."""
    if 0 < voxel_size < VOXEL_SIZES[0]:
        raise UserError(
            f"--voxel-size is {voxel_size:g}; expected 0 (that of the header) or "
            f"at least {VOXEL_SIZES[0]:g} Å"
        )


def slabs(shape, voxels=0):
    """Slices along Z that cover a volume in blocks of about so many ``voxels``; 0: 16 million."""
    depth = max(1, (voxels or SLAB_VOXELS) // (shape[1] * shape[2]))
    return [slice(z, min(z + depth, shape[0])) for z in range(0, shape[0], depth)]


def refuse_other_shape(name, shape, expected, owner):
    """Raise UserError if the volume called ``name`` has another shape (Z, Y, X) than is expected,
    that of its ``owner``."""
    if tuple(shape) != tuple(expected):
        raise UserError(f"{name} has shape {shape}; expected {expected} (Z, Y, X) as {owner}")


def refuse_bad_voxels(volume):
    """Raise UserError if a :class:`Source` holds NaN or infinite voxels."""
    for slab in slabs(volume.shape):
        values = volume[slab]
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise UserError(
                f"{volume.path} holds {bad} NaN or infinite voxels in sections "
                f"{slab.start} to {slab.stop - 1}; expected finite ones"
            )


def refuse_bad_result(slab, path):
    """Raise UserError if voxels of the result for ``path`` are NaN or infinite."""
    if not np.isfinite(slab).all():
        raise UserError(
            f"the result for {path} holds NaN or infinite voxels; expected finite "
            "ones: nothing was written"
        )
