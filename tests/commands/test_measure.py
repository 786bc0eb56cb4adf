import json
import re

import numpy as np
import pytest

from f2fd_core import DenoiseConfig, TrainConfig, denoise, train
from f2fd_core.cli import main
from f2fd_core.network import checkpoint
from f2fd_core.network.unet import UnshuffledUNet
from f2fd_core.prediction.memory import batch_and_tile
from f2fd_core.runtime.console import duration
from f2fd_core.training.eta import predicted_voxels


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3.4, "3 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5900, "98 min"),
        (6000, "1.7 h"),
        (72000, "20.0 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_voxels_are_those_that_pass_through_the_network(tiny_model, write, tmp_path, monkeypatch):
    """In a denoising with default options, in more tiles than one."""
    passed, forward = [], UnshuffledUNet.forward

    def counted(network, volumes):
        passed.append(volumes.numel())
        return forward(network, volumes)

    monkeypatch.setattr(UnshuffledUNet, "forward", counted)
    shape = (24, 40, 130)
    tomogram = write(np.random.default_rng(0).standard_normal(shape))
    model = str(tiny_model / "model.pt")
    _, trained = checkpoint.restore(checkpoint.load(model), model)
    # It looks at the contrast first, in patches of its own.
    monkeypatch.setattr("f2fd_core.training.contrast.is_opposite", lambda *_: False)
    denoise(DenoiseConfig(model=model, tomograms=(tomogram,), output=str(tmp_path), device="cpu"))
    assert sum(passed) == predicted_voxels(shape, trained) > 4 * 24 * 40 * 130


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (10 * 96**3, (4, 96)),
        (2.5 * 96**3, (2, 96)),
        (96**3, (1, 96)),
        (95**3, (3, 64)),
        (63**3, (1, 64)),
        (10, (1, 64)),
    ],
)
def test_batch_and_tile_for_a_memory(voxels, expected):
    assert batch_and_tile(voxels, 96, 4, 8) == expected


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (4 * 192**3, (4, 192)),
        (4 * 192**3 - 1, (4, 160)),
        (4 * 128**3, (4, 128)),
        (4 * 128**3 - 1, (4, 96)),
        (2.5 * 96**3, (2, 96)),
        (95**3, (3, 64)),
    ],
)
def test_larger_tiles_are_only_for_all_predictions_at_once(voxels, expected):
    assert batch_and_tile(voxels, 96, 4, 8, 192) == expected


def test_tiles_chosen_for_a_memory_suit_the_network():
    for voxels in (10**4, 10**5, 3 * 10**5, 10**6):
        for multiple in (8, 32):
            _, side = batch_and_tile(voxels, 160, 1, multiple)
            assert side % multiple == 0 and (side**3 <= voxels or side == 64)


def test_training_shows_what_it_will_take(phantom, tmp_path, capsys):
    train(
        TrainConfig(
            tomograms=(phantom["tomogram"],),
            output=str(tmp_path),
            steps=9,
            features=2,
            patch_size=16,
            batch_size=1,
        )
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "a step takes" in line]
    step, steps, unit, memory = re.fullmatch(
        r"f2fd: a step takes (\S+) s: 9 steps about (\d+) (s|min), and then denoising the tomogram "
        r"about .*; (\S+) GiB of memory in use",
        line,
    ).groups()
    # However fast the machine is; the step is given to two digits.
    seconds = {"s": 1, "min": 60}[unit]
    assert float(step) > 0
    assert seconds * int(steps) == pytest.approx(9 * float(step), rel=0.06, abs=0.5 * seconds)
    assert 0.05 < float(memory) < 8


@pytest.mark.slow
def test_machine_is_measured(monkeypatch, capsys):
    monkeypatch.setattr("f2fd_core.commands.measure.MEASURED_SECONDS", 0.1)
    small, large = ([], [])
    for shape, found in (((64, 64, 64), small), ((640, 640, 640), large)):
        assert main(["info", "--benchmark", "--shape", *map(str, shape), "--device", "cpu"]) == 0
        found.append(json.loads(capsys.readouterr().out)["benchmark"])
    small, large = small[0], large[0]
    assert small["seconds_per_step"] > 0 and small["device"].startswith("CPU")
    assert large["tomogram_gib"] == pytest.approx(4 * 640**3 / 2**30, abs=0.01)
    # What is held besides the network is the tomogram and its result.
    grown = large["memory_gib_at_most"] - small["memory_gib_at_most"]
    assert grown == pytest.approx(2 * large["tomogram_gib"], abs=0.5)
