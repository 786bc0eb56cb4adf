"""MRC files with whatever header, and such as can't be tomograms."""

import warnings

import mrcfile
import numpy as np

RAMP = np.arange(10 * 12 * 14).reshape(10, 12, 14) % 100
CELLS = {
    "metres": (1.4e-8, 1.2e-8, 1e-8),
    "tiny": (1e-45, 1e-45, 1e-45),
    "flat": (140, 120, 0),
    "negative cell": (-140, -120, -100),
    "huge": (3.5e5, 3e5, 2.5e5),
    "nan cell": (np.nan, np.nan, np.nan),
}
"""Cells (Å, x, y, z) that can't be those of a tomogram."""


def save(path, array, voxel_size=7.5, **header):
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as stream:
        warnings.simplefilter("ignore")  # of the NaN and infinite voxels that are wanted here
        stream.set_data(array)
        stream.set_volume()
        stream.voxel_size = voxel_size
        for name, value in header.items():
            stream.header[name] = value
    return str(path)


def faulty(tmp_path, kind):
    """A bad file and the words that must be in its sentence beside the file's name."""
    path = tmp_path / "bad.mrc"
    volume = RAMP.astype(np.float32)
    if kind == "missing":
        return path, ["does not exist"]
    if kind == "folder":
        path.mkdir()
        return path, ["is a folder"]
    if kind == "text":
        path.write_text("no tomogram " * 200)
        return path, ["is not an MRC file"]
    if kind == "empty":
        path.write_bytes(b"")
        return path, ["0 bytes"]
    if kind == "gzip":
        path.write_bytes(b"\x1f\x8b" + bytes(2000))
        return path, ["compressed with gzip"]
    if kind == "truncated":
        save(path, volume)
        path.write_bytes(path.read_bytes()[:-100])
        return path, ["truncated", str(1024 + volume.nbytes - 100), str(1024 + volume.nbytes)]
    if kind == "image":
        save(path, volume[:1])
        return path, ["two-dimensional", "14 x 12"]
    if kind == "image stack":
        with mrcfile.new(path) as stream:
            stream.set_data(volume)
            stream.set_image_stack()
            stream.voxel_size = 1
        return path, ["stack of 10 images", "space group 1, mz 10 and the voxel size"]
    if kind == "volume stack":
        with mrcfile.new(path) as stream:
            stream.set_data(np.stack([volume, volume]))
            stream.voxel_size = 1
        return path, ["stack of 2 volumes"]
    if kind == "complex":
        with mrcfile.new(path) as stream:
            stream.set_data(volume.astype(np.complex64))
            stream.voxel_size = 1
        return path, ["MRC mode 4"]
    if kind == "negative":
        save(path, volume, nx=-5)
        return path, ["-5"]
    if kind == "extended":
        save(path, volume, nsymbt=-80)
        return path, ["extended header of -80 bytes"]
    if kind == "axes":
        save(path, volume, mapc=3, maps=1)
        return path, ["axes in the order 3 2 1"]
    if kind == "no voxel size":
        save(path, volume, voxel_size=0)
        return path, ["voxel size 0", "--voxel-size"]
    if kind in CELLS:
        save(path, volume, cella=CELLS[kind])
        return path, ["voxel size", "expected 0.1 to 10000 Å: give it in Å with --voxel-size"]
    if kind == "nan":
        volume[3, 2, 1] = np.nan
        save(path, volume)
        return path, ["1 NaN or infinite voxels"]
    if kind == "infinite":
        volume[3, 2, :2] = np.inf
        save(path, volume)
        return path, ["2 NaN or infinite voxels"]
    if kind == "constant":
        save(path, np.full_like(volume, 4))
        return path, ["constant", "4"]
    if kind == "thin":
        save(path, volume[:7])
        return path, ["7 voxels along Z", "at least 8"]
    raise ValueError(kind)


FAULTS = [
    "missing",
    "folder",
    "text",
    "empty",
    "gzip",
    "truncated",
    "image",
    "image stack",
    "volume stack",
    "complex",
    "negative",
    "extended",
    "axes",
    "no voxel size",
    "nan",
    "infinite",
    "constant",
    "thin",
    *CELLS,
]
