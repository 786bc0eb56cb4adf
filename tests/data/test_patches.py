import itertools

import numpy as np
import pytest
import torch

from f2fd_core.data.patches import PatchOrder, all_patches, augment, patch_grid, shifted
from f2fd_core.data.regions import reflected
from f2fd_core.data.tiles import Tiling

RAGGED = [(32, 32, 32), (37, 50, 91), (9, 64, 33), (40, 41, 130)]


@pytest.mark.parametrize("shape", RAGGED)
def test_patch_grid_covers_every_voxel(shape):
    side = 16
    covered = np.zeros(shape, bool)
    grid = patch_grid(shape, side)
    for z, y, x in grid:
        covered[max(z, 0) : z + side, max(y, 0) : y + side, max(x, 0) : x + side] = True
    assert covered.all()
    assert len(grid) == np.prod([-(-length // side) for length in shape])


def test_patch_centres_are_spread_from_half_a_side_to_half_a_side():
    starts = sorted({z for z, _, _ in patch_grid((100, 16, 16), 16)})
    assert (starts[0], starts[-1]) == (0, 84)
    assert max(np.diff(starts)) - min(np.diff(starts)) <= 1


def test_shifted_patches_stay_inside_and_move_as_far_as_they_may():
    torch.manual_seed(0)
    moved = np.array([shifted((20, 0, -2), (60, 40, 12), 16, 10) for _ in range(500)])
    assert (moved[:, 0].min(), moved[:, 0].max()) == (10, 30)
    assert (moved[:, 1].min(), moved[:, 1].max()) == (0, 10)
    assert set(moved[:, 2]) == {-2}


def test_every_epoch_visits_every_patch_once_in_a_new_order():
    grid = all_patches([(32, 48, 32), (16, 16, 40)], 16)
    order = PatchOrder(grid, batch_size=4, seed=1)
    patches = len(grid)
    assert patches == 2 * 3 * 2 + 3
    visited = [patch for step in range(order.steps(4)) for patch in order.batch(step)]
    epochs = [visited[first : first + patches] for first in range(0, 4 * patches, patches)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(grid)
    assert epochs[0] != epochs[1]
    assert order.epochs_before(order.steps(4)) == 4
    assert PatchOrder(grid, 4, 1).batch(9) == order.batch(9)
    assert PatchOrder(grid, 4, 2).batch(9) != order.batch(9)


def test_only_patches_with_a_twentieth_inside_the_mask_are_drawn():
    """Against counting the voxels one by one, on volumes thinner than a patch, too."""
    shapes, side = [(32, 48, 32), (10, 16, 40)], 16
    masks = [np.zeros(shape, dtype=np.uint8) for shape in shapes]
    masks[0][4:9, 20:30, 3:17] = 1
    masks[1][:, 15:, :] = 1  # a sixteenth of every patch
    found = all_patches(shapes, side, masks)
    expected = []
    for index, start in all_patches(shapes, side):
        inside = sum(
            masks[index][
                tuple(
                    reflected(first, side, length)[offset]
                    for first, length, offset in zip(start, shapes[index], voxel)
                )
            ]
            > 0
            for voxel in itertools.product(range(side), repeat=3)
        )
        if inside >= 0.05 * side**3:
            expected.append((index, start))
    assert found == expected
    assert {index for index, _ in found} == {0, 1}
    assert len(found) < len(all_patches(shapes, side))


def turned_sets(mode):
    volume = torch.arange(4**3, dtype=torch.float32).reshape(1, 4, 4, 4)
    torch.manual_seed(0)
    return volume, {tuple(augment(volume, mode).flatten().tolist()) for _ in range(400)}


def test_augmentations_are_the_stated_turns():
    volume, none = turned_sets("none")
    assert none == {tuple(volume.flatten().tolist())}
    _, wedge = turned_sets("wedge")
    assert wedge == {
        tuple(volume.flip(axes).flatten().tolist()) for axes in ((), (-3, -1), (-3, -2), (-2, -1))
    }
    _, published = turned_sets("published")
    assert len(published) == 8 and wedge < published
    _, mirrors = turned_sets("mirrors")
    flips = [axes for count in range(4) for axes in itertools.combinations((-3, -2, -1), count)]
    assert mirrors == {tuple(volume.flip(axes).flatten().tolist()) for axes in flips}
    # Rotations, not mirror images: a particle's handedness is kept.
    assert tuple(volume.flip(-1).flatten().tolist()) not in published


@pytest.mark.parametrize("mode", ["wedge", "mirrors"])
def test_augmentation_keeps_the_missing_wedge(mode):
    """Power missing near the Z axis of the XZ plane, for all Y, stays exactly there."""
    torch.manual_seed(3)
    size = 16
    z = torch.fft.fftfreq(size)[:, None, None]
    x = torch.fft.rfftfreq(size)[None, None, :]
    wedge = (z.abs() > 2 * x.abs()).expand(size, size, size // 2 + 1)
    volume = torch.fft.irfftn(torch.fft.rfftn(torch.randn(size, size, size)) * ~wedge)
    for _ in range(20):
        power = torch.fft.rfftn(augment(volume, mode)).abs() ** 2
        assert power[wedge].max() < 1e-6 * power.max()


@pytest.mark.parametrize("shape", RAGGED)
@pytest.mark.parametrize(("side", "overlap", "multiple"), [(32, 5, 8), (24, 12, 8), (64, 10, 32)])
def test_tiling_with_an_identity_returns_its_input(shape, side, overlap, multiple):
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    padded = np.pad(volume, [(0, 64)] * 3, mode="wrap")
    output, ones = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    tiles = Tiling(shape, side, overlap, multiple)

    def identity(start, size):
        assert all(edge % multiple == 0 for edge in size)
        window = tuple(slice(at, at + edge) for at, edge in zip(start, size))
        return padded[window], np.ones(size, np.float32)

    results = (identity(start, tiles.size) for start in tiles.starts())
    done = list(tiles.blend(results, [output, ones]))
    assert len(done) == len(tiles)
    np.testing.assert_allclose(ones, 1, atol=1e-5)
    np.testing.assert_allclose(output, volume, atol=1e-5)


@pytest.mark.parametrize("length", [40, 96, 97, 100, 200, 512])
def test_tiles_are_no_larger_than_as_many_need(length):
    side, overlap, multiple = 96, 16, 8
    tiles = Tiling((length,) * 3, side, overlap, multiple)
    starts = [start for start, _ in tiles.axes[0]]
    least = -(-(length - overlap) // (side - overlap))
    assert len(starts) == max(1, least) and len(tiles) == len(starts) ** 3 == len(tiles.starts())
    edge = tiles.size[0]
    assert starts[-1] + edge >= length and edge <= side and edge % multiple == 0
    assert all(first + edge - second >= overlap for first, second in zip(starts, starts[1:]))
    smaller = edge - multiple
    assert len(starts) * (smaller - overlap) + overlap < length
    assert Tiling((length,) * 3, side, overlap, multiple, least=88).size[0] == min(
        max(edge, 88), -(-length // multiple) * multiple
    )


def test_blend_weights_are_positive_and_smooth():
    tiles = Tiling((90, 32, 32), 32, 8, 8)
    for _, _, weights in tiles:
        assert weights.min() > 0
    first = tiles.axes[0][0][1]
    assert np.abs(np.diff(first)).max() < 0.3
