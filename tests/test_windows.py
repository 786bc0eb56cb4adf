import numpy as np
import pytest
import torch
from conftest import Memory, coloured, synthesised

from f2fd_core import fourier, windows


@pytest.mark.parametrize("size", [(32, 32, 32), (24, 16, 40)])
def test_transfer_of_windows_is_that_of_a_filter(size):
    """A filter passes 60 % below 0.25 cycles per voxel and inverts 20 % above."""
    shape = (48, 48, 56)
    noise = synthesised(coloured, shape, 0)
    k = fourier.radial_frequency(shape)
    after = torch.fft.irfftn(torch.fft.rfftn(noise) * torch.where(k < 0.25, 0.6, -0.2), s=shape)
    transfer = windows.window_transfer(
        Memory(noise).region, Memory(after + 5).region,
        windows.window_corners(shape, size), size)
    k = fourier.radial_frequency(size)
    assert transfer.shape[1:] == k.shape
    for chosen, expected in ((k < 0.15, 0.6), ((k > 0.37) & (k < 0.5), -0.2)):
        found = transfer[:, chosen]
        assert found.mean().item() == pytest.approx(expected, abs=0.04)
        assert found.std() < 0.1


def test_transfer_differs_by_direction():
    """A filter that passes 60 % along Y and nothing elsewhere, at the same frequencies."""
    shape, size = (48, 64, 56), (32, 32, 32)
    noise = synthesised(coloured, shape, 0)
    _, y, _ = fourier.axis_frequencies(shape)
    after = torch.fft.irfftn(
        torch.fft.rfftn(noise) * 0.6 * (y.abs() > 0.25).float()[None, :, None], s=shape)
    transfer = windows.window_transfer(Memory(noise).region, Memory(after).region,
                                       windows.window_corners(shape, size), size)
    assert transfer[:, 0:4, 12:16, 0:4].mean().item() == pytest.approx(0.6, abs=0.05)
    for elsewhere in (transfer[:, 12:16, 0:4, 0:4], transfer[:, 0:4, 0:4, 12:16]):
        assert elsewhere.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("size", [(32, 32, 32), (9, 16, 27)])
def test_cells_hold_every_coefficient_with_its_mirror_images(size):
    index, cells = windows.cell_index(size)
    assert index.shape == fourier.radial_frequency(size).shape
    assert set(index.unique().tolist()) == set(range(cells))
    for axis in (0, 1):
        mirrored = index.flip(axis).roll(1, axis)
        torch.testing.assert_close(mirrored, index, rtol=0, atol=0)


def test_windows_cover_the_volume_or_are_spread_over_it():
    every = windows.window_corners((48, 32, 80), (32, 32, 32))
    assert every == [(z, 0, x) for z in (0, 16) for x in (0, 16, 32, 48)]
    some = windows.window_corners((200, 200, 200), (32, 32, 32), 50)
    assert len(some) == len(set(some)) == 50
    assert some[0] == (0, 0, 0) and some[-1] == (168, 168, 168)


def test_windows_are_the_same_one_by_one_and_many_at_once(monkeypatch):
    first, second = (Memory(synthesised(coloured, (40, 48, 44), seed)).region for seed in (0, 1))
    size = (16, 24, 20)
    corners = windows.window_corners((40, 48, 44), size)
    found = []
    for values in (1, 5 * 16 * 24 * 20, 10 ** 9):
        monkeypatch.setattr(windows, "VALUES_AT_ONCE", values)
        found.append((windows.window_power(first, corners, size, second),
                      windows.window_transfer(first, second, corners, size)))
    assert len(corners) % 5
    for power, transfer in found[1:]:
        torch.testing.assert_close(power, found[0][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(transfer, found[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [24, 40, 64])
def test_the_taper_overlaps_itself_as_counted(side):
    hann = torch.hann_window(side, periodic=True, dtype=torch.double)
    overlap = [float((hann[lag:] * hann[:side - lag]).sum() / hann.square().sum())
               for lag in range(side)]
    found = windows.taper_overlap(torch.arange(side + 8), side)
    np.testing.assert_allclose(found, overlap + [0] * 8, atol=1e-5)
