"""OME-Zarr images, read chunk by chunk.

Arrays are (Z, Y, X). Format: Moore et al., Histochem. Cell Biol. 160 (2023) 223; versions 0.3 to
0.5 are read. Needs the package ``zarr`` (2 or 3), the extra [zarr].
"""

import json
import math
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np

from f2fd_core.config import UserError
from f2fd_core.data import ome_metadata
from f2fd_core.data.regions import in_words
from f2fd_core.data.source import Source, chosen_voxel_size, file_stamp, refuse_stated
from f2fd_core.runtime import files

# What describes an array in Zarr's versions 2 and 3.
ARRAY = ".zarray"
ARRAY_V3 = "zarr.json"
# Voxels of all open images that were read last stay in memory, up to so many bytes: neighbouring
# regions have chunks in common, and to decompress them takes most of the time.
KEPT_BYTES = 1 << 30


class _Kept:
    """The chunks that were read last, of all images."""

    def __init__(self):
        self.chunks: OrderedDict[Any, np.ndarray] = OrderedDict()
        self.lock, self.bytes = threading.Lock(), 0

    def get(self, key, read):
        """What ``read()`` gives, or has given for this key."""
        with self.lock:
            if key in self.chunks:
                self.chunks.move_to_end(key)
                return self.chunks[key]
        found = read()
        with self.lock:
            if key not in self.chunks:
                self.chunks[key] = found
                self.bytes += found.nbytes
            while self.bytes > KEPT_BYTES:
                self.bytes -= self.chunks.popitem(last=False)[1].nbytes
        return found


_kept = _Kept()


