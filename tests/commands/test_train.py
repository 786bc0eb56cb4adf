import csv
import json
import os
import shutil

import mrcfile
import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_weights, data

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.cli import main
from f2fd_core.commands import train as training
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.network import checkpoint
from f2fd_core.training import trainer, writer


def test_outputs(tiny_model, phantom):
    assert sorted(entry.name for entry in tiny_model.iterdir()) == [
        "checkpoints",
        "histogram.png",
        "log.csv",
        "loss.png",
        "model.pt",
        "previews",
        "slices.png",
        "spectrum.png",
        "train.json",
    ]
    assert sorted(entry.name for entry in (tiny_model / "previews").iterdir()) == [
        "step_00000003.png",
        "step_00000006.png",
    ]
    assert (tiny_model / "previews" / "step_00000006.png").read_bytes() == (
        tiny_model / "slices.png"
    ).read_bytes()
    assert sorted(entry.name for entry in (tiny_model / "checkpoints").iterdir()) == [
        "step_00000003.pt",
        "step_00000006.pt",
    ]
    for name in ("histogram.png", "loss.png", "slices.png", "spectrum.png"):
        assert (tiny_model / name).read_bytes()[:4] == b"\x89PNG"
    recorded = json.loads((tiny_model / "train.json").read_text())
    assert recorded["tomograms"] == [phantom["tomogram"]] and recorded["steps"] == 6
    with open(tiny_model / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "step",
        "seconds",
        "loss",
        "learning_rate",
        "voxels_per_second",
        "validation_loss",
        "explained_power",
        "signal_power",
        "seconds_left",
    ]
    assert [int(row["step"]) for row in rows] == list(range(6))
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    left = [float(row["seconds_left"]) for row in rows]
    assert left[-1] == 0 and left[2] == pytest.approx(seconds[2], rel=0.05)  # half is done
    assert [row["step"] for row in rows if row["explained_power"]] == ["5"]


def test_pictures_take_no_more_than_a_tenth_of_the_time(small, tmp_path, monkeypatch):
    """With a clock on which a step takes a second, and the pictures two."""
    seconds, drawn = [0.0], []
    take_step = trainer.train_step

    def step(self):
        seconds[0] += 1
        return take_step(self)

    def draw(self):
        drawn.append(self.training.step)
        seconds[0] += 2

    monkeypatch.setattr(writer.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(trainer, "train_step", step)
    monkeypatch.setattr(training.Writer, "draw", draw)
    train(
        TrainConfig(
            tomograms=(small["tomogram"],),
            output=str(tmp_path),
            **dict(TINY, steps=26, checkpoint_every=1),
        )
    )
    assert drawn == [1, 19, 26]


def test_an_earlier_run_is_kept_unless_overwrite(phantom, tmp_path):
    options = dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path), steps=2)
    train(TrainConfig(**options))
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(UserError, match="already holds a training .*model.pt"):
        train(TrainConfig(**dict(options, seed=9)))
    assert (tmp_path / "model.pt").read_bytes() == before
    train(TrainConfig(**dict(options, seed=9, overwrite=True)))
    assert (tmp_path / "model.pt").read_bytes() != before
    assert json.loads((tmp_path / "train.json").read_text())["seed"] == 9


def test_epochs_become_steps(phantom, tmp_path):
    options = dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path))
    train(TrainConfig(**dict(options, epochs=2, patch_size=32, batch_size=4)))
    # 40 x 48 x 72 voxels in patches of 32: 2 x 2 x 3 patches, twice, 4 a step.
    assert checkpoint.load(str(tmp_path / "model.pt"))["step"] == 6


def test_several_tomograms_of_different_and_thin_sizes(phantom, write, tmp_path):
    rng = np.random.default_rng(0)
    thin = write(rng.normal(size=(9, 40, 50)), "thin.mrc")
    path = train(
        TrainConfig(
            **dict(TINY, tomograms=(phantom["tomogram"], thin), output=str(tmp_path / "run"))
        )
    )
    result = denoise(DenoiseConfig(model=path, tomograms=(thin,), output=str(tmp_path / "out")))[0]
    with mrcfile.open(result) as stream:
        assert stream.data.shape == (9, 40, 50)
        assert np.isfinite(stream.data).all() and stream.data.std() > 0


