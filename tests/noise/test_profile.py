import numpy as np
import pytest
import torch
from conftest import Memory, noise_if_known, synthesised

from f2fd_core.config import TrainConfig
from f2fd_core.noise import NoiseProfile, periodogram
from f2fd_core.noise.model import PROFILE_WINDOW
from f2fd_core.noise.profile import _to_the_faces
from f2fd_core.perturbation.noise_matched import NoiseMatched

SHAPE = (64, 96, 112)


def profiles_of():
    z, y, x = (np.linspace(-1, 1, side) for side in SHAPE)
    return 1 + 0.4 * np.tanh(2 * z), 1 - 0.3 * y**4, 1 - 0.3 * x**4


def noise(seed=0):
    return synthesised(lambda k: 0.3 + torch.exp(-((k / 0.2) ** 2)), SHAPE, seed).numpy()


def measured(volume):
    size = (PROFILE_WINDOW,) * 3
    corners = periodogram.window_corners(SHAPE, size)
    return NoiseProfile.measured(
        corners, size, periodogram.periodograms(Memory(volume).region, corners, size)
    )


def assert_close(gain, expected, tolerance):
    for (places, amplitude), profile in zip(gain.profiles, expected):
        assert (places[0], places[-1]) == (0, len(profile) - 1)
        centre = np.round(places[1:-1]).astype(int)
        # A window sees the mean square over its voxels.
        half = PROFILE_WINDOW // 2
        truth = np.array(
            [np.sqrt(np.mean(profile[at + 1 - half : at + 1 + half] ** 2)) for at in centre]
        )
        scale = np.sqrt(np.mean(truth**2))
        np.testing.assert_allclose(amplitude[1:-1], truth / scale, rtol=tolerance)
        # From there to the faces it goes on, with the error of two of its values.
        np.testing.assert_allclose(
            [amplitude[0], amplitude[-1]], profile[[0, -1]] / scale, rtol=3 * tolerance
        )


def test_profiles_of_uneven_noise():
    gz, gy, gx = profiles_of()
    uneven = noise() * gz[:, None, None] * gy[None, :, None] * gx[None, None, :]
    assert_close(measured(uneven), (gz, gy, gx), 0.05)