@dataclass(frozen=True)
class ZarrVolume(Source):
    """The full resolution of an OME-Zarr image, whose chunks are read when they are needed.

    ``array`` is zarr's, with ``before`` axes of length 1 before Z; ``place`` is the file with the
    array's metadata, ``levels`` how many the image's pyramid has.
    """

    array: Any
    before: int
    place: str
    levels: int
    HEADER: ClassVar[str] = "metadata"

    @property
    def shape(self):
        return tuple(int(length) for length in self.array.shape[self.before :])

    @property
    def chunks(self):
        """The shape of a chunk, (Z, Y, X)."""
        return tuple(int(length) for length in self.array.chunks[self.before :])

    def header(self, first=(0, 0, 0), shape=None):
        return dict(super().header(first, shape), chunks=self.chunks, levels=self.levels)

    def stamp(self):
        return file_stamp(self.place)

    def changed(self):
        """Whether the array was written again since it was opened; raises UserError if it is gone,
        since zarr takes chunks that are not there for empty ones."""
        try:
            return self.stamp() != self.state
        except OSError:
            raise UserError(f"{self.path} was removed while it was being read; expected it kept")

    def doubts(self):
        found = super().doubts()
        folder, name = os.path.split(self.place)
        if name != ARRAY:  # in format 3, a file may hold several chunks
            return found
        there = sum(not os.path.basename(path).startswith(".z") for path in files.files_in(folder))
        count = math.prod(-(-length // side) for length, side in zip(self.shape, self.chunks))
        if there < count:
            found.append(
                f"{self.path} lacks {count - there} of {count} chunks, whose voxels are taken as "
                f"{self.array.fill_value}; expected all, unless there is nothing in them"
            )
        return found

    def __getitem__(self, index):
        """A part of the voxels, an array of its own; ``index`` has slices without step, numbers and
        an Ellipsis."""
        self.changed()
        index = index if isinstance(index, tuple) else (index,)
        at = index.index(Ellipsis) if Ellipsis in index else len(index)
        after = index[at + 1 :]
        every = (slice(None),) * (3 - at - len(after))
        parts = [
            range(length)[part] for part, length in zip(index[:at] + every + after, self.shape)
        ]
        box = [part if isinstance(part, range) else range(part, part + 1) for part in parts]
        whole = tuple(slice(None) if isinstance(part, range) else 0 for part in parts)
        return self._region(box)[whole]

    def _region(self, box):
        """The voxels of a box, a range an axis."""
        result = np.empty([len(part) for part in box], self.array.dtype)
        sides = self.chunks
        for number in product(
            *(
                range(part.start // side, -(-part.stop // side)) if part else ()
                for part, side in zip(box, sides)
            )
        ):
            chunk = self._chunk(number)
            target, inside = [], []
            for part, at, length in zip(box, np.multiply(number, sides).tolist(), chunk.shape):
                low, high = max(part.start, at), min(part.stop, at + length)
                target.append(slice(low - part.start, high - part.start))
                inside.append(slice(low - at, high - at))
            result[tuple(target)] = chunk[tuple(inside)]
        return result

    def _chunk(self, number):
        """A chunk; raises UserError for one that can't be read."""
        box = tuple(slice(at * side, (at + 1) * side) for at, side in zip(number, self.chunks))
        try:
            return _kept.get(
                (self.path, self.state, number),
                lambda: np.asarray(self.array[(0,) * self.before + box]),
            )
        except Exception as error:  # whatever the library stumbles over
            raise UserError(
                f"{self.path} has a chunk that can't be read, of the voxels from "
                f"{in_words(part.start for part in box)} on (Z, Y, X): {_first_line(error)}; "
                "expected a complete one"
            )


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


def package(path):
    """The package."""
    try:
        import zarr
    except ImportError:
        raise UserError(
            f"{path} is an OME-Zarr image; expected the package zarr for it: pip install zarr"
        )
    return zarr


def _group(path):
    """The group of an image; raises UserError if that can't be read."""
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist; expected the folder of an OME-Zarr image")
    if not os.path.isdir(path):
        raise UserError(f"{path} is a file; expected the folder of an OME-Zarr image")
    if os.path.exists(os.path.join(path, ARRAY)):
        raise UserError(f"{path} is a single Zarr array; expected an OME-Zarr image (multiscales)")
    zarr = package(path)
    try:
        return zarr.open_group(path, mode="r")
    except Exception as error:  # whatever the library stumbles over
        if os.path.exists(os.path.join(path, ARRAY_V3)) and major(zarr) < 3:
            raise UserError(
                f"{path} has Zarr format 3 (OME-Zarr 0.5), which zarr {zarr.__version__} does not "
                "read; expected a newer package zarr, or OME-Zarr 0.4"
            )
        raise UserError(
            f"{path} is no Zarr group that can be read ({_first_line(error)}); expected an "
            "OME-Zarr image"
        )


def major(zarr):
    """The first number of the package's version."""
    return int(zarr.__version__.split(".")[0])


def _refuse_code(path, place):
    """Raise UserError if an array is compressed by a codec that can run code."""
    if os.path.basename(place) != ARRAY:
        return
    with open(place, "rb") as stream:
        found = json.load(stream)
    codecs = [found.get("compressor"), *(found.get("filters") or [])]
    if any(codec and codec.get("id") == "pickle" for codec in codecs):
        raise UserError(f"{path} is compressed with pickle, which may run code; expected another")


def open_volume(path, voxel_size=0.0):
    """Open an OME-Zarr image for reading, its full resolution.

    ``voxel_size`` (Å), if not 0, is what the user says that it is. Raises UserError, naming the
    image, for whatever is no single three-dimensional real volume.
    """
    refuse_stated(voxel_size)
    group = _group(path)
    attributes = dict(group.attrs)
    level = ome_metadata.full_resolution(path, attributes)
    names = [os.path.join(path, level.dataset, name) for name in (ARRAY, ARRAY_V3)]
    place = next(filter(os.path.exists, names), None)
    if place is None:
        raise UserError(
            f"{path} names the dataset {level.dataset} in its metadata, which it does not hold; "
            "expected a complete OME-Zarr image"
        )
    opened = file_stamp(place)
    try:
        _refuse_code(path, place)
        array = group[level.dataset]
        shape, kind = tuple(array.shape), np.dtype(array.dtype).kind
    except UserError:
        raise
    except Exception as error:  # whatever the library stumbles over
        raise UserError(
            f"the dataset {level.dataset} of {path} can't be read ({_first_line(error)}); "
            "expected a Zarr array"
        )
    if len(shape) != level.before + 3 or max(shape[: level.before], default=1) > 1:
        raise UserError(
            f"{path} has the shape {shape}; expected one volume (Z, Y, X), with axes of length 1 "
            "before it at most"
        )
    if min(shape) < 1 or kind not in "biuf":
        raise UserError(
            f"{path} has {array.dtype} voxels and the shape {shape}; expected real numbers and "
            "positive sides"
        )
    x, y, z = (value if math.isfinite(value) else 0.0 for value in level.origin)
    return ZarrVolume(
        path,
        chosen_voxel_size(path, level.size, voxel_size, level.found),
        voxel_size,
        (x, y, z),
        ome_metadata.labels_of(attributes),
        opened,
        array,
        level.before,
        place,
        level.levels,
    )
