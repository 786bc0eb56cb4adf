import gc
import os

import numpy as np
import pytest
import torch

from f2fd_core import UserError
from f2fd_core.data import mrc
from f2fd_core.data.out_of_core import DiskArray, sections_of, spectrum_of

SHAPES = [(9, 12, 10), (16, 7, 11)]


@pytest.fixture(autouse=True)
def few_sections(monkeypatch):
    """Slabs of two or three sections, so that there are several."""
    monkeypatch.setattr(mrc, "SLAB_VOXELS", 300)


@pytest.mark.parametrize("shape", SHAPES)
def test_transforms_by_slabs_are_those_of_the_whole(shape):
    assert len(mrc.slabs(shape)) > 2
    volume = torch.randn(shape)
    spectrum = spectrum_of(lambda slab: volume[slab], shape)
    torch.testing.assert_close(spectrum, torch.fft.rfftn(volume), rtol=1e-4, atol=1e-4)
    filtered = spectrum * torch.rand(spectrum.shape)
    expected = torch.fft.irfftn(filtered, s=shape)
    slabs, sections = zip(*sections_of(filtered.clone(), shape))
    assert list(slabs) == mrc.slabs(shape)
    torch.testing.assert_close(torch.cat(sections), expected, rtol=1e-4, atol=1e-5)


def resident(of):
    """Resident bytes of this process's mappings of files whose path holds ``of``."""
    total, counted = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as stream:
        for line in stream:
            if "-" in line.split(" ")[0]:
                counted = of in line
            elif counted and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def test_released_arrays_keep_their_values_and_take_no_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    values = np.random.default_rng(0).normal(size=(100, 100, 100)).astype(np.float16)
    opened = len(os.listdir("/proc/self/fd"))
    held = DiskArray(values.shape, np.float16)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert not held.array.any()
    held.array[:] = values
    assert resident(str(tmp_path)) >= values.nbytes
    held.release()
    assert resident(str(tmp_path)) < values.nbytes / 10
    np.testing.assert_array_equal(held.array, values)
    part = held.array[3]
    del held
    gc.collect()
    np.testing.assert_array_equal(part, values[3])
    del part
    assert os.listdir(tmp_path) == [] and resident(str(tmp_path)) == 0


def test_no_room_for_an_array(tmp_path, monkeypatch):
    """It doesn't go to another folder, as Python's temporary files do."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"temporary file of 1.9 GiB in .*missing.*TMPDIR"):
        DiskArray((1000, 1000, 1000), np.float16)
