import csv
import json
import os
import shutil

import mrcfile
import numpy as np
import pytest
import torch
from conftest import TINY, Memory, assert_same_weights, data, weights
from skimage.filters import gaussian

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, fourier, train
from f2fd_core.cli import main
from f2fd_core.commands import train as training
from f2fd_core.config import PRETRAINED, START_NETWORK
from f2fd_core.data import mrc
from f2fd_core.data.batches import batch_of
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.network import checkpoint
from f2fd_core.network.unet import UnshuffledUNet
from f2fd_core.perturbation.real_space import Self2Self
from f2fd_core.runtime import figures, run_folder
from f2fd_core.training import schedule, state, trainer, writer
from f2fd_core.training.schedule import (
    FIRST_RATE,
    HALVING_EPOCHS,
    LEARNED_RATE,
    WARMUP_STEPS,
    Schedule,
    course,
)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(perturbation="noise_matched", dropout=0.3),
        dict(perturbation="fourier_masks", samples_per_patch=2, pool_size=5),
    ],
)
def test_batches_prepared_in_the_background_are_the_same(phantom, tmp_path, options, monkeypatch):
    for apart in (False, True):
        monkeypatch.setattr(state, "runs_asynchronously", lambda device, apart=apart: apart)
        train(
            TrainConfig(
                output=str(tmp_path / str(apart)),
                tomograms=(phantom["tomogram"],),
                **dict(TINY, **options),
            )
        )
    assert_same_weights(tmp_path / "False" / "model.pt", tmp_path / "True" / "model.pt")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_equals_eager(small, tmp_path, monkeypatch):
    monkeypatch.setattr(UnshuffledUNet, "POOLINGS", 1)  # less to compile
    options = dict(TINY, tomograms=(small["tomogram"],), precision="float32")
    models = [
        train(TrainConfig(output=str(tmp_path / str(compile)), compile=compile, **options))
        for compile in (False, True)
    ]
    for name, eager in weights(models[0]).items():
        torch.testing.assert_close(weights(models[1])[name], eager, rtol=1e-3, atol=1e-4)
    results = [
        denoise(
            DenoiseConfig(
                model=models[0],
                tomograms=(small["tomogram"],),
                output=str(tmp_path / (f"out{compile}")),
                tile_size=32,
                predictions=2,
                compile=compile,
            )
        )[0]
        for compile in (False, True)
    ]
    eager, compiled = (torch.from_numpy(data(path)) for path in results)
    assert correlation(compiled, eager) > 0.999


@pytest.mark.slow
@pytest.mark.pictures
@pytest.mark.parametrize(
    "options",
    [
        dict(perturbation="noise_matched", schedule="cosine", dropout=0.3),
        dict(perturbation="noise_matched", schedule="constant", dropout=0.0),
        dict(
            perturbation="fourier_masks",
            schedule="plateau",
            loss="l2norm",
            samples_per_patch=2,
            pool_size=5,
        ),
    ],
)
def test_resumed_equals_uninterrupted_bit_for_bit(small, tmp_path, options, capsys, monkeypatch):
    monkeypatch.setattr(writer, "PAUSE_OF_DRAWING", 0)
    for name in ("draw_loss", "draw_histogram", "draw_spectrum"):  # previews are compared
        monkeypatch.setattr(figures, name, lambda *_: None)
    options = dict(TINY, tomograms=(small["tomogram"],), checkpoint_every=3, seed=4, **options)
    train(TrainConfig(output=str(tmp_path / "whole"), **options))
    parts = tmp_path / "parts"
    train(TrainConfig(output=str(parts), **options))
    # As if killed after the first checkpoint: the rest of the log is there, the rest is not.
    (parts / "checkpoints" / "step_00000006.pt").unlink()
    (parts / "model.pt").unlink()
    shutil.rmtree(parts / "previews")
    train(TrainConfig(output=str(parts), resume=True, **options))
    assert f"resuming from {parts / 'checkpoints' / 'step_00000003.pt'}" in capsys.readouterr().err
    assert_same_weights(tmp_path / "whole" / "model.pt", parts / "model.pt")
    logs = []
    for folder in (tmp_path / "whole", parts):
        with open(folder / "log.csv", newline="") as stream:
            logs.append(
                [(row["step"], row["loss"], row["learning_rate"]) for row in csv.DictReader(stream)]
            )
    assert logs[0] == logs[1]
    for name in ("step_00000003.png", "step_00000006.png"):
        assert (parts / "previews" / name).read_bytes() == (
            tmp_path / "whole" / "previews" / name
        ).read_bytes()


