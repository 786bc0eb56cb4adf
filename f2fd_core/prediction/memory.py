"""Which batch and tile fit into a device's memory."""

from f2fd_core.config import NETWORK_MULTIPLE
from f2fd_core.runtime.device import free_memory

# The largest tile that is chosen: what belongs to a tile takes a fast GPU longer than its voxels if
# there are few.
LARGEST_TILE = 192
# Share of the free memory that predictions may take.
MEMORY_SHARE = 0.6
# The smallest tile that is chosen without being asked for, a multiple that suits any network: in
# smaller ones all voxels are near a face, and what they give correlates with the whole volume's to
# less than 0.999.
SMALLEST_TILE = 64
# The steps in which tiles are tried, down from the largest.
LARGER_BY = 32


def fit_to_memory(predictors, asked, config, trained):
    """Choose what was left to choose (0) in the DenoiseConfig ``asked`` by the GPUs' free memory.

    Gives the predictors their batch size; returns the tile size.
    """
    sides = []
    usual = trained.preset == "default"
    for predictor in predictors:
        if predictor.device.type != "cuda":
            continue
        voxels = MEMORY_SHARE * free_memory(predictor.device) / predictor.bytes_per_voxel()
        # The copies of the published method are drawn in batches of a fixed size.
        most = config.predictions if usual else config.batch_size
        batch, side = batch_and_tile(
            voxels,
            config.tile_size,
            most,
            NETWORK_MULTIPLE[trained.network],
            LARGEST_TILE if usual and not asked.tile_size else 0,
        )
        if not asked.batch_size:
            predictor.batch_size = batch
        if not asked.tile_size:
            sides.append(side)
    return min(sides, default=config.tile_size)


def batch_and_tile(voxels, side, most, multiple, largest=0):
    """How many predictions at once, at most ``most``, and tiles of which side, for a memory of so
    many ``voxels``.

    Larger ones than ``side``, up to ``largest``, where ``most`` predictions fit; smaller ones only
    where not even one does.
    """
    for larger in range(largest, side, -LARGER_BY):
        if most * larger**3 <= voxels:
            return most, larger
    while side > SMALLEST_TILE and side**3 > voxels:
        side = halved(side, multiple)
    return max(1, min(most, int(voxels) // side**3)), side


def halved(side, multiple):
    """The next smaller tile."""
    return max(SMALLEST_TILE, side // 2 // multiple * multiple)
