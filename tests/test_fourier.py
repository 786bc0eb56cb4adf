import numpy as np
import pytest
import torch
from conftest import coloured

from f2fd_core import fourier

SHAPES = [(16, 24, 40), (15, 21, 33), (9, 16, 27)]


def power(shape):
    return coloured(fourier.radial_frequency(shape))


@pytest.mark.parametrize("shape", [(32, 48, 80), (31, 45, 77)])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_sphere_holds_its_share_of_a_non_cubic_spectrum(shape, share):
    inside = (fourier.radial_frequency(shape) <= fourier.sphere_radius(share)).float()
    held = (inside * fourier.friedel_weights(shape)).sum() / np.prod(shape)
    assert float(held) == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_friedel_weights_count_the_whole_spectrum(shape):
    total = fourier.friedel_weights(shape).sum() * shape[0] * shape[1]
    assert int(total) == np.prod(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetric_mask_acts_as_a_real_filter(shape):
    """Masking then transforming back loses nothing: the spectrum stays that of a real volume."""
    torch.manual_seed(0)
    mask = torch.randint(-1, 2, fourier.radial_frequency(shape).shape).float()
    for column in fourier.self_conjugate_columns(shape):
        mask[:, :, column] = fourier.friedel_symmetric_plane(mask[:, :, column])
    spectrum = torch.fft.rfftn(torch.randn(shape, dtype=torch.float64)) * mask
    again = torch.fft.rfftn(torch.fft.irfftn(spectrum, s=shape))
    torch.testing.assert_close(again, spectrum)


@pytest.mark.parametrize("grid", [(16, 16, 9), (13, 22, 11)])
def test_blocks_are_constant_and_kept_at_their_rate(grid):
    mask = fourier.block_mask(grid, 4, 0.5, torch.Generator().manual_seed(1))
    assert mask.shape == grid
    for z in range(0, grid[0], 4):
        for y in range(0, grid[1], 4):
            for x in range(0, grid[2], 4):
                block = mask[z : z + 4, y : y + 4, x : x + 4]
                assert block.all() or not block.any()
    many = fourier.block_mask((80, 80, 80), 4, 0.3, torch.Generator().manual_seed(2))
    assert many.float().mean().item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("size", [(24, 24, 24), (17, 24, 33)])
def test_synthesised_noise_has_the_asked_spectrum(size):
    box = fourier.synthesis_shape(size)
    noise = fourier.synthesise(power(box).sqrt(), box, box, 64, torch.Generator().manual_seed(0))
    measured = (torch.fft.rfftn(noise, dim=fourier.AXES).abs() ** 2).mean(0) / np.prod(box)
    _, found = fourier.shell_means(measured, box)
    _, truth = fourier.shell_means(power(box), box)
    np.testing.assert_allclose(found[1:], truth[1:], rtol=0.05)


def test_draws_of_noise_are_independent_and_do_not_wrap_round():
    size = (24, 24, 24)
    box = fourier.synthesis_shape(size)
    noise = fourier.synthesise(power(box).sqrt(), box, size, 40, torch.Generator().manual_seed(3))
    first, second = noise[:20].flatten(), noise[20:].flatten()
    error = 1 / np.sqrt(first.numel() / 8)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 * error
    neighbours = np.corrcoef(noise[:, 0].flatten(), noise[:, 1].flatten())[0, 1]
    opposite = np.corrcoef(noise[:, 0].flatten(), noise[:, -1].flatten())[0, 1]
    assert neighbours > 0.15
    assert abs(opposite) < 0.02


def test_resampling_a_smooth_spectrum_keeps_its_values():
    found = fourier.resample_power(power((32, 32, 32)), (32, 32, 32), (48, 60, 45))
    torch.testing.assert_close(found, power((48, 60, 45)), rtol=0.05, atol=0.02)


def test_resampling_to_the_same_grid_changes_nothing():
    power = torch.rand((12, 16, 11))
    torch.testing.assert_close(fourier.resample_power(power, (12, 16, 20), (12, 16, 20)), power)
