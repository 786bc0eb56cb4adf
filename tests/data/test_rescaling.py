"""Another voxel size in Fourier space: what is kept, and where it lies."""

import numpy as np
import pytest

from f2fd_core.config import UserError
from f2fd_core.data import source
from f2fd_core.data.rescaling import Rescaling
from f2fd_core.data.volume import Volume


def smooth(shape, voxel_size, phase=0.3):
    """A volume of waves of 90 to 200 Å, sampled at a voxel size (Å) from a common origin."""
    z, y, x = np.meshgrid(*[np.arange(side) * voxel_size for side in shape], indexing="ij")
    return (
        np.cos(2 * np.pi * z / 150 + phase)
        + np.sin(2 * np.pi * y / 90)
        + np.cos(2 * np.pi * (x + z) / 200)
    ).astype(np.float32)


@pytest.fixture(autouse=True)
def few_sections(monkeypatch):
    """Slabs of a few sections, so that there are several."""
    monkeypatch.setattr(source, "SLAB_VOXELS", 20000)


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.3, 2.0])
@pytest.mark.parametrize("shape", [(40, 52, 60), (33, 47, 58)])
def test_there_and_back_is_the_same_place_and_height(shape, factor):
    """Up to what rings at the faces, where the volume is not what the mirror makes of it."""
    values = smooth(shape, 10)
    rescaling = Rescaling(shape, factor)
    there = rescaling.there(values)
    np.testing.assert_allclose(there.shape, np.array(shape) * factor, atol=2)
    back = rescaling.back(there)
    assert back.shape == shape and back.dtype == np.float32
    error = np.abs(back - values)
    assert np.sqrt(np.mean(error**2)) < 0.16 * values.std()
    assert np.sqrt(np.mean(error[8:-8, 8:-8, 8:-8] ** 2)) < 0.04 * values.std()
    assert there.std() == pytest.approx(values.std(), rel=0.05)


def test_exact_halving_is_the_wave_at_twice_the_voxel_size():
    """Of waves that the mirrored faces continue: the voxels lie where those of the file do."""
    shape = (32, 32, 32)
    z = np.arange(shape[0])
    # Even about 0 and 31, as the mirror is.
    wave = np.cos(np.pi * z / 31 * 4)[:, None, None] * np.ones(shape, np.float32)
    rescaling = Rescaling(shape, 0.5)
    there = rescaling.there(wave)[:, 4, 4]
    places = rescaling.places(0, z)
    np.testing.assert_allclose(np.diff(places), 0.5, rtol=0.01)
    own = np.interp(np.arange(len(there)), places, z)
    np.testing.assert_allclose(there, np.cos(np.pi * own / 31 * 4), atol=0.1)


def test_frequencies_beyond_the_coarser_grid_are_lost():
    noise = np.random.default_rng(0).normal(size=(48, 48, 48)).astype(np.float32)
    there = Rescaling(noise.shape, 0.5).there(noise)
    # White noise keeps its power a coefficient; an eighth of the coefficients is left.
    assert there.var() == pytest.approx(1 / 8, rel=0.15)
    finer = Rescaling(noise.shape, 2.0).there(noise)
    power = np.abs(np.fft.fftn(finer[8:-8, 8:-8, 8:-8])) ** 2
    outside = np.abs(np.fft.fftfreq(power.shape[0])) > 0.3
    assert power[outside].sum() < 0.02 * power.sum()


def test_a_rescaled_tomogram_has_the_same_scale(write):
    """Its standard deviation follows what is left, its mean stays; the sections shown are the
    file's."""
    volume = Volume(write(50 + 3 * smooth((40, 48, 56), 10), voxel_size=10))
    other = volume.rescaled(20.0)
    assert other.voxel_size == 20 and other.shape == (20, 24, 28)
    assert other.mean == pytest.approx(volume.mean, abs=0.3)
    assert other.std == pytest.approx(volume.std, rel=0.1)
    for one, two in zip(other.central_sections(), volume.central_sections()):
        np.testing.assert_array_equal(one, two)
    # What is prepared after that is prepared on the new grid.
    prepared = other.prepared_by(lambda voxels, size: np.asarray(voxels[:]) * size)
    assert prepared.std == pytest.approx(20 * other.std, rel=0.01)


def test_too_small_to_be_rescaled():
    with pytest.raises(UserError, match="16 x 40 x 40 .* would have 4 x 10 x 10 .* at least 8"):
        Rescaling((16, 40, 40), 0.25)
