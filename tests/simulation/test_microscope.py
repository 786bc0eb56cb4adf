import dataclasses
import math

import numpy as np
import pytest
import torch

from f2fd_core.config import SimulateConfig
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.simulation import microscope, specimen

SMALL = dict(shape=(32, 48, 56), snr=0.5, seed=5)


@pytest.fixture(scope="module")
def volumes():
    return microscope.simulate_volumes(SimulateConfig(**SMALL))


def test_untilted_projection_is_the_sum_along_z():
    volume = torch.rand(12, 10, 14)
    torch.testing.assert_close(
        microscope.project(volume, [0.0])[0], volume.sum(0), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("degrees", [-60, -20, 45, 60])
def test_projection_keeps_the_mass_and_moves_a_ball_as_geometry_says(degrees):
    angle = math.radians(degrees)
    z, y, x = torch.meshgrid(
        torch.arange(40.0), torch.arange(20.0), torch.arange(48.0), indexing="ij"
    )
    centre = (27.0, 9.0, 16.0)
    ball = torch.exp(-((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) / 8)
    image = microscope.project(ball, [angle])[0]
    assert float(image.sum()) == pytest.approx(float(ball.sum()), rel=0.02)
    found = float((image.sum(0) * torch.arange(48)).sum() / image.sum())
    u = (centre[2] - 23.5) * math.cos(angle) + (centre[0] - 19.5) * math.sin(angle)
    assert found == pytest.approx(u + 23.5, abs=0.1)


def test_tomogram_is_the_mean_of_halves_with_independent_noise(volumes):
    np.testing.assert_allclose(
        volumes["tomogram"], (volumes["odd"] + volumes["even"]) / 2, atol=1e-6
    )
    noises = [volumes[half] - volumes["clean"] for half in ("odd", "even")]
    assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.05
    noise = volumes["tomogram"] - volumes["clean"]
    assert noise.var() == pytest.approx(noises[0].var() / 2, rel=0.1)


def test_noise_follows_the_signal_to_noise_ratio(volumes):
    noisier = microscope.simulate_volumes(SimulateConfig(**dict(SMALL, snr=0.05)))
    np.testing.assert_allclose(noisier["clean"], volumes["clean"], atol=1e-6)
    ratio = (noisier["tomogram"] - noisier["clean"]).var() / (
        volumes["tomogram"] - volumes["clean"]
    ).var()
    assert ratio == pytest.approx(10, rel=0.01)


def test_detector_noise_has_unit_power():
    noise = microscope.filtered(torch.randn(20, 96, 95), microscope.noise_transfer((96, 95)))
    assert float(noise.var()) == pytest.approx(1, rel=0.02)


def test_matter_is_dark_and_membranes_are_where_the_mask_says(volumes):
    assert (
        correlation(torch.from_numpy(volumes["clean"]), torch.from_numpy(volumes["density"])) < -0.5
    )
    inside = volumes["membrane"] > 0.5
    assert 0.01 < inside.mean() < 0.5
    assert volumes["density"][inside].mean() > 3 * volumes["density"][~inside].mean()


def test_particles_are_turned_evenly_and_never_mirrored():
    random = np.random.default_rng(3)
    turns = np.stack([specimen.random_rotation(random) for _ in range(2000)])
    assert np.allclose(np.einsum("nij,nkj->nik", turns, turns), np.eye(3))
    assert np.allclose(np.linalg.det(turns), 1)
    # An even distribution has entries of mean 0 and variance 1/3, with errors of 1 / sqrt(3 n).
    assert np.abs(turns.mean(0)).max() < 5 / math.sqrt(3 * 2000)
    assert np.abs((turns**2).mean(0) - 1 / 3).max() < 5 * 0.3 / math.sqrt(2000)


def test_the_same_seed_gives_the_same_volumes(volumes):
    again = microscope.simulate_volumes(SimulateConfig(**SMALL))
    other = microscope.simulate_volumes(SimulateConfig(**dict(SMALL, seed=6)))
    for name in microscope.FILES:
        np.testing.assert_array_equal(again[name], volumes[name])
        assert not np.array_equal(other[name], volumes[name])


def test_spheres_have_no_membranes():
    volumes = microscope.simulate_volumes(SimulateConfig(**dict(SMALL, specimen="spheres")))
    assert volumes["membrane"].max() == 0
    assert volumes["density"].max() > 0.7


def test_random_shapes_fill_a_part_that_their_seed_chooses():
    built = [specimen.build_specimen((32, 48, 56), 10.0, "shapes", seed) for seed in range(6)]
    shares = np.array([(one.density > specimen.OCCUPIED).mean() for one in built])
    assert shares.min() >= 0.04 and 2 * shares.min() < shares.max() < 0.6
    assert not any(one.membrane.any() for one in built)
    again = specimen.build_specimen((32, 48, 56), 10.0, "shapes", 3)
    np.testing.assert_array_equal(again.density, built[3].density)


@pytest.mark.parametrize("scale", [np.eye(3), np.diag([0.5, 1.0, 2.0])])
def test_distance_to_an_ellipsoid(scale):
    """Along its axes, where it is radius over scale away; of a sphere, everywhere."""
    offsets = np.meshgrid(*[np.arange(-200.0, 201.0, 20.0)] * 3, indexing="ij")
    distance = specimen.Specimen._from_ellipsoid(offsets, 90.0, scale)
    for axis in range(3):
        line = tuple(slice(None) if other == axis else 10 for other in range(3))
        along = np.abs(np.arange(-200.0, 201.0, 20.0)) - 90 / scale[axis, axis]
        centre = np.arange(21) != 10  # where no direction is the nearest
        np.testing.assert_allclose(distance[line][centre], along[centre], atol=0.05)
    if np.array_equal(scale, np.eye(3)):
        length = np.linalg.norm(np.stack(offsets), axis=0)
        np.testing.assert_allclose(distance[length > 0], length[length > 0] - 90, atol=0.05)


def test_contrast_transfer_is_phase_flipped_and_rises_from_the_amplitude_contrast():
    transfer = microscope.phase_flipped_transfer(
        *microscope.projection_frequencies((64, 64)), 10.0, 3.0
    )
    assert float(transfer.max()) <= 0
    assert float(transfer[0, 0]) == pytest.approx(-0.07, abs=1e-6)
    assert float(transfer.min()) == pytest.approx(-1, abs=0.05)


def test_a_crowded_cell_fills_a_third():
    shares = {}
    for kind in ("cell", "crowded"):
        built = specimen.build_specimen((32, 48, 56), 10.0, kind, 5)
        shares[kind] = (built.density > specimen.OCCUPIED).mean()
        assert built.membrane.any()
    assert 1 / 3 <= shares["crowded"] < 0.4
    assert shares["cell"] < 0.9 * shares["crowded"]


def test_dose_takes_from_tilts_in_their_turn_and_from_fine_detail_first():
    """At 300 kV, 10 Å, half of the signal's power is lost to 9.8 e/Å² (Grant & Grigorieff, 2015);
    the noise of a tilt has what its weights leave of it."""
    config = SimulateConfig(shape=(32, 64, 64), voxel_size=5.0, dose=2.0, tilt_range=(6.0,))
    left = microscope.dose_filter(config, *microscope.projection_frequencies((64, 64)))
    assert config.tilts() == [-6, -3, 0, 3, 6]
    doses = [-np.log(float(left[tilt, 0, 32])) for tilt in range(5)]  # at 1/10 Å
    np.testing.assert_allclose(np.array(doses) / doses[2], [7, 3, 1, 5, 9], rtol=1e-4)
    assert float(left[2, 0, 32]) ** (2 * 9.8) == pytest.approx(0.5, rel=0.02)
    assert (left[:, 0].diff(dim=-1) < 0).all() and (left[:, 0, 0] == 1).all()
    with_dose, without = (
        microscope.simulate_volumes(dataclasses.replace(config, dose=dose, specimen="empty"))[
            "tomogram"
        ]
        for dose in (2.0, 0.0)
    )
    assert with_dose.std() < without.std()


def test_an_empty_specimen_is_nothing_but_noise():
    volumes = microscope.simulate_volumes(SimulateConfig(**dict(SMALL, specimen="empty")))
    for name in ("clean", "density", "membrane"):
        assert not volumes[name].any()
    odd, even = volumes["odd"], volumes["even"]
    assert volumes["tomogram"].std() > 0
    assert abs(np.corrcoef(odd.ravel(), even.ravel())[0, 1]) < 0.05
    # Of the strength that the signal-to-noise ratio asks for with a signal of variance 1.
    fainter = microscope.simulate_volumes(SimulateConfig(**dict(SMALL, specimen="empty", snr=5.0)))
    ratio = volumes["tomogram"].var() / fainter["tomogram"].var()
    assert ratio == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize(
    ("tilt_range", "step", "first", "last"),
    [
        ((60.0,), 3.0, -60, 60),
        ((57.0,), 3.0, -57, 57),
        ((60.0,), 7.0, -56, 56),
        ((-50.0, 65.0), 3.0, -48, 63),
        ((-50.0, 65.0), 5.0, -50, 65),
        ((10.0, 20.0), 10.0, 10, 20),
    ],
)
def test_tilts_are_the_multiples_of_the_step_in_their_range(tilt_range, step, first, last):
    tilts = SimulateConfig(tilt_range=tilt_range, tilt_step=step).tilts()
    assert (tilts[0], tilts[-1]) == (first, last)
    np.testing.assert_allclose(np.diff(tilts), step)


def test_the_wedge_is_missing_where_no_tilts_are():
    """From -50 to 65 degrees: beyond 65 on one side, beyond 50 on the other."""
    config = SimulateConfig(**dict(SMALL, specimen="empty"), tilt_range=(-50.0, 65.0))
    spectrum = np.fft.fftn(microscope.simulate_volumes(config)["tomogram"])
    z, y, x = np.meshgrid(*map(np.fft.fftfreq, spectrum.shape), indexing="ij")
    tilt = np.degrees(np.arctan2(z, x))
    band = (np.hypot(z, x) > 0.15) & (np.hypot(z, x) < 0.35)
    power = {
        middle: np.mean(np.abs(spectrum[band & (np.abs(tilt - middle) < 4)]) ** 2)
        for middle in (-58, -42, 0, 58, 73)
    }
    assert max(power[-58], power[73]) < 0.1 * min(power[-42], power[0], power[58])


def test_one_angle_is_the_range_from_minus_to_plus(volumes):
    """As a single number, too: what it was in earlier versions."""
    for given in (60.0, 60, (60.0,), [-60, 60]):
        config = SimulateConfig(**SMALL, tilt_range=given)
        np.testing.assert_array_equal(
            microscope.simulate_volumes(config)["tomogram"], volumes["tomogram"]
        )


@pytest.mark.parametrize("tilt_range", [(-15.0, 40.0), (-40.0, 15.0), (40.0,)])
def test_matter_reaches_as_far_beside_the_volume_as_the_steepest_ray(tilt_range):
    config = SimulateConfig(shape=(16, 16, 40), thickness=32, tilt_range=tilt_range)
    above, beside = microscope._beyond_the_volume(config)
    assert above == 8 and beside == math.ceil(8 * math.tan(math.radians(40)))


@pytest.mark.parametrize("reconstruction", ["wbp", "insertion"])
def test_halves_of_every_other_tilt_have_noise_of_their_own(reconstruction):
    config = SimulateConfig(
        **dict(SMALL, specimen="empty"), half_maps="tilts", reconstruction=reconstruction
    )
    made = microscope.simulate_volumes(config)
    odd, even, all_tilts = (made[name].ravel() for name in ("odd", "even", "tomogram"))
    assert abs(np.corrcoef(odd, even)[0, 1]) < 0.05
    assert np.corrcoef(odd + even, all_tilts)[0, 1] > 0.9
    assert min(odd.std(), even.std()) > all_tilts.std()
