import pytest
import torch

from f2fd_core import train
from f2fd_core.commands import info
from f2fd_core.config import TrainConfig, UserError
from f2fd_core.network import checkpoint, unet

CONFIG = TrainConfig(features=2)


def test_round_trip(tmp_path):
    torch.manual_seed(0)
    network, path = unet.build(CONFIG), str(tmp_path / "model.pt")
    checkpoint.save(path, network.state_dict(), CONFIG, 7, 12.5)
    state = checkpoint.load(path)
    restored, config = checkpoint.restore(state, path)
    assert (config, state["step"], state["voxel_size"]) == (CONFIG, 7, 12.5)
    for one, other in zip(network.parameters(), restored.parameters()):
        assert torch.equal(one, other)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]
    described = info.describe_model(path)
    assert described["config"]["features"] == 2 and not described["fills_wedge"]


def test_newest_passes_over_a_broken_checkpoint(tmp_path):
    warnings = []
    for step in (10, 20):
        checkpoint.save(
            checkpoint.path_of(str(tmp_path), step),
            unet.build(CONFIG).state_dict(),
            CONFIG,
            step,
            1.0,
        )
    path, state = checkpoint.newest(str(tmp_path), warnings.append)
    assert state["step"] == 20 and not warnings
    with open(path, "r+b") as stream:
        stream.truncate(1000)
    _, state = checkpoint.newest(str(tmp_path), warnings.append)
    assert state["step"] == 10
    assert "step_00000020.pt" in warnings[0]
    with open(checkpoint.path_of(str(tmp_path), 10), "r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(UserError, match="none of the 2 checkpoints"):
        checkpoint.newest(str(tmp_path), warnings.append)
    assert checkpoint.newest(str(tmp_path / "none"), warnings.append) == (None, None)


def test_models_of_version_1_are_read(tmp_path):
    """As 1.0.0 wrote them: with --refine-at, a share, and --spectrum-quantile."""
    torch.manual_seed(0)
    network = unet.build(CONFIG)
    for refine_at in (0.3, 0.0):
        old = {
            name: value
            for name, value in CONFIG.to_dict().items()
            if name not in ("noise_profile", "averaging")
        }
        old.update(
            refine_at=refine_at, spectrum_quantile=0.25, spectrum_window=32, steps=1000, dropout=0.1
        )
        path = str(tmp_path / "checkpoints" / "step_00000007.pt")
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        torch.save(
            dict(
                format="f2fd",
                version=1,
                config=old,
                step=7,
                voxel_size=10.0,
                model=network.state_dict(),
            ),
            path,
        )
        restored, config = checkpoint.restore(checkpoint.load(path), path)
        assert (config.steps, config.dropout) == (1000, 0.1)
        for one, other in zip(network.parameters(), restored.parameters()):
            assert torch.equal(one, other)


def test_training_of_version_1_is_not_resumed(tmp_path, phantom):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(
        dict(
            format="f2fd",
            version=1,
            config=CONFIG.to_dict(),
            step=7,
            voxel_size=10.0,
            model=unet.build(CONFIG).state_dict(),
        ),
        str(folder / "step_00000007.pt"),
    )
    with pytest.raises(UserError, match="written by an older F2Fd.*--initial-model"):
        train(
            TrainConfig(
                tomograms=(phantom["tomogram"],), output=str(tmp_path), resume=True, features=2
            )
        )


def test_too_little_memory_is_not_taken_for_damage(tiny_model, monkeypatch):
    """It has a sentence of its own, which the command line gives."""

    def full(*_, **options):
        raise MemoryError

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        checkpoint.load(str(tiny_model / "model.pt"))
