"""Devices and tasks that denoise the tomograms of a set together."""

import os
import time

import mrcfile
import numpy as np
import pytest
from conftest import data

from f2fd_core import DenoiseConfig, UserError, denoise
from f2fd_core.commands import denoise as denoising


@pytest.mark.slow
def test_reading_ahead_changes_nothing(tiny_model, small, write, tmp_path, monkeypatch):
    """Where a GPU computes, the next tiles and the next tomogram's noise are prepared meanwhile."""
    second = write(data(small["tomogram"])[:, ::-1].copy(), "second.mrc")
    results = []
    for apart in (False, True):
        for room in ("commands.denoise", "prediction.predictor"):
            monkeypatch.setattr(
                f"f2fd_core.{room}.runs_asynchronously", lambda device, apart=apart: apart
            )
        results.append(
            denoise(
                DenoiseConfig(
                    model=str(tiny_model / "model.pt"),
                    tomograms=(small["tomogram"], second),
                    output=str(tmp_path / str(apart)),
                    predictions=5,
                    tile_size=16,
                    device="cpu",
                )
            )
        )
    for plain, ahead in zip(*results):
        np.testing.assert_array_equal(data(plain), data(ahead))


def test_two_devices_give_what_one_gives(tiny_model, small, tmp_path):
    results = []
    for device in ("cpu", "cpu,cpu"):
        (path,) = denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=(small["tomogram"],),
                tile_size=32,
                output=str(tmp_path / device),
                device=device,
                std=True,
                predictions=5,
            )
        )
        results.append((mrcfile.read(path), mrcfile.read(path.replace("_denoised", "_std"))))
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_devices_have_tomograms_of_their_own_and_share_the_rest(
    tiny_model, small, write, tmp_path, monkeypatch, count
):
    values = data(small["tomogram"])
    paths = [write(np.roll(values, number, 0), f"rolled{number}.mrc") for number in range(count)]
    workers = {}
    one = denoising.denoise_tomogram

    def noted(box, perturbation, path, predictors, *rest):
        workers[path] = list(predictors)
        one(box, perturbation, path, predictors, *rest)

    monkeypatch.setattr(denoising, "denoise_tomogram", noted)
    alone, together = (
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=tuple(paths),
                device=device,
                predictions=5,
                output=str(tmp_path / device),
            )
        )
        for device in ("cpu", "cpu,cpu")
    )
    for path, other in zip(alone, together):
        np.testing.assert_array_equal(data(path), data(other))
    assert [len(workers[path]) for path in together] == [1, 1, 2][:count]


def test_a_tomogram_that_fails_ends_those_on_other_devices(
    tiny_model, small, write, tmp_path, monkeypatch
):
    paths = [write(data(small["tomogram"]), name) for name in ("endless.mrc", "failing.mrc")]
    one = denoising.denoise_tomogram

    def failing(box, perturbation, *rest):
        if "failing" in perturbation.volume.source.path:
            while not (tmp_path / "out" / "endless_denoised.mrc.part").exists():
                time.sleep(0.01)
            raise UserError("this one fails")
        one(box, perturbation, *rest)

    monkeypatch.setattr(denoising, "denoise_tomogram", failing)
    with pytest.raises(UserError, match="this one fails"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=tuple(paths),
                output=str(tmp_path / "out"),
                device="cpu,cpu",
                predictions=10**7,
            )
        )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_tasks_of_a_queue_share_the_tomograms(tiny_model, small, tmp_path, monkeypatch, capsys):
    """Each result is made by one task, as one task alone makes it; a task may have none."""
    paths = [str(tmp_path / f"{name}.mrc") for name in "abc"]
    for path in paths:
        os.symlink(small["tomogram"], path)
    options = dict(
        model=str(tiny_model / "model.pt"), tomograms=tuple(paths), device="cpu", tile_size=32
    )
    alone = denoise(DenoiseConfig(output=str(tmp_path / "alone"), **options))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    made = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        capsys.readouterr()
        made.append(denoise(DenoiseConfig(output=str(tmp_path / "shared"), **options)))
        assert f"task {rank + 1} of 4 has {len(made[-1])} of the tomograms" in (
            capsys.readouterr().err
        )
    assert [len(paths) for paths in made] == [1, 1, 1, 0]
    for one, other in zip(alone, sum(made, [])):
        assert os.path.basename(one) == os.path.basename(other)
        np.testing.assert_array_equal(data(one), data(other))
    # What one name for two tomograms would lose is refused, whoever has them.
    os.makedirs(tmp_path / "more")
    os.symlink(small["tomogram"], tmp_path / "more" / "a.mrc")
    options["tomograms"] += (str(tmp_path / "more" / "a.mrc"),)
    with pytest.raises(UserError, match="two tomograms are called a"):
        denoise(DenoiseConfig(output=str(tmp_path / "other"), **options))
