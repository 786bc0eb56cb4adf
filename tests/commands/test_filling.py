import os
import re
import shutil

import mrcfile
import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_weights, data

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.commands import info
from f2fd_core.commands import train as training
from f2fd_core.data.volume import Volume
from f2fd_core.filters import wedge
from f2fd_core.network import checkpoint
from f2fd_core.runtime import run_folder
from f2fd_core.training import trainer

pytestmark = pytest.mark.slow


UNFIT_TO_FILL = pytest.mark.reliability(
    "a wedge filled by a model that has not learned it, or where there is none", "one sentence"
)


def config_of(phantom, folder, **options):
    return TrainConfig(
        tomograms=(phantom["tomogram"],), output=str(folder), fill_wedge=True, **{**TINY, **options}
    )


def fill(model, tomogram, output, **options):
    options = {"device": "cpu", "tile_size": 32, "fill_wedge": True, **options}
    denoise(
        DenoiseConfig(model=str(model), tomograms=(str(tomogram),), output=str(output), **options)
    )
    name = str(output) + "/tomogram_{}.mrc"
    return name.format("denoised"), name.format("filled")


def test_what_was_measured_is_that_of_the_denoised_tomogram(filler, phantom, tmp_path):
    denoised, filled = fill(filler / "model.pt", phantom["tomogram"], tmp_path)
    tilt_range = wedge.tilt_range_of(Volume(phantom["tomogram"]))
    change = torch.from_numpy(data(filled) - data(denoised))
    chosen = wedge.measured(40, 72, tilt_range)
    scale = float(np.std(data(denoised)))
    assert float(wedge.part(change, chosen).abs().max()) < 1e-4 * scale
    assert float(change.std()) > 1e-3 * scale
    with mrcfile.open(filled, header_only=True) as mrc, mrcfile.open(
        denoised, header_only=True
    ) as other:
        assert any(b"filled with predictions" in label for label in mrc.header.label)
        assert mrc.voxel_size == other.voxel_size and mrc.header.origin == other.header.origin


def test_the_denoised_tomogram_is_the_same_with_and_without(filler, phantom, tmp_path):
    first, _ = fill(filler / "model.pt", phantom["tomogram"], tmp_path / "with")
    second, filled = fill(
        filler / "model.pt", phantom["tomogram"], tmp_path / "without", fill_wedge=False
    )
    assert np.array_equal(data(first), data(second))
    assert not (tmp_path / "without" / "tomogram_filled.mrc").exists()


def test_stored_in_bytes_it_is_what_it_is_in_floats(filler, phantom, tmp_path):
    _, filled = fill(filler / "model.pt", phantom["tomogram"], tmp_path / "float32")
    _, stored = fill(filler / "model.pt", phantom["tomogram"], tmp_path / "int8", dtype="int8")
    with mrcfile.open(stored) as mrc:
        (words,) = (bytes(label).decode() for label in mrc.header.label if b"value =" in label)
        offset, step = (float(number) for number in re.findall(r"-?\d\S*(?= \+| \*)", words))
        values = offset + step * mrc.data.astype(np.float32)
    expected = data(filled)
    inside = np.abs(expected - offset) < 126 * step
    assert inside.mean() > 0.99
    np.testing.assert_allclose(values[inside], expected[inside], atol=0.6 * step)


def test_a_tomogram_that_lies_otherwise(filler, phantom, tmp_path, write):
    """With the tilt axis along X, the result is that with the axis along Y, turned."""
    _, usual = fill(filler / "model.pt", phantom["tomogram"], tmp_path / "usual")
    other = write(np.swapaxes(data(phantom["tomogram"]), 1, 2), "tomogram.mrc")
    _, turned = fill(filler / "model.pt", other, tmp_path / "turned")
    expected = np.swapaxes(data(usual), 1, 2)
    assert np.corrcoef(expected.ravel(), data(turned).ravel())[0, 1] > 0.99


def test_a_region_and_a_stated_angle(filler, phantom, tmp_path):
    denoised, filled = fill(
        filler / "model.pt",
        phantom["tomogram"],
        tmp_path,
        region=(0, 8, 16, 40, 40, 48),
        tilt_range=50.0,
    )
    change = torch.from_numpy(data(filled) - data(denoised))
    assert change.shape == (40, 40, 48)
    left_out = ~wedge.measured(40, 48, (-50, 50))
    torch.testing.assert_close(
        wedge.part(change, left_out), change, atol=1e-4 * float(np.std(data(denoised))), rtol=0
    )


def test_a_finished_one_is_skipped_and_a_missing_one_made(filler, phantom, tmp_path, capsys):
    denoised, filled = fill(filler / "model.pt", phantom["tomogram"], tmp_path, fill_wedge=False)
    _, filled = fill(filler / "model.pt", phantom["tomogram"], tmp_path, resume=True)
    before = data(filled)
    fill(filler / "model.pt", phantom["tomogram"], tmp_path, resume=True)
    assert "is finished: skipped" in capsys.readouterr().err
    assert np.array_equal(before, data(filled))
    with pytest.raises(UserError, match="exists already"):
        fill(filler / "model.pt", phantom["tomogram"], tmp_path)