def test_ground_truth_scores_are_logged(phantom, tmp_path):
    options = dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path))
    train(TrainConfig(ground_truth=(phantom["clean"],), **options))
    with open(tmp_path / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        assert 0 < float(row["input_ssim"]) < 1 and 0 < float(row["input_psnr"]) < 60
        assert -1 < float(row["ssim"]) < 1 and 0 < float(row["psnr"]) < 60
    # Scores only: the training itself is the same without it.
    train(TrainConfig(**dict(options, output=str(tmp_path / "without"))))
    assert_same_weights(tmp_path / "model.pt", tmp_path / "without" / "model.pt")


def test_ground_truth_of_another_size_is_refused(phantom, write, tmp_path):
    other = write(np.random.default_rng(0).normal(size=(16, 16, 16)))
    with pytest.raises(UserError, match="the ground truth .* has shape"):
        train(
            TrainConfig(
                **dict(
                    TINY,
                    tomograms=(phantom["tomogram"],),
                    ground_truth=(other,),
                    output=str(tmp_path / "run"),
                )
            )
        )
    assert not (tmp_path / "run").exists()


def test_sampling_masks_must_fit_and_hold_something(phantom, write, tmp_path):
    shape = data(phantom["tomogram"]).shape
    empty, other = write(np.zeros(shape), "empty.mrc"), write(np.ones((16, 16, 16)), "other.mrc")
    for masks, words in (
        ((other,), "sampling mask .*other.mrc has shape"),
        ((empty,), "no patch .* inside .*empty.mrc"),
        ((empty, empty), "--sampling-masks names 2 volumes; expected 1"),
    ):
        with pytest.raises(UserError, match=words):
            train(
                TrainConfig(
                    **dict(
                        TINY,
                        tomograms=(phantom["tomogram"],),
                        sampling_masks=masks,
                        output=str(tmp_path / "run"),
                    )
                )
            )
    assert not (tmp_path / "run").exists()


def test_one_of_two_sampling_masks_may_not_be_empty(phantom, write, tmp_path):
    """As one is that IMOD wrote in signed bytes, whose 0 and 1 are -128 and -127."""
    inside = np.zeros(data(phantom["tomogram"]).shape)
    inside[:, :, :36] = 1
    with pytest.raises(UserError, match="inside .*imod.mrc, whose values are -128 to -127"):
        training.open_for_training(
            TrainConfig(
                **dict(
                    TINY,
                    tomograms=(phantom["tomogram"], phantom["odd"]),
                    output=str(tmp_path),
                    sampling_masks=(write(inside), write(inside - 128, "imod.mrc")),
                )
            )
        )


@pytest.mark.reliability(
    "a training on tomograms of different voxel sizes", "refused; --rescale brings them to one"
)
def test_different_voxel_sizes_are_not_mixed(phantom, write, tiny_model, tmp_path, capsys):
    coarse = write(data(phantom["tomogram"]), "coarse.mrc", voxel_size=20.0)
    options = dict(TINY, tomograms=(phantom["tomogram"], coarse), output=str(tmp_path))
    with pytest.raises(UserError, match="coarse.mrc has voxels of 20 Å, but .* 10 Å; expected the"):
        training.open_for_training(TrainConfig(**options))
    opened = training.open_for_training(TrainConfig(rescale=True, **options))
    shape = opened.volumes[0].shape
    np.testing.assert_allclose(opened.volumes[1].shape, 2 * np.array(shape), atol=1)
    training.open_for_training(
        TrainConfig(
            **dict(options, tomograms=(coarse,), initial_model=str(tiny_model / "model.pt"))
        )
    )
    assert (
        "coarse.mrc has voxels of 20 Å, but the initial model was trained at 10 Å"
        in capsys.readouterr().err
    )


def test_a_training_never_replaces_tomograms(tiny_model, phantom, tmp_path):
    run = shutil.copytree(tiny_model, tmp_path / "run")
    own = shutil.copyfile(phantom["tomogram"], run / "previews" / "own.mrc")
    with pytest.raises(UserError, match="the input .*own.mrc would be replaced by .*previews"):
        train(TrainConfig(**dict(TINY, tomograms=(str(own),), output=str(run), overwrite=True)))
    assert own.exists()
    assert_same_weights(run / "model.pt", tiny_model / "model.pt")


@pytest.mark.reliability(
    "train.json of a run made with --overwrite, for another tomogram",
    "one sentence; the run is kept",
)
def test_a_recorded_run_does_not_allow_to_replace_itself(tiny_model, phantom, tmp_path, capsys):
    run = shutil.copytree(tiny_model, tmp_path / "run")
    recorded = dict(TINY, tomograms=(phantom["tomogram"],), output=str(run), overwrite=True)
    (run / "train.json").write_text(TrainConfig(**recorded).to_json(), encoding="utf-8")
    assert main(["train", phantom["odd"], "--config", str(run / "train.json")]) == 2
    assert "run already holds a training" in capsys.readouterr().err
    assert_same_weights(run / "model.pt", tiny_model / "model.pt")


def test_a_training_draws_only_what_its_sampling_mask_allows(phantom, write, tmp_path):
    mask = np.zeros(data(phantom["tomogram"]).shape)
    mask[:12, :16, :8] = 1
    run = training.open_for_training(
        TrainConfig(
            **dict(
                TINY,
                tomograms=(phantom["tomogram"],),
                output=str(tmp_path),
                sampling_masks=(write(mask),),
            )
        )
    )
    drawn = {start for step in range(20) for _, start in run.order.batch(step)}
    assert drawn == {(0, 0, 0)}


def planted(seed, shared):
    """Balls in noise: (odd, even, clean), the correlation of odd + even with clean below 0.2.

    The noise is white or, if ``shared``, alike in neighbours along X and white otherwise.
    """
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:32, :48, :48]
    clean = np.zeros((32, 48, 48), np.float32)
    for centre in rng.uniform(4, 28, (8, 3)) * (1, 1.5, 1.5):
        clean += np.exp(-sum((axis - at) ** 2 for axis, at in zip((z, y, x), centre)) / 30)
    noise = rng.normal(0, 1.4, (2, *clean.shape))
    if shared:
        noise = (noise + np.roll(noise, 1, -1)) / np.sqrt(2)
    return clean + noise[0], clean + noise[1], clean


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shared", "options", "least", "most"),
    [
        (False, dict(perturbation="noise_matched"), 3.5, np.inf),
        (False, dict(perturbation="fourier_masks", pool_size=6), 2.0, np.inf),
        (False, dict(perturbation="self2self"), 3.5, np.inf),
        (False, dict(perturbation="noise2void"), 3.5, np.inf),
        (False, dict(perturbation="noise2noise"), 3.5, np.inf),
        # What neighbours share can be predicted, and so stays in, unless they are hidden, too. (The
        # folded network is slow to learn what distinguishes neighbours.)
        (True, dict(perturbation="noise2void", network="compact"), 1.0, 3.2),
        (True, dict(perturbation="noise2void", blind_reach=1), 4.0, np.inf),
        (True, dict(perturbation="self2self", block_probability=1.0, block_size=3), 4.0, np.inf),
    ],
)
def test_a_planted_signal_is_recovered(write, tmp_path, shared, options, least, most):
    """The correlation with the clean volume grows by a factor of ``least`` to ``most``."""
    odd, even, clean = planted(1, shared)
    halves = (write(odd, "odd.mrc"), write(even, "even.mrc"))
    given = (
        dict(half_maps=halves)
        if options["perturbation"] == "noise2noise"
        else dict(tomograms=(write((odd + even) / 2, "noisy.mrc"),))
    )
    model = train(
        TrainConfig(
            output=str(tmp_path / "run"),
            patch_size=24,
            batch_size=2,
            steps=60,
            features=8,
            dropout=0.0,
            device="cpu",
            checkpoint_every=1000,
            **given,
            **options,
        )
    )
    (result,) = denoise(
        DenoiseConfig(
            model=model,
            output=str(tmp_path / "out"),
            tile_size=64,
            predictions=4,
            device="cpu",
            **given,
        )
    )
    before, after = (
        correlation(torch.from_numpy(volume), torch.from_numpy(clean))
        for volume in (((odd + even) / 2).astype(np.float32), data(result))
    )
    assert before < 0.2
    assert least < after / before < most


