"""Half-maps from the files to the denoised tomogram; the pairs are in test_perturbation.py."""

import csv
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, data, whole

from f2fd_core import BenchmarkConfig, TrainConfig, UserError, cli, evaluate, train
from f2fd_core.benchmarking.cases import simulated_case
from f2fd_core.commands.denoise import denoise
from f2fd_core.commands.inputs import open_volumes
from f2fd_core.config import DenoiseConfig, EvaluateConfig, SimulateConfig, tta_flips
from f2fd_core.data import mrc
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.volume import Volume
from f2fd_core.network import checkpoint
from f2fd_core.simulation.microscope import simulate_volumes


@pytest.fixture
def halves(write):
    """Paths of half-maps whose means and standard deviations differ."""
    rng = np.random.default_rng(0)
    return (
        write(rng.normal(5, 2, (16, 20, 24)), "odd.mrc"),
        write(rng.normal(-3, 4, (16, 20, 24)), "even.mrc"),
    )


def test_both_halves_are_on_one_scale(halves):
    """Each is centred; the ratio of their contrasts stays."""
    volume = HalfMaps([Volume(path, clip=False) for path in halves])
    whole = (0, 0, 0), volume.shape
    for number, path in enumerate(halves):
        values = data(path).astype(float)
        half = volume.half(number, *whole)
        assert half.mean() == pytest.approx(0, abs=1e-5)
        np.testing.assert_allclose(half, (values - values.mean()) / volume.std, atol=1e-5)
    assert volume.half(1, *whole).std() / volume.half(0, *whole).std() == pytest.approx(2, rel=0.05)


