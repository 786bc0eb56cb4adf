"""Trainings that go on from a checkpoint."""

import csv
import os
import shutil

import pytest
from conftest import TINY, assert_same_weights

from f2fd_core import TrainConfig, UserError, train
from f2fd_core.commands import train as training
from f2fd_core.network import checkpoint
from f2fd_core.runtime import figures, run_folder
from f2fd_core.training import trainer, writer
from f2fd_core.training.schedule import WARMUP_STEPS


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
