"""OME-Zarr images, written chunk by chunk: version 0.4, with a pyramid of binned copies."""

import contextlib
import math
import os
from itertools import product
from typing import Dict

import numpy as np

from f2fd_core.data import ome_metadata
from f2fd_core.data.ome_zarr import major, package
from f2fd_core.data.source import refuse_bad_result, slabs
from f2fd_core.data.storage import Encoding
from f2fd_core.runtime import files
from f2fd_core.runtime.mapped import DiskArray


@contextlib.contextmanager
def new_volume(path, header):
    """Yield a float32 array of zeros (Z, Y, X), on disk, which becomes the image ``path`` at the
    end, with a :class:`~f2fd_core.data.source.Header`: OME-Zarr 0.4 with a pyramid of its levels
    where they are not too small, each the mean of 2 x 2 x 2 voxels.

    The image is written to ``path`` + ".part" and renamed once it is complete and finite; on an
    error that is removed and nothing else touched.
    """
    zarr, partial = package(path), path + files.PARTIAL
    with files.removed_after(partial):
        try:
            files.create_folder(partial)
        except OSError as error:
            raise files.cannot_write(path, error)
        scratch = DiskArray(header.shape, np.float32, os.path.dirname(path) or ".")
        yield scratch.array
        levels = min(header.levels, int(math.log2(min(header.shape))) + 1)
        names = [str(number) for number in range(levels)]
        for slab in slabs(header.shape):
            refuse_bad_result(scratch.array[slab], path)
        encoding = Encoding(header.dtype, scratch.array)
        labels = [*header.labels, *header.own_labels(encoding.words)]
        try:
            _write_pyramid(zarr, partial, names, scratch, header.chunks, encoding)
            zarr.open_group(partial, mode="a", **_format(zarr)).attrs.update(
                ome_metadata.described(path, names, header.voxel_size, header.origin, labels)
            )
        except OSError as error:
            raise files.cannot_write(path, error)
        files.finish(partial, path)


def _format(zarr) -> Dict[str, int]:
    """What zarr 3 needs to write format 2, which OME-Zarr 0.4 is in."""
    return {"zarr_format": 2} if major(zarr) >= 3 else {}


def _write_pyramid(zarr, folder, names, scratch, chunks, encoding):
    """Write the datasets ``names``, chunk by chunk, from a :class:`DiskArray`."""
    zarr.open_group(folder, mode="w", **_format(zarr))
    before, shape = scratch.array, scratch.array.shape
    for number, name in enumerate(names):
        shape = tuple(length // 2 for length in shape) if number else shape
        sides = tuple(min(side, length) for side, length in zip(chunks, shape))
        array = _created(zarr, folder, name, shape, sides, encoding.dtype)
        for box in _boxes(shape, sides):
            if number:
                pairs = tuple(slice(2 * part.start, 2 * part.stop) for part in box)
                values = np.asarray(before[pairs])
                array[box] = encoding.stored(
                    _binned(values if number == 1 else encoding.values(values))
                )
            else:
                array[box] = encoding.stored(before[box])
        scratch.release()
        before = array if number else before


def _created(zarr, folder, name, shape, chunks, dtype):
    """An array of format 2 in a group, all of whose chunks will be there."""
    from numcodecs import Blosc

    return zarr.create(
        shape=shape,
        chunks=chunks,
        dtype=dtype.newbyteorder("<"),
        compressor=Blosc(),
        fill_value=0,
        store=folder,
        path=name,
        dimension_separator="/",
        **_format(zarr),
        **({"config": {"write_empty_chunks": True}} if major(zarr) >= 3 else {}),
    )


def _boxes(shape, sides):
    """The slices of all chunks."""
    return product(
        *(
            [slice(at, min(at + side, length)) for at in range(0, length, side)]
            for length, side in zip(shape, sides)
        )
    )


def _binned(values):
    """Means of 2 x 2 x 2 voxels."""
    depth, height, width = (length // 2 for length in values.shape)
    return values.reshape(depth, 2, height, 2, width, 2).mean((1, 3, 5), dtype=np.float32)
