"""Reconstructions against geometry, Fourier slices, and what they do to noise."""

import math

import numpy as np
import pytest
import torch

from f2fd_core.evaluation.metrics import correlation
from f2fd_core.simulation.microscope import project
from f2fd_core.simulation.reconstruction import (
    CORRECTED_SNR,
    back_project,
    insert,
    insert_corrected,
)

# Balls, as Gaussian functions: place (z, x) from the centre and width, in voxels.
BALLS = ((3, -5, 1.5), (-6, 10, 1.5), (8, 4, 3.0))
ODD_TILTS = [math.radians(angle / 2) for angle in range(-100, 131)]


def tilts(step, limit=60):
    count = round(limit / step)
    return [math.radians(step * number) for number in range(-count, count + 1)]


def from_centre(side):
    return torch.arange(side) - (side - 1) / 2


def balls(depth, width):
    """BALLS that don't depend on Y: their density, (Z, 1, X)."""
    z, x = from_centre(depth)[:, None, None], from_centre(width)
    return sum(
        torch.exp(-((z - up) ** 2 + (x - right) ** 2) / (2 * size**2)) for up, right, size in BALLS
    )


def projected_balls(angles, width):
    """What a microscope sees of them, without interpolation: (tilts, 1, X)."""
    u = from_centre(width)
    return torch.stack(
        [
            sum(
                math.sqrt(2 * math.pi)
                * size
                * torch.exp(
                    -((u - right * math.cos(angle) - up * math.sin(angle)) ** 2) / (2 * size**2)
                )
                for up, right, size in BALLS
            )
            for angle in angles
        ]
    )[:, None]


def plane_frequencies(depth, width):
    """Of an XZ plane's coefficients: distance from zero, and the tilt (degrees) that sees them."""
    z, x = torch.fft.fftfreq(depth)[:, None], torch.fft.fftfreq(width)[None]
    return torch.hypot(z, x), torch.rad2deg(torch.atan(z / x))


@pytest.mark.parametrize("method", [back_project, insert])
def test_a_ball_is_where_it_was(method):
    z, y, x = torch.meshgrid(
        torch.arange(32.0), torch.arange(20.0), torch.arange(40.0), indexing="ij"
    )
    ball = torch.exp(-((z - 20) ** 2 + (y - 11) ** 2 + (x - 13) ** 2) / 8)
    volume = method(project(ball, tilts(3)), tilts(3), 32)
    assert np.unravel_index(int(volume.argmax()), volume.shape) == (20, 11, 13)
    assert correlation(volume, ball) > 0.7


@pytest.mark.parametrize("iterations", [1, 10, 50])
def test_sirt_like_filter_lets_through_what_sirt_does(iterations):
    """Untilted, each row a cosine of its own frequency k across the tilt axis: weighted
    back-projection scales it, n iterations by another factor 1 - (1 - a / k)^n."""
    width = 200
    number = torch.tensor([1.0, 2, 5, 20, 60])
    rows = torch.cos(2 * math.pi * number[:, None] * torch.arange(width) / width + 0.3)
    plain, sirt = (back_project(rows[None], [0.0], 8, count) for count in (0, iterations))
    frequency = number / width
    expected = 1 - (1 - 0.00195 / frequency) ** iterations
    torch.testing.assert_close(
        sirt, plain * expected[:, None], rtol=1e-3, atol=1e-3 * float(sirt.abs().max())
    )
    assert (expected[0] > 2 * expected[-1]).item()


def test_an_untilted_row_is_spread_over_the_depth_that_it_is_padded_to():
    """Its transform falls onto the grid: only the correction for interpolation changes it."""
    row = torch.exp(-(from_centre(40) ** 2) / 8)
    volume = insert(row[None, None], [0.0], 8)
    taper = torch.sinc(from_centre(8)[:, None, None] / 16) * torch.sinc(from_centre(40) / 80)
    torch.testing.assert_close(volume, row / 16 / taper**2, rtol=1e-4, atol=1e-6)