def test_restored_mean_of_the_halves_is_the_mean_of_the_files(halves):
    volume = HalfMaps([Volume(path, clip=False) for path in halves])
    mean = (data(halves[0]) + data(halves[1])) / 2
    np.testing.assert_allclose(volume.destandardise(whole(volume)), mean, atol=1e-5)
    start, size = (-2, 3, 15), (8, 9, 12)
    parts = [volume.half(number, start, size) for number in (0, 1)]
    np.testing.assert_allclose(volume.region(start, size), np.mean(parts, 0), atol=1e-6)
    reflected = np.pad(mean, 12, mode="reflect")[10:18, 15:24, 27:39]
    np.testing.assert_allclose(
        volume.destandardise(volume.region(start, size), start), reflected, atol=1e-5
    )
    for section, axis in zip(volume.central_sections(), range(3)):
        np.testing.assert_allclose(section, mean.take(mean.shape[axis] // 2, axis), atol=1e-5)


@pytest.mark.parametrize("voxel_size", [10.0, 8.0])
def test_the_mean_alone_is_like_a_tomogram_of_all(halves, write, voxel_size):
    """It is standardised and rescaled as that is."""
    mean = (data(halves[0]) + data(halves[1])) / 2
    both = HalfMaps([Volume(path, clip=False) for path in halves], "TS_1.mrc")
    whole = Volume(write(mean, "mean.mrc"), clip=False)
    if voxel_size != both.voxel_size:
        both, whole = both.rescaled(voxel_size), whole.rescaled(voxel_size)
    alone = both.alone()
    assert not isinstance(alone, HalfMaps) and alone.source.path == "TS_1.mrc"
    assert alone.voxel_size == voxel_size and alone.shape == whole.shape
    place = (-2, 3, 5), (8, 9, 12)
    values = whole.region(*place)
    np.testing.assert_allclose(alone.region(*place), values, atol=1e-4)
    np.testing.assert_allclose(
        alone.destandardise(values, place[0]), whole.destandardise(values, place[0]), atol=1e-3
    )
    for section, other in zip(alone.central_sections(), whole.central_sections()):
        np.testing.assert_allclose(section, other, atol=1e-3)


def test_halves_that_do_not_belong_together_are_refused(halves, write, tmp_path):
    other = write(np.random.default_rng(1).normal(size=(16, 20, 25)), "other.mrc")
    with pytest.raises(
        UserError,
        match=r"odd.mrc and .*other.mrc have shapes \(16, 20, 24\) and "
        r"\(16, 20, 25\)",
    ):
        HalfMaps([Volume(halves[0]), Volume(other)])
    link = str(tmp_path / "link.mrc")
    os.symlink(halves[0], link)
    for same in (halves[0], link):
        with pytest.raises(UserError, match="odd.mrc is given as both half-maps"):
            HalfMaps([Volume(halves[0]), Volume(same)])


@pytest.fixture(scope="module")
def tomograms():
    """Two simulated tomograms with their half-maps, {name: (Z, Y, X)} each."""
    return [
        simulate_volumes(SimulateConfig(shape=(32, 64, 64), snr=0.3, seed=seed)) for seed in (5, 6)
    ]


WRONG = {
    "another tomogram's": (lambda one, two: two["even"], "have no signal in common"),
    "a rescaled copy": (lambda one, two: 2 * one["odd"] + 1, "are the same but for their scale"),
    "the negative": (lambda one, two: -one["even"], "have opposite contrast"),
    "shifted": (
        lambda one, two: np.roll(one["even"], 8, 1),
        r"are 0, 8 and 0 voxels \(Z, Y, X\) apart",
    ),
    "the whole tomogram": (
        lambda one, two: one["tomogram"],
        r"have \d+ % of their noise in common",
    ),
    "of the same frames": (
        lambda one, two: 0.7 * one["odd"] + 0.3 * one["even"],
        r"have \d+ % of their noise in common",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_other_half_map_is_refused(kind, tomograms, write):
    make, expected = WRONG[kind]
    paths = write(tomograms[0]["odd"], "odd.mrc"), write(make(*tomograms), "other.mrc")
    with pytest.raises(UserError, match=f"odd.mrc and .*other.mrc {expected}; expected"):
        open_volumes(TrainConfig(half_maps=paths))


def test_all_odd_half_maps_before_all_even_ones_are_refused(tomograms, write):
    paths = [
        write(tomogram[name], f"{name}{number}.mrc")
        for name in ("odd", "even")
        for number, tomogram in enumerate(tomograms)
    ]
    with pytest.raises(
        UserError,
        match="0.mrc and .*1.mrc have no signal in common; expected "
        "both of one tomogram, one after the other",
    ):
        open_volumes(TrainConfig(half_maps=tuple(paths)))


@pytest.mark.slow
def test_tomograms_in_another_order_than_their_half_maps_are_refused(
    matched, tomograms, write, tmp_path
):
    """Denoised, they would be called by each other's names."""
    wholes = [
        write(tomogram["tomogram"], f"{number}.mrc") for number, tomogram in enumerate(tomograms)
    ]
    halves = [
        write(tomogram[name], f"{name}{number}.mrc")
        for number, tomogram in enumerate(tomograms)
        for name in ("odd", "even")
    ]
    assert open_volumes(TrainConfig(tomograms=tuple(wholes), half_maps=tuple(halves)))
    with pytest.raises(
        UserError,
        match="1.mrc and the mean of its half-maps .*odd0.mrc and "
        ".*even0.mrc have no signal in common; expected",
    ):
        denoise(
            DenoiseConfig(
                model=str(matched),
                tomograms=tuple(wholes[::-1]),
                half_maps=tuple(halves),
                output=str(tmp_path / "out"),
            )
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"whole.mrc has shape .*; expected \(32, 64, 64\)"):
        open_volumes(
            TrainConfig(
                tomograms=(write(tomograms[0]["tomogram"][1:], "whole.mrc"),),
                half_maps=tuple(halves[:2]),
            )
        )


OF_TILTS = dict(half_maps="tilts")
OF_FEW_TILTS = dict(half_maps="tilts", thickness=80, tilt_range=(-50.0, 65.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "snr"),
    (
        (OF_TILTS, 0.02),
        (OF_TILTS, 10),
        (OF_FEW_TILTS, 0.02),
        (OF_FEW_TILTS, 0.3),
        (OF_FEW_TILTS, 10),
        (dict(specimen="crowded"), 0.3),
        (dict(specimen="empty"), 0.02),
        (dict(sirt_iterations=10), 10),
        (dict(reconstruction="insertion"), 0.3),
    ),
)
def test_right_half_maps_are_taken_without_a_word(change, snr, write, capsys):
    volumes = simulate_volumes(SimulateConfig(shape=(32, 64, 64), snr=snr, seed=3, **change))
    paths = [write(volumes[name], name + ".mrc") for name in ("odd", "even", "tomogram")]
    open_volumes(TrainConfig(half_maps=tuple(paths[:2]), tomograms=(paths[2],)))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_half_maps_that_differ_by_more_than_noise_are_left_out_of_a_training(write, capsys):
    """Those of every other tilt of a thick specimen, but not those of frames, nor with Noise2Noise,
    which has nothing else."""
    thick = dict(shape=(48, 96, 96), snr=1.0, seed=5, thickness=144, specimen="crowded")
    made = {
        kind: simulate_volumes(SimulateConfig(half_maps=kind, **thick))
        for kind in ("tilts", "noise")
    }
    for kind, perturbation, left_out in (
        ("tilts", "noise_matched", True),
        ("tilts", "noise2noise", False),
        ("noise", "noise_matched", False),
    ):
        volumes = made[kind]
        odd, even = (write(volumes[name], name + ".mrc") for name in ("odd", "even"))
        (volume,) = open_volumes(TrainConfig(half_maps=(odd, even), perturbation=perturbation))
        words = capsys.readouterr().err
        assert isinstance(volume, HalfMaps) != left_out
        assert ("odd.mrc: its half-maps differ by more than noise" in words) == left_out
        if left_out:
            mean = (volumes["odd"] + volumes["even"]) / 2
            np.testing.assert_allclose(volume.destandardise(whole(volume)), mean, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("box", range(5))
def test_real_half_maps_are_taken_without_a_word(box, real_data, capsys):
    odd, even, whole = (
        str(real_data / "lamella" / (f"box{box}_{name}.mrc")) for name in ("odd", "even", "all")
    )
    open_volumes(TrainConfig(half_maps=(odd, even), tomograms=(whole,)))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 6))
def test_half_maps_of_weak_signal_in_real_noise_are_taken(seed, real_data, tmp_path, monkeypatch):
    """Each has 28 times as much noise as signal, streaks included."""
    monkeypatch.setenv("F2FD_TEST_DATA", str(real_data))
    made = simulated_case("real-noise", BenchmarkConfig(), 0.1, seed, str(tmp_path))
    assert open_volumes(TrainConfig(half_maps=made.halves, tomograms=(made.tomogram,)))


def test_half_maps_of_different_contrast_are_reported(tomograms, write, capsys):
    paths = (write(tomograms[0]["odd"], "odd.mrc"), write(2 * tomograms[0]["even"], "even.mrc"))
    open_volumes(TrainConfig(half_maps=paths))
    assert "even.mrc have standard deviations of" in capsys.readouterr().err


def test_half_maps_with_other_voxels_are_refused(tomograms, write):
    paths = (write(tomograms[0]["odd"], "odd.mrc"), write(tomograms[0]["even"], "even.mrc", 20.0))
    with pytest.raises(UserError, match="odd.mrc and .*even.mrc have voxels of 10 and 20 Å"):
        open_volumes(TrainConfig(half_maps=paths))
    with pytest.raises(UserError, match="odd.mrc and .*even.mrc have voxels of 10 and 20 Å"):
        evaluate(EvaluateConfig(denoised=paths[0], half_map=paths[1]))


def test_a_half_map_is_not_compared_with_itself(tomograms, write):
    odd, copy = (write(tomograms[0]["odd"] * scale, f"{scale}.mrc") for scale in (1, 3))
    with pytest.raises(UserError, match="1.mrc is given as both half-maps"):
        evaluate(EvaluateConfig(denoised=odd, half_map=odd))
    with pytest.raises(UserError, match="1.mrc and .*3.mrc are the same but for their scale"):
        evaluate(EvaluateConfig(denoised=odd, half_map=copy))


def test_pairs_of_files_become_volumes_in_order(halves, write):
    more = [
        write(np.random.default_rng(seed).normal(size=(10, 12, 14)), f"{seed}.mrc")
        for seed in (2, 3)
    ]
    config = TrainConfig(half_maps=halves + tuple(more), perturbation="noise2noise", clip=False)
    first, second = open_volumes(config)
    assert (first.source.path, second.source.path) == (halves[0], more[0])
    mean = (data(more[0]) + data(more[1])) / 2
    np.testing.assert_allclose(second.destandardise(whole(second)), mean, atol=1e-5)


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    """A model trained on half-maps with the command line."""
    output = tmp_path_factory.mktemp("model")
    command = [
        "train",
        "--half-maps",
        small["odd"],
        small["even"],
        "--output",
        str(output),
        "--perturbation",
        "halves",
        "--ground-truth",
        small["clean"],
    ]
    for name, value in dict(TINY, dropout=0.0, precision="float32").items():
        command += ["--" + name.replace("_", "-"), str(value)]
    assert cli.main(command) == 0
    return output / "model.pt"


@pytest.mark.slow
def test_training_on_half_maps_logs_scores_against_the_ground_truth(model):
    with open(model.parent / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == TINY["steps"]
    assert all(0 < float(row["input_ssim"]) < 1 and 0 < float(row["psnr"]) < 60 for row in rows)


def denoised(model, output, *arguments):
    """Denoise with the command line; returns the names of the denoised files."""
    command = [
        "denoise",
        model,
        *arguments,
        "--output",
        output,
        "--predictions",
        2,
        "--tile-size",
        40,
        "--precision",
        "float32",
        "--device",
        "cpu",
    ]
    assert cli.main([str(word) for word in command]) == 0
    return sorted(entry.name for entry in output.iterdir() if entry.name.endswith("_denoised.mrc"))


def test_the_mean_of_the_halves_is_denoised(model, small, tmp_path):
    """By Noise2Noise, too: it has less noise than each of them."""
    network, trained = checkpoint.restore(checkpoint.load(str(model)), model)
    assert trained.perturbation == "noise2noise"
    assert denoised(model, tmp_path, "--half-maps", small["odd"], small["even"]) == [
        "odd_denoised.mrc"
    ]
    volume = HalfMaps([Volume(small[name]) for name in ("odd", "even")])
    values = torch.from_numpy(whole(volume))
    flips = tta_flips(trained)[:2]
    with torch.no_grad():
        predicted = [
            network.eval()(values.flip(axes)[None, None])[0, 0].flip(axes).numpy() for axes in flips
        ]
    expected = volume.destandardise(np.mean(predicted, 0))
    result = data(tmp_path / "odd_denoised.mrc")
    np.testing.assert_allclose(result, expected, atol=1e-4 * expected.std())
    source = mrc.open_volume(small["odd"])
    assert mrc.open_volume(tmp_path / "odd_denoised.mrc").header() == source.header()


@pytest.mark.pictures
def test_results_are_called_by_the_tomogram_where_it_is_given(model, small, tmp_path):
    assert denoised(
        model, tmp_path, small["tomogram"], "--half-maps", small["odd"], small["even"]
    ) == ["tomogram_denoised.mrc"]
    assert (tmp_path / "tomogram_slices.png").exists()


def test_finished_half_maps_are_skipped(model, small, tmp_path, capsys):
    again = [
        shutil.copyfile(small[name], tmp_path / (f"second_{name}.mrc")) for name in ("odd", "even")
    ]
    output = tmp_path / "out"
    denoised(model, output, "--half-maps", small["odd"], small["even"])
    before = (output / "odd_denoised.mrc").stat().st_mtime_ns
    capsys.readouterr()
    both = ("--half-maps", small["odd"], small["even"], *again, "--resume")
    assert denoised(model, output, *both) == ["odd_denoised.mrc", "second_odd_denoised.mrc"]
    assert f"tomogram 1 of 1: {again[0]}" in capsys.readouterr().err
    assert (output / "odd_denoised.mrc").stat().st_mtime_ns == before
    np.testing.assert_array_equal(
        data(output / "second_odd_denoised.mrc"), data(output / "odd_denoised.mrc")
    )


@pytest.fixture(scope="module")
def matched(small, tmp_path_factory):
    """A model of noise-matched pairs of the half-maps' mean, which is what --half-maps makes."""
    output = tmp_path_factory.mktemp("matched")
    assert (
        cli.main(
            [
                "train",
                "--half-maps",
                small["odd"],
                small["even"],
                "--output",
                str(output),
                *(
                    word
                    for name, value in dict(TINY, precision="float32").items()
                    for word in ("--" + name.replace("_", "-"), str(value))
                ),
            ]
        )
        == 0
    )
    return output / "model.pt"


def test_half_maps_make_noise_matched_pairs_unless_reported_otherwise(matched):
    assert checkpoint.load(str(matched))["config"]["perturbation"] == "noise_matched"


def test_models_of_half_maps_denoise_tomograms_that_have_none(model, matched, small, tmp_path):
    """Nearly what the mean of the halves gives, for it is that tomogram."""
    for number, path in enumerate((model, matched)):
        outputs = [tmp_path / (f"{number}{name}") for name in ("whole", "halves")]
        assert denoised(path, outputs[0], small["tomogram"]) == ["tomogram_denoised.mrc"]
        denoised(path, outputs[1], "--half-maps", small["odd"], small["even"])
        whole_one, both = (
            data(outputs[0] / "tomogram_denoised.mrc"),
            data(outputs[1] / "odd_denoised.mrc"),
        )
        assert np.corrcoef(whole_one.ravel(), both.ravel())[0, 1] > 0.8
        if path == matched:
            assert np.abs(whole_one - both).std() < 0.05 * both.std()


def test_the_mean_of_the_halves_is_in_its_own_units(halves):
    volumes = [Volume(path, clip=False) for path in halves]
    volume = HalfMaps(volumes)
    mean = whole(volume)
    assert mean.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        volume.destandardise(mean), (data(halves[0]) + data(halves[1])) / 2, atol=1e-4
    )
    np.testing.assert_allclose(
        volume.difference((0, 0, 0), volume.shape) * 2 * volume.std,
        data(halves[0]) - 5 - (data(halves[1]) + 3),
        atol=0.5,
    )


def test_models_of_other_pairs_take_no_half_maps(small, tmp_path):
    model = train(
        TrainConfig(
            **dict(
                TINY,
                tomograms=(small["tomogram"],),
                steps=1,
                output=str(tmp_path / "run"),
                perturbation="noise2void",
            )
        )
    )
    with pytest.raises(
        UserError,
        match="--half-maps names 2 files; expected none for a model "
        "trained with the perturbation noise2void",
    ):
        denoise(
            DenoiseConfig(
                model=model, output=str(tmp_path / "out"), half_maps=(small["odd"], small["even"])
            )
        )
    assert not (tmp_path / "out").exists()