@pytest.mark.reliability("a training to fill the missing wedge, killed and resumed", "the same")
@pytest.mark.parametrize("round_number", [1, 2])
def test_resumed_it_is_the_same(round_number, filler, phantom, tmp_path, monkeypatch):
    started = []

    def stopped(self, row, seconds):
        after_step(self, row, seconds)
        if "wedge" in self.folder and len(started) == round_number and self.training.step == 4:
            raise KeyboardInterrupt

    def counted(self, training):
        if "wedge" in training.config.output:
            started.append(training)
        begin(self, training)

    begin, after_step = training.Writer.__init__, training.Writer.after_step
    with monkeypatch.context() as patched:
        patched.setattr(training.Writer, "after_step", stopped)
        patched.setattr(training.Writer, "__init__", counted)
        with pytest.raises(KeyboardInterrupt):
            train(config_of(phantom, tmp_path, checkpoint_every=3))
    assert checkpoint.FILLER not in checkpoint.load(str(tmp_path / "model.pt"))
    train(config_of(phantom, tmp_path, checkpoint_every=3, resume=True))
    one, other = (str(folder / "model.pt") for folder in (filler, tmp_path))
    assert_same_weights(one, other)
    assert_same_weights(one, other, checkpoint.FILLER)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_stop_file_ends_all_that_is_left(
    number, filler, phantom, tmp_path, monkeypatch, capsys
):
    """The training itself (0) or a round; resumed, it is as if nothing had ended it."""
    folder = str(tmp_path / "run")
    places = [folder, *(run_folder.wedge_folder(folder, each) for each in (1, 2))]
    take_step = trainer.train_step

    def ask_at_the_third(run):
        if run.config.output == places[number] and run.step == 2:
            open(run_folder.stop_file(folder), "w").close()
        return take_step(run)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "train_step", ask_at_the_third)
        model = train(config_of(phantom, folder))
    steps = [
        checkpoint.newest(checkpoint.folder_in(place), print)[1]["step"]
        for place in places
        if os.path.exists(place)
    ]
    assert steps == [6] * number + [3]
    state, said = checkpoint.load(model), capsys.readouterr().err
    assert not os.path.exists(run_folder.stop_file(folder))
    if number:
        last = checkpoint.load(run_folder.model_in(places[number]))["model"]
        assert all(torch.equal(weight, last[name]) for name, weight in state["filler"].items())
        assert "can fill the missing wedge" in said
    else:
        assert checkpoint.FILLER not in state
        assert "can't fill the missing wedge: the training was ended before" in said
    train(config_of(phantom, folder, resume=True))
    assert_same_weights(filler / "model.pt", model)
    assert_same_weights(filler / "model.pt", model, checkpoint.FILLER)


def test_a_finished_training_learns_it_later(tiny_model, phantom, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "run")
    model = str(tmp_path / "run" / "model.pt")
    train(config_of(phantom, tmp_path / "run", checkpoint_every=3, resume=True))
    assert info.describe_model(model)["fills_wedge"]
    assert_same_weights(tiny_model / "model.pt", model)


@UNFIT_TO_FILL
def test_other_models_are_refused(tiny_model, phantom, tmp_path):
    with pytest.raises(UserError, match="has not learned to fill .* trained with --fill-wedge"):
        fill(tiny_model / "model.pt", phantom["tomogram"], tmp_path)
    assert not list(tmp_path.iterdir())


@UNFIT_TO_FILL
def test_a_tomogram_without_a_wedge_is_refused_before_the_training(write, tmp_path):
    noise = np.random.default_rng(0).normal(size=(48, 48, 56))
    config = TrainConfig(
        tomograms=(write(noise),), output=str(tmp_path / "run"), fill_wedge=True, **TINY
    )
    with pytest.raises(UserError, match="no missing wedge; .*--tilt-range"):
        train(config)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_half_maps_are_not_filled(filler, phantom, tmp_path):
    """What one model invents in both would pass for signal between them."""
    denoise(
        DenoiseConfig(
            model=str(filler / "model.pt"),
            half_maps=(phantom["odd"], phantom["even"]),
            output=str(tmp_path),
            device="cpu",
            tile_size=32,
            fill_wedge=True,
            denoise_halves=True,
        )
    )
    made = sorted(path.name for path in tmp_path.rglob("*.mrc"))
    assert made == ["even_denoised.mrc", "odd_denoised.mrc", "odd_denoised.mrc", "odd_filled.mrc"]


def test_another_angle_is_another_result(filler, phantom, tmp_path):
    fill(filler / "model.pt", phantom["tomogram"], tmp_path, tilt_range=60.0)
    with pytest.raises(UserError, match="was made of other settings"):
        fill(filler / "model.pt", phantom["tomogram"], tmp_path, tilt_range=50.0, resume=True)


@pytest.mark.reliability(
    "a model whose second network is another one, or not finite", "damaged, in one sentence"
)
@pytest.mark.parametrize("damage", ["missing", "infinite", "shape"])
def test_damaged_second_networks_are_refused(damage, filler, phantom, tmp_path):
    state = checkpoint.load(str(filler / "model.pt"))
    second = dict(state[checkpoint.FILLER])
    name = next(name for name, weight in second.items() if weight.ndim > 1)
    if damage == "missing":
        del second[name]
    else:
        second[name] = second[name] * float("inf") if damage == "infinite" else second[name][:1]
    path = str(tmp_path / "model.pt")
    checkpoint.save(
        path,
        state["model"],
        TrainConfig.create(state["config"]),
        state["step"],
        state["voxel_size"],
        **{checkpoint.FILLER: second},
    )
    with pytest.raises(UserError, match="is damaged"):
        fill(path, phantom["tomogram"], tmp_path / "out")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"perturbation": "fourier_masks"}, "--perturbation fourier_masks"),
        ({"rescale": True}, "--rescale"),
    ],
)
def test_what_it_does_not_go_with(options, words, phantom, tmp_path):
    with pytest.raises(UserError, match=f"--fill-wedge is given with {words}"):
        config_of(phantom, tmp_path, **options)