def test_insertion_gives_back_the_density_where_tilts_have_measured_it_and_nothing_elsewhere():
    depth, width = 64, 96
    found = insert(projected_balls(ODD_TILTS, width), ODD_TILTS, depth)
    found, true = (torch.fft.fft2(volume[:, 0]) for volume in (found, balls(depth, width)))
    radius, tilt = plane_frequencies(depth, width)
    seen = (radius > 0.03) & (radius < 0.25) & (tilt > -45) & (tilt < 60)
    error = (found - true).abs()[seen].square().sum() / true.abs()[seen].square().sum()
    gain = (found * true.conj()).real[seen].sum() / true.abs()[seen].square().sum()
    assert float(error) < 0.06**2 and float(gain) == pytest.approx(1, abs=0.01)
    unseen = (radius > 0.1) & (radius < 0.25) & ((tilt < -55) | (tilt > 70))
    assert found.abs()[unseen].square().sum() < 0.02 * true.abs()[unseen].square().sum()


def test_the_ctf_is_corrected_as_far_as_it_is_measured():
    """Where W slices with the CTF C are in a coefficient, C² W / (C² W + 1 / SNR) is left of it:
    those that are half a degree apart are one over their distance times twice the depth."""
    depth, width = 64, 96

    def ctf(y, x):
        return (0.1 + 0.9 * torch.sin(25 * torch.hypot(y, x)).abs())[None]

    def weights(y, x):
        return torch.full((1, len(y), len(x)), 0.8)

    there = torch.fft.fftfreq(1)[:, None], torch.fft.rfftfreq(width)
    series = projected_balls(ODD_TILTS, width)
    seen = torch.fft.irfft(torch.fft.rfft(series) * ctf(*there) * 0.8**2, n=width)
    found, plain = (
        torch.fft.fft2(volume[:, 0])
        for volume in (
            insert_corrected(seen, ODD_TILTS, depth, ctf, weights),
            insert(series, ODD_TILTS, depth),
        )
    )
    radius, tilt = plane_frequencies(depth, width)
    count = 1 / (2 * depth * radius * math.radians(0.5))
    square = (ctf(torch.zeros(1), radius)[0] * 0.8).square() * count
    expected = square / (square + 1 / CORRECTED_SNR)
    gains = []
    for middle in np.arange(0.06, 0.2, 0.01):
        ring = ((radius - middle).abs() < 0.005) & (tilt > -45) & (tilt < 60)
        ratio = (found * plain.conj()).real[ring] / plain.abs().square()[ring]
        gains.append((float(ratio.mean()), float(expected[ring].mean())))
    measured, known = np.transpose(gains)
    assert known.min() < 0.6 and known.max() > 0.98
    np.testing.assert_allclose(measured, known, atol=0.07)


def noise_over_spacing(step, depth=32, width=96, seed=3):
    """Rings' mean power of inserted white noise of variance 1 over the distance (cycles per voxel)
    between neighbouring tilts' slices, {radius: ratio}; seen from tilts below 45 degrees."""
    random = torch.Generator().manual_seed(seed)
    angles = tilts(step)
    volume = insert(torch.randn(len(angles), 64, width, generator=random), angles, depth)
    side = width - depth
    window = torch.hann_window(depth)[:, None] * torch.hann_window(side)
    part = volume[..., depth // 2 : -depth // 2] * window[:, None]
    power = torch.fft.fft2(part, dim=(0, 2)).abs().square().mean(1) / window.square().sum()
    radius, tilt = plane_frequencies(depth, side)
    return {
        middle: float((power / (radius * math.radians(step)))[ring & (tilt.abs() < 45)].mean())
        for middle in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
        for ring in [(radius - middle).abs() < 0.025]
    }


@pytest.mark.parametrize("step", [1, 3])
def test_where_slices_overlap_noise_has_the_power_of_their_distance(step):
    """A coefficient is the mean of the slices through it: they have the variance of the noise, and
    their number is one over their distance."""
    np.testing.assert_allclose(list(noise_over_spacing(step).values()), 1, atol=0.1)


def test_where_slices_are_apart_there_is_nothing_between_them():
    """6 degrees apart, those of 32 sections overlap up to 0.3 cycles per voxel."""
    found = noise_over_spacing(6)
    assert np.allclose([found[radius] for radius in (0.1, 0.15, 0.2)], 1, atol=0.12)
    assert found[0.3] > found[0.35] > found[0.4] and found[0.4] < 0.6


@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_series_are_inserted_each_by_itself(shape):
    random = torch.Generator().manual_seed(0)
    angles = tilts(30)
    series = torch.randn(*shape, len(angles), 2, 15, generator=random)
    volumes = insert(series, angles, 6)
    assert volumes.shape == (*shape, 6, 2, 15)
    single = insert(series.reshape(-1, len(angles), 2, 15)[-1], angles, 6)
    torch.testing.assert_close(volumes.reshape(-1, 6, 2, 15)[-1], single)
