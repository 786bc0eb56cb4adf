import gc
import os

import numpy as np
import pytest

from f2fd_core import UserError
from f2fd_core.runtime.mapped import DiskArray


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