@pytest.mark.parametrize(("earlier", "steps", "since"), [(9, 12, 2), (0, 0, 2), (9, 0, 6)])
def test_the_best_model_is_resumed_as_it_was(earlier, steps, since, small, tmp_path):
    """Only a number of steps that became automatic has not waited until then."""
    options = dict(TINY, tomograms=(small["tomogram"],), output=str(tmp_path / "run"))
    before = training.open_for_training(TrainConfig(**dict(options, steps=earlier)))
    before.step = 6
    before.best.update(1.0, 2.0, 2, before.model())
    run_folder.prepare_folder(before.config)
    training.Writer(before).save_checkpoint()
    after = training.open_for_training(
        TrainConfig(**dict(options, steps=steps, resume=True)), resumes=True
    )
    training.resume(after)
    assert after.best.since == since
    kept = {
        name: value for name, value in vars(before.best).items() if name not in ("model", "since")
    }
    assert kept == {name: getattr(after.best, name) for name in kept}


@pytest.mark.slow
def test_a_stop_file_ends_the_training_with_a_model_and_resuming_goes_on(
    phantom, tmp_path, monkeypatch
):
    options = dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path / "stopped"))
    asked = trainer.train_step

    def ask_at_the_fifth(run):
        if run.step == 4:
            open(run_folder.stop_file(run.config.output), "w").close()
        return asked(run)

    os.makedirs(options["output"])
    # One of an earlier run counts no more.
    open(run_folder.stop_file(options["output"]), "w").close()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", ask_at_the_fifth)
        model = train(TrainConfig(**options))
    assert checkpoint.load(model)["step"] == 5
    assert not os.path.exists(run_folder.stop_file(options["output"]))
    train(TrainConfig(resume=True, **options))
    train(TrainConfig(**dict(options, output=str(tmp_path / "whole"))))
    assert_same_weights(model, tmp_path / "whole" / "model.pt")


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


def test_resume_can_lower_the_learning_rate(phantom, tmp_path, recwarn):
    options = dict(
        TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path), schedule="constant"
    )
    train(TrainConfig(**dict(options, learning_rate=1e-3)))
    train(TrainConfig(**dict(options, steps=9, resume=True, learning_rate=1e-4)))
    with open(tmp_path / "log.csv", newline="") as stream:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(stream)]
    expected = [
        rate * (step + 1) / WARMUP_STEPS for step, rate in enumerate(6 * [1e-3] + 3 * [1e-4])
    ]
    assert rates == pytest.approx(expected, rel=1e-3)
    assert not [entry for entry in recwarn if "lr_scheduler" in str(entry.message)]


def test_resume_refuses_other_settings(tiny_model, phantom):
    before = [(tiny_model / name).read_bytes() for name in ("model.pt", "train.json")]
    options = dict(TINY, tomograms=(phantom["tomogram"],), output=str(tiny_model), resume=True)
    with pytest.raises(UserError, match="--features is 5; expected 8 as in"):
        train(TrainConfig(**dict(options, features=5)))
    with pytest.raises(UserError, match="the tomograms have shapes"):
        train(TrainConfig(**dict(options, tomograms=(phantom["tomogram"], phantom["odd"]))))
    assert [(tiny_model / name).read_bytes() for name in ("model.pt", "train.json")] == before


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
    # 48 x 64 x 72 voxels in patches of 32: 2 x 2 x 3 patches, twice, 4 a step.
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


