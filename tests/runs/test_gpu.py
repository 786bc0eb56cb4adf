"""What only a GPU can show; skipped without one."""

import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_weights, data

from f2fd_core import DenoiseConfig, TrainConfig, denoise, train
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.prediction import memory, predictor
from f2fd_core.runtime.device import to_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
ON_GPU = dict(TINY, device="cuda")


def trained(phantom, folder, **options):
    return train(
        TrainConfig(**dict(ON_GPU, tomograms=(phantom["tomogram"],), output=str(folder), **options))
    )


def denoised(model, phantom, folder, **options):
    (path,) = denoise(
        DenoiseConfig(
            **dict(
                dict(
                    model=str(model),
                    tomograms=(phantom["tomogram"],),
                    output=str(folder),
                    device="cuda",
                ),
                **options,
            )
        )
    )
    return torch.from_numpy(data(path))


@pytest.mark.parametrize("options", [dict(), dict(network="published", patch_size=32)])
def test_deterministic_trainings_are_the_same(phantom, tmp_path, options):
    for name in "ab":
        trained(phantom, tmp_path / name, deterministic=True, **options)
    assert_same_weights(tmp_path / "a" / "model.pt", tmp_path / "b" / "model.pt")


@pytest.fixture(scope="module")
def sure_model(phantom, tmp_path_factory):
    """Folder of a model without dropout: from the tomogram itself, as few predictions are made,
    it predicts the same however its random numbers are drawn."""
    folder = tmp_path_factory.mktemp("sure")
    trained(phantom, folder, dropout=0.0)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        dict(device="cpu", precision="float32"),
        dict(precision="bfloat16"),
        dict(batch_size=1),
        dict(compile=True),
        dict(deterministic=True),
    ],
)
def test_fast_paths_give_what_the_plain_one_gives(sure_model, phantom, tmp_path, options):
    plain = denoised(sure_model / "model.pt", phantom, tmp_path / "plain", precision="float32")
    other = denoised(sure_model / "model.pt", phantom, tmp_path / "other", **options)
    assert correlation(plain, other) > 0.999


def test_compiled_training_equals_eager(phantom, tmp_path):
    losses = []
    for compile in (False, True):
        folder = tmp_path / str(compile)
        trained(phantom, folder, compile=compile, precision="float32")
        rows = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
        losses.append(rows["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_tiles_are_chosen_for_the_free_memory(tiny_model, write, tmp_path, monkeypatch):
    sizes = set()
    moments = predictor.Predictor.predict_tile

    def noted(self, perturbation, start, size):
        sizes.add((size, self.batch_size))
        return moments(self, perturbation, start, size)

    monkeypatch.setattr(predictor.Predictor, "predict_tile", noted)
    tomogram = write(np.random.default_rng(0).standard_normal((48, 208, 112)))

    def tiles_with(voxels):
        sizes.clear()
        per_voxel = 100.0
        monkeypatch.setattr(predictor.Predictor, "bytes_per_voxel", lambda self: per_voxel)
        monkeypatch.setattr(
            memory, "free_memory", lambda device: voxels * per_voxel / memory.MEMORY_SHARE
        )
        denoised(tiny_model / "model.pt", {"tomogram": tomogram}, tmp_path / str(voxels))
        return sizes

    assert tiles_with(4.1 * 192**3) == {((48, 120, 112), 4)}
    assert tiles_with(4.1 * 96**3) == {((48, 80, 64), 4)}
    assert tiles_with(2.1 * 64**3) == {((48, 64, 64), 2)}


def test_real_lack_of_memory_is_survived(tiny_model, phantom, tmp_path):
    """A process that may take little of the GPU's memory goes on with smaller tiles."""
    properties = torch.cuda.get_device_properties(0)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 150e6 / properties.total_memory))
    try:
        result = denoised(
            tiny_model / "model.pt", phantom, tmp_path / "little", batch_size=64, predictions=64
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.isfinite(result).all() and result.std() > 0


def test_what_is_moved_arrives_whole_while_the_gpu_is_busy():
    """From memory that is used again at once."""
    gpu = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=gpu)
    values = torch.arange(1 << 20, dtype=torch.float32)
    parts = []
    for number in range(8):
        for _ in range(4):
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        parts.append(to_device(values + number, gpu))
    for number, part in enumerate(parts):
        assert torch.equal(part.cpu(), values + number)