def test_windows_that_reach_into_vacuum_are_as_strong_as_what_they_hold():
    strength = np.where(np.arange(SHAPE[0]) < SHAPE[0] // 2, 0.1, 1.0)
    volume = noise() * strength[:, None, None]
    size = (32,) * 3
    corners = periodogram.window_corners(SHAPE, size)
    power = periodogram.periodograms(Memory(volume).region, corners, size).mean((1, 2, 3))
    exact = NoiseProfile([(list(range(SHAPE[0])), strength.tolist()), *[([0.0], [1.0])] * 2])
    for gain in (exact, measured(volume)):
        level = power / gain.of_windows(corners, size)[:, 0, 0, 0]
        places = np.array(corners)[:, 0]
        means = [float(level[places == place].mean()) for place in np.unique(places)]
        tolerance = 0.1 if gain is exact else 0.3
        np.testing.assert_allclose(means, np.median(means), rtol=tolerance)


def test_what_is_kept_of_the_profiles_is_what_they_say():
    gain = NoiseProfile([([0, 10, 30], [1.0, 2.0, 0.5]), ([0.0], [3.0]), ([5, 20], [1.0, 4.0])])
    for start, size in (
        ((2, 1, 0), (8, 6, 9)),
        ((-4, -2, 15), (40, 9, 12)),
        ((0, 0, 0), (31, 4, 21)),
    ):
        expected = 1.0
        for axis, (first, side, profile) in enumerate(zip(start, size, gain.profiles)):
            values = np.interp(np.arange(first, first + side), *profile)
            expected = expected * values.reshape([-1 if axis == other else 1 for other in range(3)])
        for _ in range(2):
            np.testing.assert_allclose(
                np.broadcast_to(gain.at(start, size), size), expected, rtol=1e-6
            )


def test_even_noise_has_no_profile_whatever_signal_there_is():
    ones = [np.ones(side) for side in SHAPE]
    assert_close(measured(noise()), ones, 0.03)
    signal = np.zeros(SHAPE)
    signal[20:40, 30:60, 10:40] = 4.0
    assert_close(measured(noise() + signal), ones, 0.03)


def test_noise_that_falls_to_the_faces_is_followed_there():
    """Beyond the outermost windows' centres a constant would be too much, as it is in between."""
    gz, gy, gx = profiles_of()
    gain = measured(noise() * gz[:, None, None] * gy[None, :, None] * gx[None, None, :])
    for (places, amplitude), profile in zip(gain.profiles[1:], (gy, gx)):
        for face, inner in ((0, 1), (-1, -2)):
            outside, centre = profile[face], profile[int(round(places[inner]))]
            step = amplitude[face] / amplitude[inner]
            assert outside / centre < step < 1 - (1 - outside / centre) / 3


def test_the_slope_of_close_windows_is_not_carried_on():
    """Windows a voxel apart, as overlapping blocks have them, differ by chance."""
    centres, amplitudes = np.array([7.5, 8.5, 15.5, 16.5]), np.array([1.0, 1.1, 1.0, 0.9])
    places, found = _to_the_faces(centres, amplitudes, 7.5)
    assert places.tolist() == [0.0, 7.5, 8.5, 15.5, 16.5, 24.0]
    assert found[0] == pytest.approx(1.0)
    assert found[-1] == pytest.approx(0.9 * (0.9 / 1.1) ** (7.5 / 8))
    alone, same = _to_the_faces(centres[:2], amplitudes[:2], 7.5)
    assert alone.tolist() == [7.5, 8.5] and same.tolist() == [1.0, 1.1]


def test_a_constant_volume_has_no_profile():
    assert measured(np.zeros(SHAPE)).profiles == NoiseProfile().profiles


def test_amplitude_of_a_region_is_linear_between_centres_and_constant_beyond():
    gain = NoiseProfile([([4.0, 8.0], [1.0, 2.0]), ([0.0], [3.0]), ([0.0], [1.0])])
    found = gain.at((-2, 5, 7), (12, 2, 2))
    expected = 3 * np.interp(np.arange(-2, 10), [4, 8], [1, 2])[:, None, None]
    np.testing.assert_allclose(found.expand(12, 2, 2), np.tile(expected, (1, 2, 2)), rtol=1e-6)


@pytest.mark.parametrize("gain", [True, False])
def test_copies_have_the_local_strength_of_the_noise(gain):
    gz, gy, gx = profiles_of()
    volume = Memory(noise() * gz[:, None, None] * gy[None, :, None] * gx[None, None, :])
    perturbation = NoiseMatched(volume, TrainConfig(noise_profile=gain, noise_scale=1.0))
    added = perturbation.copies((0, 0, 0), SHAPE, 2) - torch.from_numpy(volume.array)
    ratio = float(added[:, 48:].std() / added[:, :16].std())
    truth = float(np.std(volume.array[48:]) / np.std(volume.array[:16]))
    assert truth > 1.8
    assert ratio == pytest.approx(truth if gain else 1.0, rel=0.1)


def test_all_power_and_that_of_the_noise_are_measured_at_the_same_strength():
    gz, gy, gx = profiles_of()
    uneven = noise() * gz[:, None, None] * gy[None, :, None] * gx[None, None, :]
    found = noise_if_known(uneven, uneven)
    assert float(found.power.sum() / found.total.sum()) == pytest.approx(1, abs=0.25)


def test_signal_is_not_taken_for_uneven_noise():
    """Without noise, windows differ by their signal: there is no profile."""
    torch.manual_seed(1)
    z, y, x = np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij")
    signal = np.zeros(SHAPE, dtype=np.float32)
    for _ in range(12):
        centre = [np.random.default_rng(_).uniform(0, side) for side in SHAPE]
        distance = np.sqrt(sum((axis - at) ** 2 for axis, at in zip((z, y, x), centre)))
        signal += np.cos(distance) * np.exp(-distance / 6)
    gain = measured(signal)
    assert not gain.noisy and gain.profiles == NoiseProfile().profiles
    assert measured(noise()).noisy