def test_all_parts_of_a_patch_are_turned_alike():
    """Inputs, targets, weights and truth; here the truth is the tomogram itself."""
    torch.manual_seed(0)
    volume = Memory(torch.randn(24, 32, 32))
    config = TrainConfig(
        perturbation="self2self",
        patch_size=16,
        patch_shift=0,
        samples_per_patch=2,
        augmentation="published",
    )
    perturbation = Self2Self(volume, config)
    region = torch.from_numpy(volume.region((8, 4, 2), (16, 16, 16)))
    unturned = []
    for _ in range(20):
        batch = batch_of(
            [(0, (0, 0, 0)), (0, (8, 4, 2))], [volume], [perturbation], [volume], config
        )
        assert batch.inputs.shape == (4, 1, 16, 16, 16)
        assert torch.equal(batch.targets, batch.truth)
        assert torch.equal(batch.inputs, batch.targets * (1 - batch.weights))
        assert torch.equal(batch.targets[2], batch.targets[3])
        unturned.append(torch.equal(batch.targets[2, 0], region))
    assert any(unturned) and not all(unturned)


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
    "one sentence, exit code 2; the run is kept",
)
def test_a_recorded_run_does_not_allow_to_replace_itself(tiny_model, phantom, tmp_path, capsys):
    run = shutil.copytree(tiny_model, tmp_path / "run")
    recorded = dict(TINY, tomograms=(phantom["tomogram"],), output=str(run), overwrite=True)
    (run / "train.json").write_text(TrainConfig(**recorded).to_json(), encoding="utf-8")
    assert main(["train", phantom["odd"], "--config", str(run / "train.json")]) == 2
    assert "run already holds a training" in capsys.readouterr().err
    assert_same_weights(run / "model.pt", tiny_model / "model.pt")


def test_a_model_without_checkpoints_is_not_resumed(tiny_model, phantom, tmp_path):
    run = shutil.copytree(tiny_model, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="model.pt is there, but no checkpoint to resume from"):
        train(
            TrainConfig(
                **dict(TINY, tomograms=(phantom["tomogram"],), output=str(run), resume=True)
            )
        )
    assert_same_weights(run / "model.pt", tiny_model / "model.pt")


def test_a_training_draws_only_what_its_sampling_mask_allows(phantom, write, tmp_path):
    mask = np.zeros(data(phantom["tomogram"]).shape)
    mask[:16, :16, :8] = 1
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
        # folded network is slow to learn what tells neighbours apart.)
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


def largest_difference(one, other):
    """Of two models' weights."""
    one, other = weights(one), weights(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_training_starts_from_the_initial_model(tiny_model, small, tmp_path):
    """Hardly moved, its weights are those of that model; without, they are far from them."""
    initial = str(tiny_model / "model.pt")
    options = dict(TINY, tomograms=(small["tomogram"],), steps=2, learning_rate=1e-5, seed=1)
    fresh = train(TrainConfig(**dict(options, output=str(tmp_path / "fresh"))))
    started = train(
        TrainConfig(**dict(options, output=str(tmp_path / "started"), initial_model=initial))
    )
    assert 0 < largest_difference(started, initial) < 1e-4
    assert largest_difference(fresh, initial) > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(features=5), "--features is 5; expected 8 as in the initial model "),
        (
            dict(network="published", features=4, patch_size=32),
            "--network is published; expected unshuffled as in the initial model ",
        ),
    ],
)
def test_an_initial_model_with_another_network_is_refused(
    tiny_model, small, tmp_path, options, words
):
    initial = str(tiny_model / "model.pt")
    options = {**TINY, "tomograms": (small["tomogram"],), "initial_model": initial, **options}
    with pytest.raises(UserError) as caught:
        train(TrainConfig(output=str(tmp_path / "run"), **options))
    assert words + initial in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_starts_from_shapes(phantom, tmp_path):
    """Hardly moved, its weights are those that come with F2Fd, which are the default network's."""
    options = dict(
        TINY,
        tomograms=(phantom["tomogram"],),
        steps=2,
        learning_rate=1e-5,
        features=0,
        start="shapes",
    )
    started = train(TrainConfig(output=str(tmp_path / "started"), **options))
    assert 0 < largest_difference(started, PRETRAINED) < 1e-4
    _, config = checkpoint.restore(checkpoint.load(PRETRAINED), PRETRAINED)
    assert (config.network, config.network_features()) == START_NETWORK
    assert (TrainConfig().network, TrainConfig().network_features()) == START_NETWORK


