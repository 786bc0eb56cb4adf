"""Extreme tomograms and trainings that diverge: everything stays finite, or is reported."""

import os
import weakref

import mrcfile
import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_weights, data, weights
from scipy import ndimage

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.commands import train as training
from f2fd_core.data import mrc
from f2fd_core.network import checkpoint
from f2fd_core.runtime import distributed, train_log
from f2fd_core.training import trainer
from f2fd_core.training.schedule import WARMUP_STEPS

TOLERANCE = 2e-3
"""Of equivariance, in standard deviations of the result, in float32."""
POISONED_AT = 4


NOT_FINITE = pytest.mark.reliability(
    "weights that become NaN in the middle of a training",
    "back to the newest checkpoint, at a lower rate",
)


def beads(values, rng):
    """Gold beads: a few balls a hundred times darker than anything else, and hot voxels."""
    z, y, x = np.mgrid[tuple(slice(side) for side in values.shape)]
    for centre in rng.uniform(4, 20, (3, 3)):
        values[sum((axis - at) ** 2 for axis, at in zip((z, y, x), centre)) < 9] = -100
    values.ravel()[rng.integers(0, values.size, 20)] = 10**5
    return values


def constant_sections(values, rng):
    values[:8] = values[0, 0, 0]
    values[:, :, -5:] = 0
    return values


def padded(values, rng):
    """As a reconstruction is that was turned about X within zeros."""
    turned = ndimage.rotate(values, 20, axes=(0, 1), order=1, cval=np.nan)
    return np.nan_to_num(turned, nan=0.0)


EXTREMES = {
    "1e-30": lambda values, rng: values * 1e-30,
    "1e30": lambda values, rng: values * 1e30,
    "large offset": lambda values, rng: values + 1e4,
    "beads": beads,
    "constant sections": constant_sections,
    "padded": padded,
    "float16": lambda values, rng: (values * 1e4).astype(np.float16),
    "small float16": lambda values, rng: (values * 1e-5).astype(np.float16),
    "int8": lambda values, rng: np.clip(values * 30, -128, 127).astype(np.int8),
    "two values": lambda values, rng: np.sign(values).astype(np.int8),
    "one voxel": lambda values, rng: (np.arange(values.size).reshape(values.shape) == 9999).astype(
        np.float32
    ),
}
DRAWN = ("1e-30", "1e30", "beads", "constant sections", "one voxel")
"""Those of which pictures are drawn, too, since their grey values are out of the ordinary."""


@pytest.mark.slow
@pytest.mark.reliability(
    "tomograms scaled by 1e-30 and 1e30, with beads, hot voxels, constant sections, of two values",
    "a finite result in the tomogram's range",
)
@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        pytest.param(kind, "float32", marks=[pytest.mark.pictures] if kind in DRAWN else [])
        for kind in EXTREMES
    ]
    + [(kind, "bfloat16") for kind in ("1e-30", "beads", "one voxel")],
)
def test_extreme_tomograms_stay_finite(kind, precision, small, tmp_path):
    values = EXTREMES[kind](data(small["tomogram"]), np.random.default_rng(0))
    path = str(tmp_path / "extreme.mrc")
    with mrcfile.new(path) as stream:
        stream.set_data(values)
        stream.voxel_size = 10
    # Patches of 32: in smaller ones, bfloat16 gradients on CPUs are NaN now and then.
    model = train(
        TrainConfig(
            **dict(
                TINY,
                tomograms=(path,),
                output=str(tmp_path / "run"),
                steps=4,
                precision=precision,
                patch_size=32,
                batch_size=1,
            )
        )
    )
    rows = train_log.read_log(str(tmp_path / "run" / "log.csv"))
    assert len(rows) == 4 and np.isfinite([float(row["loss"]) for row in rows]).all()
    (result,) = denoise(
        DenoiseConfig(
            model=model,
            tomograms=(path,),
            output=str(tmp_path / "out"),
            precision=precision,
            std=True,
            predictions=2,
        )
    )
    values = values.astype(np.float64)
    clean, spread = (
        data(name).astype(np.float64) for name in (result, result.replace("denoised", "std"))
    )
    assert np.isfinite(clean).all() and clean.std() > 0
    assert np.isfinite(spread).all() and spread.min() >= 0
    reach = values.max() - values.min()
    assert values.min() - reach < clean.min() < clean.max() < values.max() + reach


@pytest.mark.slow
@pytest.mark.reliability(
    "denoising a tomogram scaled and shifted", "the result scaled and shifted; contrast never flips"
)
@pytest.mark.parametrize(("scale", "shift"), [(1e-30, 0), (1e30, 0), (250, 40), (3, -3000)])
def test_denoising_is_equivariant(scale, shift, quick_denoise, small, write, tmp_path):
    values = data(small["tomogram"]).astype(np.float64)
    plain = data(quick_denoise(write(values, "a.mrc"), tmp_path / "a", precision="float32"))
    other = data(
        quick_denoise(write(values * scale + shift, "b.mrc"), tmp_path / "b", precision="float32")
    )
    np.testing.assert_allclose(
        (other.astype(np.float64) - shift) / scale,
        plain,
        atol=TOLERANCE * plain.std() + 2 * np.spacing(np.float32(abs(shift))) / scale,
    )


def poisoning(left):
    """train_step with weights that become NaN at a step, as often as the list ``left`` has
    entries."""
    step = trainer.train_step

    def poisoned_step(run):
        row = step(run)
        if run.step == POISONED_AT and left:
            left.pop()
            with torch.no_grad():
                next(run.network.parameters()).fill_(float("nan"))
        return row

    return poisoned_step


