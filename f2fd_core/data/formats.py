"""Tomograms on disk in whatever format, by the endings of their names: MRC, and OME-Zarr."""

import os

from f2fd_core.data import mrc, ome_writer, ome_zarr
from f2fd_core.data.source import Header, Source
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


def new_volume(path, shape, voxel_size, **more):
    """Yield an array of zeros (Z, Y, X), float32, on disk, which becomes the file ``path`` at the
    end, with the :class:`~f2fd_core.data.source.Header` of these values.

    On an error nothing is left of it, and nothing that was there is touched.
    """
    header = Header(shape, voxel_size, **more)
    return (ome_writer if files.is_zarr(path) else mrc).new_volume(path, header)


def originals(paths):
    """Those of the files that F2Fd has not made from others, as their labels say."""
    return [path for path in paths if open_volume(path, 1.0).original]