@pytest.mark.slow
def test_what_has_learned_from_shapes_denoises_what_it_never_saw(phantom, tmp_path):
    """A cell, better than the Gaussian filter that suits it best, also where matter is bright: the
    network is inverted for that. Noise alone comes out nearly flat."""
    clean, noisy = (torch.from_numpy(data(phantom[name])) for name in ("clean", "tomogram"))
    noise = noisy - clean
    found = {}
    for name, volume in (("dark", noisy), ("bright", -noisy), ("noise", noise)):
        path = str(tmp_path / (name + ".mrc"))
        mrc.write_volume(path, volume.numpy(), 10.0)
        options = dict(tomograms=(path,), device="cpu", output=str(tmp_path / name))
        model = train(
            TrainConfig(steps=1, learning_rate=1e-9, patch_size=32, start="shapes", **options)
        )
        (result,) = denoise(DenoiseConfig(model=model, **options))
        found[name] = torch.from_numpy(data(result))
    smoothed = max(
        correlation(torch.from_numpy(gaussian(noisy.numpy(), sigma)), clean)
        for sigma in (0.7, 1.0, 1.5, 2.0, 3.0)
    )
    assert correlation(found["dark"], clean) > smoothed + 0.05
    torch.testing.assert_close(-found["bright"], found["dark"], rtol=0, atol=1e-4)
    assert float(found["noise"].std() / noise.std()) < 0.15


@pytest.mark.slow
def test_a_training_that_harms_hands_out_what_it_began_with(phantom, tmp_path, monkeypatch, capsys):
    """The learning rate is far too high: what comes out is what the start had known."""
    monkeypatch.setattr(schedule, "LEARNED_RATE", 100.0)
    options = dict(TINY, tomograms=(phantom["tomogram"],), features=0, start="shapes", steps=8)
    path = train(TrainConfig(output=str(tmp_path), **options))
    said = capsys.readouterr().err
    assert "starting from weights that have learned to denoise simulated tomograms" in said
    assert "did not make the network better" in said
    state = checkpoint.load(path)
    assert state["step"] == 0
    begun = training.open_for_training(TrainConfig(output="unused", **options)).model()
    for name, weight in begun.state_dict().items():
        assert torch.equal(weight, state["model"][name])


def test_noise_taken_for_too_much_is_lowered_where_the_network_shows_it(phantom):
    """A network that turns the sign of half of what is added at high frequencies, and passes half
    elsewhere."""
    config = TrainConfig(**dict(TINY, tomograms=(phantom["tomogram"],), output="unused"))
    run = training.open_for_training(config)
    (perturbation,) = run.perturbations
    before = perturbation.noise.power.clone()
    frequencies = fourier.grid_of((config.patch_size,) * 3).frequencies
    high = frequencies > 0.3
    trainer.lower_noise(run, perturbation, torch.where(high, -0.5, 0.5))
    excess = 1.5 / (1 - 0.5 * perturbation.scale**2)
    radius = fourier.radial_frequency(perturbation.noise.window)
    there = before > 0
    ratio, radius = perturbation.noise.power[there] / before[there], radius[there]
    torch.testing.assert_close(
        ratio[radius > 0.4], torch.full_like(ratio, 1 / excess)[radius > 0.4], rtol=1e-4, atol=0
    )
    torch.testing.assert_close(ratio[radius < 0.2], torch.ones_like(ratio)[radius < 0.2])
    # It is part of the state, and lowering is not done twice.
    other = training.open_for_training(config).perturbations[0]
    other.load_state_dict(perturbation.state_dict())
    torch.testing.assert_close(other.noise.power, perturbation.noise.power)


