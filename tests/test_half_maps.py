"""Half-maps from the files to the denoised tomogram; the pairs are in test_perturbation.py."""
import csv
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, data, whole

from f2fd_core import TrainConfig, UserError, checkpoint, cli, mrc, train
from f2fd_core.config import DenoiseConfig
from f2fd_core.denoising import denoise
from f2fd_core.volume import HalfMaps, Volume, open_volumes


@pytest.fixture
def halves(write):
    """Paths of half-maps whose means and standard deviations differ."""
    rng = np.random.default_rng(0)
    return (write(rng.normal(5, 2, (16, 20, 24)), "odd.mrc"),
            write(rng.normal(-3, 4, (16, 20, 24)), "even.mrc"))


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
    np.testing.assert_allclose(volume.restore(whole(volume)), mean, atol=1e-5)
    start, size = (-2, 3, 15), (8, 9, 12)
    parts = [volume.half(number, start, size) for number in (0, 1)]
    np.testing.assert_allclose(volume.region(start, size), np.mean(parts, 0), atol=1e-6)
    reflected = np.pad(mean, 12, mode="reflect")[10:18, 15:24, 27:39]
    np.testing.assert_allclose(volume.restore(volume.region(start, size)), reflected, atol=1e-5)
    for section, axis in zip(volume.central_sections(), range(3)):
        np.testing.assert_allclose(section, mean.take(mean.shape[axis] // 2, axis), atol=1e-5)


def test_halves_that_do_not_belong_together_are_refused(halves, write, tmp_path):
    other = write(np.random.default_rng(1).normal(size=(16, 20, 25)), "other.mrc")
    with pytest.raises(UserError, match=r"odd.mrc and .*other.mrc have shapes \(16, 20, 24\) and "
                                        r"\(16, 20, 25\)"):
        HalfMaps([Volume(halves[0]), Volume(other)])
    link = str(tmp_path / "link.mrc")
    os.symlink(halves[0], link)
    for same in (halves[0], link):
        with pytest.raises(UserError, match="odd.mrc is given as both half-maps"):
            HalfMaps([Volume(halves[0]), Volume(same)])


def test_pairs_of_files_become_volumes_in_order(halves, write):
    more = [write(np.random.default_rng(seed).normal(size=(10, 12, 14)), "%d.mrc" % seed)
            for seed in (2, 3)]
    config = TrainConfig(half_maps=halves + tuple(more), perturbation="halves", clip=False)
    first, second = open_volumes(config)
    assert (first.source.path, second.source.path) == (halves[0], more[0])
    mean = (data(more[0]) + data(more[1])) / 2
    np.testing.assert_allclose(second.restore(whole(second)), mean, atol=1e-5)


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    """A model trained on half-maps with the command line."""
    output = tmp_path_factory.mktemp("model")
    command = ["train", "--half-maps", small["odd"], small["even"], "--output", str(output),
               "--perturbation", "halves",
               "--ground-truth", small["clean"]]
    for name, value in dict(TINY, dropout=0.0, precision="float32").items():
        command += ["--" + name.replace("_", "-"), str(value)]
    assert cli.main(command) == 0
    return output / "model.pt"


def test_training_on_half_maps_logs_scores_against_the_ground_truth(model):
    with open(model.parent / "log.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == TINY["steps"]
    assert all(0 < float(row["input_ssim"]) < 1 and 0 < float(row["psnr"]) < 60 for row in rows)


def denoised(model, output, *arguments):
    """Denoise with the command line; returns the names of the denoised files."""
    command = ["denoise", model, *arguments, "--output", output, "--predictions", 2,
               "--tile-size", 40, "--precision", "float32", "--device", "cpu"]
    assert cli.main([str(word) for word in command]) == 0
    return sorted(entry.name for entry in output.iterdir() if entry.name.endswith("_denoised.mrc"))


def test_the_result_is_the_mean_of_both_denoised_halves(model, small, tmp_path):
    network, trained = checkpoint.restore(checkpoint.load(str(model)), model)
    assert trained.perturbation == "halves"
    assert denoised(model, tmp_path, "--half-maps", small["odd"], small["even"]) \
        == ["odd_denoised.mrc"]
    volume = HalfMaps([Volume(small[name]) for name in ("odd", "even")])
    with torch.no_grad():
        predicted = [network.eval()(torch.from_numpy(volume.half(
            number, (0, 0, 0), volume.shape))[None, None])[0, 0].numpy() for number in (0, 1)]
    expected = volume.restore(np.mean(predicted, 0))
    result = data(tmp_path / "odd_denoised.mrc")
    np.testing.assert_allclose(result, expected, atol=1e-4 * expected.std())
    assert np.abs(predicted[0] - predicted[1]).std() > 0.01 * np.std(predicted[0])
    source = mrc.open_volume(small["odd"])
    assert mrc.open_volume(tmp_path / "odd_denoised.mrc").header() == source.header()


@pytest.mark.pictures
def test_results_are_called_by_the_tomogram_where_it_is_given(model, small, tmp_path):
    assert denoised(model, tmp_path, small["tomogram"], "--half-maps", small["odd"],
                    small["even"]) == ["tomogram_denoised.mrc"]
    assert (tmp_path / "tomogram_slices.png").exists()


def test_finished_half_maps_are_skipped(model, small, tmp_path, capsys):
    again = [shutil.copyfile(small[name], tmp_path / ("second_%s.mrc" % name))
             for name in ("odd", "even")]
    output = tmp_path / "out"
    denoised(model, output, "--half-maps", small["odd"], small["even"])
    before = (output / "odd_denoised.mrc").stat().st_mtime_ns
    capsys.readouterr()
    both = ("--half-maps", small["odd"], small["even"], *again, "--resume")
    assert denoised(model, output, *both) == ["odd_denoised.mrc", "second_odd_denoised.mrc"]
    assert "tomogram 1 of 1: %s" % again[0] in capsys.readouterr().err
    assert (output / "odd_denoised.mrc").stat().st_mtime_ns == before
    np.testing.assert_array_equal(data(output / "second_odd_denoised.mrc"),
                                  data(output / "odd_denoised.mrc"))


@pytest.fixture(scope="module")
def matched(small, tmp_path_factory):
    """A model of noise-matched pairs of the half-maps' mean, which is what --half-maps makes."""
    output = tmp_path_factory.mktemp("matched")
    assert cli.main(["train", "--half-maps", small["odd"], small["even"], "--output", str(output),
                     *(word for name, value in dict(TINY, precision="float32").items()
                       for word in ("--" + name.replace("_", "-"), str(value)))]) == 0
    return output / "model.pt"


def test_half_maps_make_noise_matched_pairs_unless_told_otherwise(matched):
    assert checkpoint.load(str(matched))["config"]["perturbation"] == "spectrum"


def test_models_of_half_maps_denoise_tomograms_that_have_none(model, matched, small, tmp_path):
    """Nearly what the mean of the halves gives, for it is that tomogram."""
    for number, path in enumerate((model, matched)):
        outputs = [tmp_path / ("%d%s" % (number, name)) for name in ("whole", "halves")]
        assert denoised(path, outputs[0], small["tomogram"]) == ["tomogram_denoised.mrc"]
        denoised(path, outputs[1], "--half-maps", small["odd"], small["even"])
        whole_one, both = data(outputs[0] / "tomogram_denoised.mrc"), \
            data(outputs[1] / "odd_denoised.mrc")
        assert np.corrcoef(whole_one.ravel(), both.ravel())[0, 1] > 0.8
        if path == matched:
            assert np.abs(whole_one - both).std() < 0.05 * both.std()


def test_the_mean_of_the_halves_is_in_its_own_units(halves):
    volumes = [Volume(path, clip=False) for path in halves]
    mean = whole(HalfMaps(volumes, for_mean=True))
    assert mean.std() == pytest.approx(1, abs=1e-5)
    volume = HalfMaps(volumes, for_mean=True)
    np.testing.assert_allclose(volume.restore(mean), (data(halves[0]) + data(halves[1])) / 2,
                               atol=1e-4)
    np.testing.assert_allclose(volume.difference((0, 0, 0), volume.shape) * 2 * volume.std,
                               data(halves[0]) - 5 - (data(halves[1]) + 3), atol=0.5)


def test_models_of_other_pairs_take_no_half_maps(small, tmp_path):
    model = train(TrainConfig(**dict(TINY, tomograms=(small["tomogram"],), steps=1,
                                     output=str(tmp_path / "run"), perturbation="blindspot")))
    with pytest.raises(UserError, match="--half-maps names 2 files; expected none for a model "
                                        "trained with the perturbation blindspot"):
        denoise(DenoiseConfig(model=model, output=str(tmp_path / "out"),
                              half_maps=(small["odd"], small["even"])))
    assert not (tmp_path / "out").exists()
