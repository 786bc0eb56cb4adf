"""Tomograms on disk in whatever format, by the endings of their names: MRC, and OME-Zarr."""

import os

from f2fd_core.data import mrc, ome_writer, ome_zarr
from f2fd_core.data.source import Source
from f2fd_core.runtime import files


def open_volume(path, voxel_size=0.0) -> Source:
    """Open a tomogram for reading; its voxels stay on disk.

    Parameters
    ----------
    path : str
        An MRC file, or the folder of an OME-Zarr image, whose name ends with .zarr.
    voxel_size : float
        What the user says that it is, in Å; 0: what the file says.

    Returns
    -------
    Source
        Arrays are (Z, Y, X).

    Raises
    ------
    UserError
        Naming the file, for whatever is no single three-dimensional real volume.
    """
    path = os.fspath(path)
    return (ome_zarr if files.is_zarr(path) else mrc).open_volume(path, voxel_size)


def new_volume(path, chunks=ome_writer.CHUNKS, levels=ome_writer.LEVELS, **header):
    """Yield an array of zeros (Z, Y, X), float32, on disk, which becomes the file ``path`` at the
    end; see :func:`f2fd_core.data.mrc.new_volume` for the rest of what it has.

    ``chunks`` (Z, Y, X) and ``levels``, those of the pyramid, are for OME-Zarr alone.
    """
    if files.is_zarr(path):
        return ome_writer.new_volume(path, chunks=chunks, levels=levels, **header)
    return mrc.new_volume(path, **header)


def originals(paths):
    """Those of the files that F2Fd has not made from others, as their labels say."""
    return [path for path in paths if open_volume(path, 1.0).original]