def test_resuming_goes_on_from_the_checkpoint_not_from_the_initial_model(
    tiny_model, small, tmp_path
):
    options = dict(TINY, tomograms=(small["tomogram"],), seed=1, schedule="constant")
    whole = train(TrainConfig(output=str(tmp_path / "whole"), **options))
    parts = tmp_path / "parts"
    train(TrainConfig(**dict(options, output=str(parts), steps=3)))
    resumed = train(
        TrainConfig(
            output=str(parts), resume=True, initial_model=str(tiny_model / "model.pt"), **options
        )
    )
    assert_same_weights(resumed, whole)


def test_a_run_can_be_replaced_by_one_that_starts_from_it(small, tmp_path):
    """And a bad initial model is found before the earlier run is removed."""
    options = dict(TINY, tomograms=(small["tomogram"],), output=str(tmp_path / "run"), steps=2)
    first = train(TrainConfig(**options))
    kept = shutil.copyfile(first, tmp_path / "first.pt")
    options.update(overwrite=True, learning_rate=1e-5)
    with pytest.raises(UserError, match="gone.pt does not exist"):
        train(TrainConfig(initial_model=str(tmp_path / "gone.pt"), **options))
    assert_same_weights(first, kept)
    assert 0 < largest_difference(train(TrainConfig(initial_model=first, **options)), kept) < 1e-4


def test_plateau_divides_the_rate_and_patience_stops():
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = Schedule(optimizer, TrainConfig(schedule="plateau", stop_patience=15), 1000)
    rates = []
    for epoch in range(16):
        schedule.after_step(1.0 if epoch else 2.0, epoch_ended=True)
        rates.append(optimizer.param_groups[0]["lr"])
    # Best at the second epoch, then ten flat ones are waited for.
    assert rates[11] == pytest.approx(1e-3) and rates[12] == pytest.approx(1e-4)
    assert not schedule.stops()
    schedule.after_step(1.0, epoch_ended=True)
    assert schedule.stops()


def test_gradients_are_clipped_and_never_for_the_published_method(phantom, tmp_path):
    """A clip of almost nothing leaves the steps, which are scale-free, but not the optimizer's
    memory of the gradients."""
    norms = {}
    for clip in (0.0, 1e-3):
        folder = tmp_path / str(clip)
        train(
            TrainConfig(
                **dict(
                    TINY,
                    tomograms=(phantom["tomogram"],),
                    output=str(folder),
                    steps=1,
                    gradient_clip=clip,
                )
            )
        )
        state = checkpoint.load(str(folder / "checkpoints" / "step_00000001.pt"))["optimizer"]
        # After one step the mean is (1 - 0.9) times the gradient.
        norms[clip] = float(
            sum(
                (10 * moment["momentum"]).square().sum() for moment in state["state"].values()
            ).sqrt()
        )
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert norms[0.0] > 2e-3
    assert TrainConfig.create({"preset": "published"}).gradient_clip == 0


