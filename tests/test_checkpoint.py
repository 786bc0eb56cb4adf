import pickle

import pytest
import torch

from f2fd_core import checkpoint, info, train, unet
from f2fd_core.config import TrainConfig, UserError

CONFIG = TrainConfig(features=2)


@pytest.fixture
def state():
    return dict(format="f2fd", version=2, config=CONFIG.to_dict(), step=7, voxel_size=10.0,
                model=unet.build(CONFIG).state_dict())


def refused(tmp_path, content, words):
    path = str(tmp_path / "bad.pt")
    if isinstance(content, bytes):
        (tmp_path / "bad.pt").write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError) as caught:
        checkpoint.restore(checkpoint.load(path), path)
    assert "bad.pt" in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


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
    assert info.describe_model(path)["config"]["features"] == 2


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken", pickle.dumps({"a": 1})])
def test_other_files_are_no_model(tmp_path, content):
    refused(tmp_path, content, "is no F2Fd model")


def test_other_dictionaries_are_no_model(tmp_path):
    refused(tmp_path, {"state_dict": {}}, "is no F2Fd model")
    refused(tmp_path, [1, 2], "is no F2Fd model")


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_file_is_not_run(tmp_path, state):
    marker = tmp_path / "was_here"
    state["config"]["output"] = Malicious(str(marker))
    refused(tmp_path, state, "is no F2Fd model")
    assert not marker.exists()


def test_damaged_models_are_refused(tmp_path, state):
    refused(tmp_path, dict(state, version=3), "format version 3; expected 1 to 2")
    refused(tmp_path, dict(state, config={}), "is damaged")
    refused(tmp_path, dict(state, config=dict(state["config"], features=3)), "is damaged")
    refused(tmp_path, dict(state, config=dict(state["config"], dropout=7.0)), "is damaged")
    refused(tmp_path, {name: value for name, value in state.items() if name != "model"},
            "is damaged")
    state["model"]["last.bias"] = torch.full((1,), float("nan"))
    refused(tmp_path, state, "last.bias holds NaN")


def test_newest_passes_over_a_broken_checkpoint(tmp_path):
    warnings = []
    for step in (10, 20):
        checkpoint.save(checkpoint.path_of(str(tmp_path), step), unet.build(CONFIG).state_dict(),
                        CONFIG, step, 1.0)
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
    for refine_at, refines in ((0.3, True), (0.0, False)):
        old = {name: value for name, value in CONFIG.to_dict().items()
               if name not in ("refine_every", "spectrum_share", "noise_gain", "averaging")}
        old.update(refine_at=refine_at, spectrum_quantile=0.25, spectrum_window=32, steps=1000,
                   dropout=0.1)
        path = str(tmp_path / "checkpoints" / "step_00000007.pt")
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        torch.save(dict(format="f2fd", version=1, config=old, step=7, voxel_size=10.0,
                        model=network.state_dict()), path)
        restored, config = checkpoint.restore(checkpoint.load(path), path)
        assert config.refines() == refines
        assert (config.steps, config.spectrum_window, config.dropout) == (1000, 32, 0.1)
        for one, other in zip(network.parameters(), restored.parameters()):
            assert torch.equal(one, other)


def test_training_of_version_1_is_not_resumed(tmp_path, phantom):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(dict(format="f2fd", version=1, config=CONFIG.to_dict(), step=7, voxel_size=10.0,
                    model=unet.build(CONFIG).state_dict()), str(folder / "step_00000007.pt"))
    with pytest.raises(UserError, match="written by an older F2Fd.*--initial-model"):
        train(TrainConfig(tomograms=(phantom["tomogram"],), output=str(tmp_path), resume=True,
                          features=2))
