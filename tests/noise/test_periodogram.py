import torch
from conftest import Memory, coloured, synthesised

from f2fd_core.noise import periodogram


def test_windows_cover_the_volume_or_are_spread_over_it():
    every = periodogram.window_corners((48, 32, 80), (32, 32, 32))
    assert every == [(z, 0, x) for z in (0, 16) for x in (0, 16, 32, 48)]
    some = periodogram.window_corners((200, 200, 200), (32, 32, 32), 50)
    assert len(some) == len(set(some)) == 50
    assert some[0] == (0, 0, 0) and some[-1] == (168, 168, 168)


def test_windows_are_the_same_one_by_one_and_many_at_once(monkeypatch):
    first = Memory(synthesised(coloured, (40, 48, 44), 0)).region
    size = (16, 24, 20)
    corners = periodogram.window_corners((40, 48, 44), size)
    found = []
    for values in (1, 5 * 16 * 24 * 20, 10**9):
        monkeypatch.setattr(periodogram, "VALUES_AT_ONCE", values)
        found.append(periodogram.periodograms(first, corners, size))
    assert len(corners) % 5
    for power in found[1:]:
        torch.testing.assert_close(power, found[0], rtol=1e-4, atol=1e-4)