def rates_of(haste=1.0, **options):
    """Learning rates of 2000 steps, each over the one that is asked for."""
    config = TrainConfig(steps=2000, learning_rate=1e-3, **options)
    optimizer = torch.optim.Adam(torch.nn.Linear(1, 1).parameters(), lr=config.learning_rate)
    schedule = Schedule(optimizer, config, config.steps, haste)
    rates = []
    for _ in range(config.steps):
        rates.append(optimizer.param_groups[0]["lr"] / config.learning_rate)
        optimizer.step()
        schedule.after_step(1.0, epoch_ended=False)
    return np.array(rates)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [("constant", 1, 1), ("cosine", 1, 0), ("settling", FIRST_RATE, 1)],
)
def test_a_schedule_warms_up_and_then_never_rises(schedule, first, last):
    rates = rates_of(schedule=schedule, start="random")
    assert 0 < rates[0] < 0.2 * first
    assert rates.max() == pytest.approx(first, rel=0.1)
    assert np.argmax(rates) == WARMUP_STEPS - 1 and np.all(np.diff(rates[WARMUP_STEPS:]) <= 0)
    assert rates[-1] == pytest.approx(last, abs=1e-3)


def test_a_start_as_fast_as_the_noise_is_enough_for():
    highest = [
        rates_of(haste, schedule="settling", start="random").max() for haste in (0.0, 0.5, 1.0)
    ]
    assert highest[0] == 1 and highest[1] == pytest.approx((highest[0] + highest[2]) / 2)


def test_a_small_tomogram_is_not_learned_in_haste(tiny_model):
    with open(str(tiny_model / "log.csv"), newline="") as stream:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(stream)]
    rate = TrainConfig().learning_rate
    assert rates == pytest.approx([rate * (step + 1) / WARMUP_STEPS for step in range(len(rates))])


@pytest.mark.parametrize("options", [dict(initial_model="model.pt"), dict(start="shapes")])
def test_what_a_network_knows_is_not_lost_in_a_fast_start(options):
    """From weights that have learned before, the rate is lower throughout."""
    onwards = rates_of(schedule="settling", **options)
    np.testing.assert_allclose(onwards, LEARNED_RATE * rates_of(schedule="constant"), rtol=1e-5)
    # More epochs overfit a small tomogram: with them the rate falls.
    falling = course(TrainConfig(schedule="settling", **options), 100, 1.0, epoch=4)
    assert falling(HALVING_EPOCHS * 4) == pytest.approx(LEARNED_RATE / 2)
    assert falling(9 * HALVING_EPOCHS * 4) == pytest.approx(LEARNED_RATE / 10)
    assert np.all(onwards < rates_of(0.0, schedule="settling", start="random"))


def test_the_bar_the_device_and_the_noise_scale_are_announced(phantom, tmp_path, capsys):
    train(TrainConfig(**dict(TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path / "a"))))
    told = capsys.readouterr().err
    assert "f2fd: noise scale: 1.00\n" in told  # so small a tomogram
    assert "training on CPU" in told and "warning: no GPU is used" in told
    assert "6/6" in told


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


def test_resuming_needs_no_initial_model(tiny_model, small, tmp_path):
    """It may be gone: all that it knew is in the checkpoint, and the rate is as it was."""
    initial = shutil.copyfile(tiny_model / "model.pt", tmp_path / "initial.pt")
    options = dict(TINY, tomograms=(small["tomogram"],), initial_model=str(initial))
    whole = train(TrainConfig(output=str(tmp_path / "whole"), **options))
    parts = tmp_path / "parts"
    train(TrainConfig(**dict(options, output=str(parts), steps=3)))
    os.remove(initial)
    assert_same_weights(train(TrainConfig(output=str(parts), resume=True, **options)), whole)
    with pytest.raises(UserError, match="initial.pt does not exist"):
        train(TrainConfig(output=str(tmp_path / "new"), resume=True, **options))


def test_too_little_gpu_memory_for_a_step_is_reported(small, tmp_path, monkeypatch):
    def take_step(run):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "train_step", take_step)
    with pytest.raises(
        UserError,
        match="for a step of 6 patches of 16 voxels; expected a smaller "
        "--batch-size, --samples-per-patch or --patch-size",
    ):
        train(
            TrainConfig(
                **dict(
                    TINY, tomograms=(small["tomogram"],), output=str(tmp_path), samples_per_patch=3
                )
            )
        )
