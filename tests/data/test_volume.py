import os

import numpy as np
import pytest
import torch
from conftest import whole

from f2fd_core.data.regions import crop
from f2fd_core.data.volume import Volume


@pytest.mark.parametrize("start", [(0, 0, 0), (-3, 2, 5), (4, -7, 1), (2, 3, 8)])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_crop_is_a_window_of_the_reflected_volume(start, kind):
    array = np.random.default_rng(0).normal(size=(6, 9, 11))
    size = (8, 10, 6)
    padded = np.pad(array, 12, mode="reflect")
    expected = padded[tuple(slice(at + 12, at + 12 + side) for at, side in zip(start, size))]
    result = crop(array if kind == "numpy" else torch.from_numpy(array), start, size)
    np.testing.assert_array_equal(np.asarray(result), expected)


@pytest.mark.filterwarnings("error")
def test_one_slice_is_mirrored_into_itself():
    array = np.random.default_rng(0).normal(size=(1, 9, 11))
    found = crop(array, (-2, 0, 0), (4, 9, 11))
    np.testing.assert_array_equal(found, np.repeat(array, 4, axis=0))


def test_standardised_and_clipped(write):
    values = np.random.default_rng(1).normal(500, 30, (24, 30, 36))
    values[5, 5, 5] = 1e6
    volume = Volume(write(values))
    voxels = whole(volume)
    assert abs(voxels.mean()) < 0.01
    assert voxels.std() == pytest.approx(1, abs=0.02)
    assert voxels.max() < 6.2
    assert whole(Volume(write(values), clip=False)).max() > 100


def test_restore_inverts_the_standardisation(write):
    values = np.random.default_rng(2).normal(-7, 0.01, (16, 16, 16)).astype(np.float32)
    volume = Volume(write(values), clip=False)
    np.testing.assert_allclose(volume.destandardise(whole(volume)), values, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_standardised_voxels_do_not_depend_on_the_intensity_scale(write, scale):
    values = np.random.default_rng(3).normal(0, 1, (16, 16, 16))
    np.testing.assert_allclose(
        whole(Volume(write(values * scale, "scaled.mrc"))), whole(Volume(write(values))), atol=1e-5
    )


def test_mostly_empty_volume_is_not_clipped_to_a_constant(write):
    values = np.zeros((32, 32, 32))
    values[4, 4, 4] = 5
    assert whole(Volume(write(values))).max() > 100


def test_many_tomograms_are_mapped_not_read(write):
    """None is kept open: a process may often have no more than 1024 open files."""
    values = np.random.default_rng(3).normal(size=(16, 16, 16))
    paths = [write(values + number, f"{number}.mrc") for number in range(30)]
    before = len(os.listdir("/proc/self/fd"))
    volumes = [Volume(path) for path in paths]
    assert len(os.listdir("/proc/self/fd")) == before
    with open("/proc/self/maps", encoding="utf-8") as stream:
        maps = stream.read()
    assert all(path in maps for path in paths)
    assert volumes[29].mean == pytest.approx(values.mean() + 29, abs=0.01)


class Recorded:
    """An array that notes how many values each reading takes."""

    def __init__(self, array):
        self.array, self.shape, self.sizes = array, array.shape, []

    def __getitem__(self, index):
        part = self.array[index]
        self.sizes.append(part.size)
        return part


def test_of_a_file_no_more_is_read_than_the_region_needs():
    array = np.random.default_rng(4).normal(size=(6, 40, 50))
    file = Recorded(array)
    region = crop(file, (-1, 3, 45), (9, 8, 8))
    assert file.sizes == [6 * 8 * 5]  # the end, which mirrors what is beyond it
    np.testing.assert_array_equal(
        region, np.pad(array, ((1, 2), (0, 0), (0, 3)), "reflect")[:, 3:11, 45:53]
    )