@pytest.mark.slow
def test_published_network_and_masks_run_end_to_end(phantom, tmp_path):
    config = TrainConfig.create(
        dict(
            preset="published",
            tomograms=[phantom["tomogram"]],
            output=str(tmp_path / "run"),
            steps=1,
            features=2,
            patch_size=32,
            samples_per_patch=1,
            pool_size=2,
            device="cpu",
        )
    )
    model = train(config)
    result = denoise(
        DenoiseConfig(
            model=model,
            tomograms=(phantom["tomogram"],),
            predictions=2,
            batch_size=2,
            pool_size=2,
            output=str(tmp_path / "out"),
        )
    )[0]
    assert np.isfinite(mrc.open_volume(result).data).all()


def test_the_bar_the_device_and_the_noise_scale_are_announced(phantom, tmp_path, capsys):
    train(TrainConfig(**dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path / "a"))))
    said = capsys.readouterr().err
    assert "f2fd: noise scale: 1.00\n" in said  # so small a tomogram
    assert "training on CPU" in said and "warning: no GPU is used" in said
    assert "6/6" in said


def test_global_random_state_is_left_alone(phantom, tmp_path):
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    train(TrainConfig(**dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path / "a"))))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_output_folder(phantom, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="output folder"):
        train(TrainConfig(tomograms=(phantom["tomogram"],), output=str(tmp_path / "a")))
