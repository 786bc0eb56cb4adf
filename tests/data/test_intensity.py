"""What a tomogram is measured by, and what of it the network doesn't see."""

import numpy as np
import pytest
from conftest import coloured, synthesised

from f2fd_core import TrainConfig
from f2fd_core.data.batches import sampled_patches
from f2fd_core.data.intensity import Intensities, constant, local_regression, opened
from f2fd_core.data.volume import Volume
from f2fd_core.perturbation.noise_matched import noise_of

SHAPE = (48, 64, 64)


@pytest.fixture(scope="module")
def tomogram():
    """Coloured noise, of another mean and unit than the network's."""
    values = np.asarray(synthesised(coloured, SHAPE, 3), np.float64)
    return 7 + 0.3 * (values - values.mean()) / values.std()


def whole(volume):
    return volume.region((0, 0, 0), volume.shape)


def ball(radius):
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (z - 24) ** 2 + (y - 20) ** 2 + (x - 30) ** 2 < radius**2


def bordered(values):
    return np.pad(values, ((0, 0), (0, 40), (0, 0)), constant_values=-4)


def unusual(tomogram):
    """{name: (voxels, where the tomogram is in them)}."""
    x = np.linspace(-1, 1, SHAPE[2])
    everywhere = np.ones(SHAPE, bool)
    quiet = np.random.default_rng(1).normal(7, 0.02, (32, *SHAPE[1:]))
    return {
        "bead": (np.where(ball(6), -20, tomogram), ~ball(6)),
        "border": (bordered(tomogram), np.pad(everywhere, ((0, 0), (0, 40), (0, 0)))),
        "ramp": (tomogram + 2 * x, everywhere),
        "lens": (tomogram + 3 * x**2, everywhere),
        "vacuum": (
            np.concatenate([quiet, tomogram, quiet]),
            np.pad(everywhere, ((32, 32), (0, 0), (0, 0))),
        ),
    }


@pytest.mark.parametrize("name", ["bead", "border", "ramp", "lens", "vacuum"])
def test_the_network_sees_the_tomogram_as_without_what_is_unusual(tomogram, write, name):
    values, place = unusual(tomogram)[name]
    plain, volume = Volume(write(tomogram)), Volume(write(values, "unusual.mrc"))
    assert volume.std == pytest.approx(plain.std, rel=0.03)
    expected = whole(plain)[place] if place.size == tomogram.size else whole(plain).ravel()
    rest = whole(volume)[place] - expected
    assert np.sqrt(np.mean(rest**2)) < 0.12


@pytest.mark.parametrize("name", ["bead", "border", "ramp", "lens", "vacuum"])
def test_what_is_unusual_is_put_back(tomogram, write, name):
    values = unusual(tomogram)[name][0].astype(np.float32)
    volume = Volume(write(values))
    np.testing.assert_allclose(volume.destandardise(whole(volume)), values, atol=1e-5)


def test_an_edge_is_warned_of_but_nothing_smooth(tomogram, write):
    step = 1.8 / (1 + np.exp(-(np.arange(SHAPE[2]) - 32) / 2))
    assert "carbon" in " ".join(Volume(write(tomogram + step)).warnings)
    for values, _ in unusual(tomogram).values():
        assert not Volume(write(values)).warnings


def test_the_unit_is_that_of_a_part_where_others_differ_much(write):
    """As many parts as the quantile counts are much stronger: no variance lies between."""
    values = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
    values[:, :, 48:] *= 20
    assert Volume(write(values)).std == pytest.approx(1, abs=0.02)


def test_single_hot_voxels_are_not_put_back(tomogram, write):
    hot = np.zeros(SHAPE, bool)
    hot[5::11, 4::9, 7::10] = True
    volume = Volume(write(np.where(hot, 100, tomogram)))
    assert np.abs(volume.destandardise(whole(volume)) - tomogram)[hot].max() < 4
    assert whole(volume).max() < 7


def test_regions_are_cut_from_the_whole(tomogram, write):
    volume = Volume(write(unusual(tomogram)["border"][0]))
    start, size = (3, 50, 10), (20, 30, 40)
    box = tuple(slice(at, at + side) for at, side in zip(start, size))
    np.testing.assert_allclose(volume.region(start, size), whole(volume)[box], atol=1e-6)


def test_nothing_is_seen_in_constant_parts_and_they_stay_as_they_are(tomogram, write):
    volume = Volume(write(bordered(tomogram)))
    assert not whole(volume)[:, 64:].any()
    wild = np.full(volume.shape, 1e4, np.float32)
    assert (volume.destandardise(wild)[:, 64:] == -4).all()


def test_no_network_makes_more_than_it_may_be_shown(tomogram, write):
    volume = Volume(write(tomogram))
    restored = volume.destandardise(np.full(SHAPE, 1e4, np.float32))
    assert np.abs(restored - tomogram.mean()).max() < 7 * tomogram.std()


def test_noise_is_estimated_as_without_a_border(tomogram, write):
    expected, found = (
        noise_of(Volume(path), TrainConfig(tomograms=(path,)), "cpu")
        for path in (write(tomogram), write(bordered(tomogram), "border.mrc"))
    )
    for name in ("power", "total"):
        before, after = (float(getattr(model, name).mean()) for model in (expected, found))
        assert after == pytest.approx(before, rel=0.1)
    for axis, (_, amplitudes) in enumerate(found.profile.profiles):
        assert np.ptp(amplitudes) < 0.2, axis


def test_patches_of_a_border_are_not_drawn(tomogram, write):
    volume = Volume(write(bordered(tomogram)))
    config = TrainConfig(tomograms=("x.mrc",), output="y", patch_size=16)
    starts = [start for _, start in sampled_patches(config, [volume], [])]
    assert len(starts) >= 32
    assert all(start[1] <= 64 - 8 for start in starts)


def test_content_is_the_share_that_is_not_constant(tomogram):
    scale = Intensities.measured(bordered(tomogram))
    assert scale.content((0, 0, 0), SHAPE) == pytest.approx(1, abs=0.02)
    assert scale.content((0, 70, 0), (48, 34, 64)) == pytest.approx(0, abs=0.02)
    assert scale.content((0, 0, 0), (48, 104, 64)) == pytest.approx(64 / 104, abs=0.05)


def test_constant_parts_are_found_voxel_by_voxel(tomogram):
    part = np.zeros(SHAPE, bool)
    part[4:9, 10:20, 30:33] = True
    assert (constant(np.where(part, 7.0, tomogram), 1e-3) == part).all()
    assert not constant(np.round(4 * tomogram), 0.5).mean() > 1e-3


def test_opened_keeps_what_cubes_of_three_fit_in():
    mask = np.zeros((12, 12, 12), bool)
    mask[2:5, 2:6, 2:5] = mask[9, 9, 9] = mask[0:3, 9:12, 0:3] = True
    kept = mask.copy()
    kept[9, 9, 9] = False
    assert (opened(mask) == kept).all()


@pytest.mark.parametrize("degree,count", [(0, 1), (1, 2), (2, 5)])
def test_local_regression_gives_polynomials_back(degree, count):
    centres = np.linspace(8, 72, count) if count > 1 else np.array([8.0])
    length = 80 if count > 1 else 16
    weights = local_regression(centres, length)
    np.testing.assert_allclose(
        weights @ centres**degree, np.arange(float(length)) ** degree, atol=1e-6
    )