@pytest.fixture
def poisoned(monkeypatch):
    """The list by which :func:`poisoning` is done."""
    left = []
    monkeypatch.setattr(trainer, "train_step", poisoning(left))
    return left


def train_poisoned(config):
    """In a process of its own: poisoned once, if it is the second of two."""
    trainer.train_step = poisoning([True] * int(os.environ["RANK"]))
    train(config)


@pytest.fixture
def opened(monkeypatch):
    """How many trainings there were whenever one was opened."""
    existing, counts = weakref.WeakSet(), []
    before = training.open_for_training

    def open_for_training(*arguments):
        counts.append(len(existing))
        made = before(*arguments)
        existing.add(made)
        return made

    monkeypatch.setattr(training, "open_for_training", open_for_training)
    return counts


def settings(small, output, **options):
    return dict(
        dict(
            TINY,
            checkpoint_every=3,
            steps=9,
            tomograms=(small["tomogram"],),
            output=str(output),
            schedule="constant",
            averaging=0.0,
        ),
        **options,
    )


@pytest.mark.slow
@NOT_FINITE
@pytest.mark.parametrize(("schedule", "times"), [("constant", 3), ("plateau", 1)])
def test_a_training_steps_back(times, schedule, small, tmp_path, poisoned, opened, capsys):
    options = settings(small, tmp_path / "run", schedule=schedule, learning_rate=1e-3)
    poisoned[:] = [True] * times
    model = train(TrainConfig(**options))
    said = [line for line in capsys.readouterr().err.splitlines() if "going back" in line]
    assert len(said) == times and not poisoned
    assert opened == [0] * (times + 1)  # there may be no room for two
    assert "the loss became nan at step 5" in said[0]
    assert all(torch.isfinite(weight).all() for weight in weights(model).values())
    rows = train_log.read_log(str(tmp_path / "run" / "log.csv"))
    assert [int(row["step"]) for row in rows] == list(range(9))
    slow = training.SETBACK_RATE**times
    warmth = [(step + 1) / WARMUP_STEPS if schedule == "constant" else 1 for step in range(9)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(
        [1e-3 * warm * (1 if step < 3 else slow) for step, warm in enumerate(warmth)], rel=1e-4
    )
    # What is resumed later keeps the lower rate: from step 6 on it is the same, bit for bit.
    again = tmp_path / "again"
    (again / "checkpoints").mkdir(parents=True)
    source = checkpoint.path_of(str(tmp_path / "run" / "checkpoints"), 6)
    (again / "checkpoints" / "step_00000006.pt").write_bytes(open(source, "rb").read())
    resumed = train(TrainConfig(**dict(options, output=str(again), resume=True)))
    assert_same_weights(resumed, model)


@pytest.mark.slow
@NOT_FINITE
def test_processes_step_back_together(small, tmp_path, capfd):
    options = settings(small, tmp_path / "run", device="cpu,cpu", threads=1)
    distributed.start(train_poisoned, TrainConfig(**options), 2)
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "going back" in line]
    assert "the loss became nan at step 5" in said
    rows = train_log.read_log(str(tmp_path / "run" / "log.csv"))
    assert [int(row["step"]) for row in rows] == list(range(9))
    rates = [float(row["learning_rate"]) for row in rows]
    slow = [rate / warm for rate, warm in zip(rates, range(1, 10))]
    assert slow[:3] == pytest.approx([slow[0]] * 3, rel=1e-4)
    assert slow[3:] == pytest.approx([slow[0] * training.SETBACK_RATE] * 6, rel=1e-4)
    _, state = checkpoint.newest(str(tmp_path / "run" / "checkpoints"), pytest.fail)
    assert state["step"] == 9 and state["setbacks"] == 1
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())


@pytest.mark.slow
@pytest.mark.reliability(
    "a training that diverges again and again", "one sentence; the newest checkpoint is good"
)
def test_a_training_gives_up(small, tmp_path, poisoned, capsys):
    poisoned[:] = [True] * 99
    with pytest.raises(UserError, match="the loss became nan at step 5, after 3 lower learning"):
        train(TrainConfig(**settings(small, tmp_path / "run")))
    assert len(poisoned) == 95
    path, state = checkpoint.newest(str(tmp_path / "run" / "checkpoints"), pytest.fail)
    checkpoint.restore(state, path)
    assert state["step"] == 3
    assert not (tmp_path / "run" / "model.pt").exists()


def test_weights_that_are_not_finite_are_never_saved(small, tmp_path, poisoned):
    """Poisoned in the last step before a checkpoint, where no loss shows it."""
    options = settings(
        small, tmp_path / "run", checkpoint_every=POISONED_AT + 1, steps=POISONED_AT + 1
    )
    poisoned.append(True)
    model = train(TrainConfig(**options))
    assert all(torch.isfinite(weight).all() for weight in weights(model).values())


def test_a_result_beyond_float32_is_refused_and_nothing_written(
    quick_denoise, small, write, tmp_path
):
    """3e38 fits into the file, but not what the network makes of it."""
    values = data(small["tomogram"]).astype(np.float64)
    path = write(values / np.abs(values).max() * 3.4e38, "large.mrc")
    try:
        result = quick_denoise(path, tmp_path / "out")
    except UserError as error:
        assert "NaN or infinite" in str(error)
        assert not list((tmp_path / "out").glob("*.mrc"))
    else:
        assert np.isfinite(mrc.open_volume(result).data).all()
