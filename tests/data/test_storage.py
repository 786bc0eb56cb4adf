"""Results in smaller types: what is lost, and what is refused."""

import mrcfile
import numpy as np
import pytest

from f2fd_core.config import UserError
from f2fd_core.data import formats, mrc
from f2fd_core.data.storage import Encoding, refuse_coarse

SHAPE = (20, 24, 28)


def written(path, values, dtype):
    with formats.new_volume(
        str(path), values.shape, (10,) * 3, dtype=dtype, made_of="model=1"
    ) as data:
        data[:] = values
    return mrc.open_volume(str(path))


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (-300, 20), (5e4, 3e3), (1e-6, 1e-7)])
def test_bytes_hold_the_values_to_a_hundredth_of_their_contrast(tmp_path, offset, scale):
    values = np.random.default_rng(0).normal(offset, scale, SHAPE).astype(np.float32)
    result = written(tmp_path / "a.mrc", values, "int8")
    assert result.data.dtype == np.int8
    (label,) = [label.decode() for label in result.labels if b"byte" in label]
    words = label.split("value = ")[1].split()
    back = float(words[0]) + float(words[2]) * np.asarray(result.data, float)
    error = back - values
    # What lies in the outermost ten-thousandth may saturate.
    assert np.sqrt(np.median(error**2)) < 0.01 * scale
    assert np.sqrt(np.mean(error**2)) < 0.02 * scale
    with mrcfile.open(result.path) as stream:
        assert stream.header.mode == 0 and mrcfile.validate(result.path)
        assert stream.header.dmin == result.data.min() == -127
        assert stream.header.dmax == result.data.max() == 127


def test_a_gold_bead_does_not_take_the_range_of_the_bytes():
    values = np.random.default_rng(1).normal(size=(40, 40, 40)).astype(np.float32)
    without = Encoding("int8", values).step
    values[5, 5, 5:9] = -400
    assert Encoding("int8", values).step < 1.3 * without


def test_half_precision_keeps_values_to_its_own_rounding(tmp_path):
    values = np.random.default_rng(0).normal(12, 3, SHAPE).astype(np.float32)
    values[0, 0, 0] = 1e6  # a bead
    result = written(tmp_path / "a.mrc", values, "float16")
    with mrcfile.open(result.path) as stream:
        assert stream.header.mode == 12
    assert result.data[0, 0, 0] == np.finfo(np.float16).max
    np.testing.assert_allclose(result.data.ravel()[1:], values.ravel()[1:], rtol=6e-4)
    assert not [label for label in result.labels if b"byte" in label]
    assert "model=1" in result.made_of


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_is_not_finite_is_no_number_in_any_type(tmp_path, dtype):
    values = np.zeros(SHAPE, np.float32)
    values[3, 4, 5] = np.nan
    with pytest.raises(UserError, match="holds NaN or infinite voxels"):
        written(tmp_path / "a.mrc", values, dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.reliability(
    "results as float16 whose values that can't hold", "refused before anything is computed"
)
@pytest.mark.parametrize(
    ("mean", "std", "refused"),
    [(0, 1, False), (1000, 10, False), (1000, 3, True), (0, 1e4, True), (0, 1e-7, True)],
)
def test_half_precision_is_refused_where_it_is_too_coarse(mean, std, refused):
    refuse_coarse("int8", "a.mrc", mean, std)
    refuse_coarse("float32", "a.mrc", mean, std)
    if refused:
        with pytest.raises(UserError, match="--dtype is float16, .* a.mrc .*expected float32"):
            refuse_coarse("float16", "a.mrc", mean, std)
    else:
        refuse_coarse("float16", "a.mrc", mean, std)
