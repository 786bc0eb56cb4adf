import dataclasses
import os
import shutil

import mrcfile
import numpy as np
import pytest
import torch
from conftest import data, labels

from f2fd_core import CheckConfig, DenoiseConfig, UserError, __version__, check, denoise
from f2fd_core.checking import planted, start
from f2fd_core.checking.short import judged
from f2fd_core.data import mrc
from f2fd_core.data.rescaling import Rescaling
from f2fd_core.network import checkpoint
from f2fd_core.runtime import files

KEPT = pytest.mark.reliability(
    "denoising resumed with something else, or that would replace an input or a user's picture",
    "one sentence; what was there is kept",
)


@pytest.mark.pictures
def test_header_and_intensities_are_the_inputs(quick_denoise, small, tmp_path):
    source = tmp_path / "own name.mrc"
    values = data(small["tomogram"]) * 50 + 1000
    with mrcfile.new(source) as stream:
        stream.set_data(values.astype(np.int16))
        stream.voxel_size = (8.5, 8.5, 8.5)
        for axis, value in zip("xyz", (10, 20, 30)):
            stream.header.origin[axis] = value
            stream.header[f"n{axis}start"] = -value
    result = quick_denoise(source, tmp_path / "out", std=True)
    assert result == str(tmp_path / "out" / "own name_denoised.mrc")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "own name_denoised.mrc",
        "own name_slices.png",
        "own name_std.mrc",
    ]
    for path in (result, str(tmp_path / "out" / "own name_std.mrc")):
        assert mrcfile.validate(path)
        with mrcfile.open(path) as stream:
            assert stream.data.dtype == np.float32 and stream.data.shape == values.shape
            assert float(stream.voxel_size.x) == pytest.approx(8.5)
            assert [float(stream.header.origin[axis]) for axis in "xyz"] == [10, 20, 30]
            assert [int(stream.header[f"n{axis}start"]) for axis in "xyz"] == [-10, -20, -30]
            *_, label, made_of = labels(stream)
            assert made_of.startswith("F2Fd model=")
            assert label.startswith(f"F2Fd {__version__}: denoised by ")
            assert label.rstrip().endswith("/model.pt")
    assert data(result).mean() == pytest.approx(values.mean(), abs=0.05 * values.std())
    assert data(str(tmp_path / "out" / "own name_std.mrc")).min() >= 0


@pytest.mark.slow
def test_same_seed_same_result_other_seed_other(quick_denoise, small, tmp_path):
    results = [
        data(quick_denoise(small["tomogram"], tmp_path / str(number), seed=seed, predictions=5))
        for number, seed in enumerate((1, 1, 2))
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize("region", [(0, 0, 0, 41, 48, 72), (32, 0, 0, 9, 1, 1), (0, 0, 0, 0, 8, 8)])
def test_a_region_outside_is_refused(quick_denoise, phantom, tmp_path, region):
    with pytest.raises(UserError, match="--region is .* which has 40 x 48 x 72 voxels"):
        quick_denoise(phantom["tomogram"], tmp_path / "out", region=region)
    assert not (tmp_path / "out").exists()


def test_existing_results_are_kept_overwritten_or_skipped(quick_denoise, small, tmp_path, capsys):
    result = quick_denoise(small["tomogram"], tmp_path)
    before, made = data(result), os.stat(result).st_mtime_ns
    with pytest.raises(UserError, match="exists already; it is kept"):
        quick_denoise(small["tomogram"], tmp_path, seed=5)
    capsys.readouterr()
    quick_denoise(small["tomogram"], tmp_path, batch_size=1, resume=True)
    assert os.stat(result).st_mtime_ns == made
    assert f"{result} is finished: skipped" in capsys.readouterr().err
    quick_denoise(small["tomogram"], tmp_path, predictions=1, overwrite=True)
    assert not np.array_equal(data(result), before)


@KEPT
def test_a_result_of_something_else_is_not_resumed(tiny_model, small, tmp_path):
    """Of another model, another tomogram of that name, other settings, or of nobody knows what."""
    tomogram = shutil.copyfile(small["tomogram"], tmp_path / "tomogram.mrc")
    other = shutil.copyfile(tiny_model / "model.pt", tmp_path / "other.pt")
    config = DenoiseConfig(
        model=str(tiny_model / "model.pt"),
        tomograms=(str(tomogram),),
        output=str(tmp_path / "out"),
        device="cpu",
        region=(0, 0, 0, 8, 16, 16),
        resume=True,
    )
    (result,) = denoise(config)
    before = data(result)
    denoise(dataclasses.replace(config, model=str(other)))  # a copy is no other one
    state = checkpoint.load(str(other))
    network, trained = checkpoint.restore(state, str(other))
    checkpoint.save(str(other), network.state_dict(), trained, 7, state["voxel_size"])

    def refused(words, **changes):
        with pytest.raises(
            UserError, match=(f"tomogram_denoised.mrc was made of {words}; it is kept")
        ):
            denoise(dataclasses.replace(config, **changes))
        np.testing.assert_array_equal(data(result), before)

    refused("other settings", region=())
    refused("another model and other settings", model=str(other), seed=1)
    shutil.copyfile(small["odd"], tomogram)
    refused("another tomogram")
    with mrcfile.mmap(result, "r+") as stream:
        stream.header.nlabl, stream.header.label[:] = 0, b""
    refused("what it does not say")


@KEPT
def test_no_input_is_replaced(tiny_model, small, tmp_path):
    """Not even with --overwrite, by whatever path."""
    paths = [
        str(shutil.copyfile(small["tomogram"], tmp_path / name))
        for name in ("x.mrc", "x_denoised.mrc")
    ]
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="the input .*x_denoised.mrc would be replaced"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=tuple(paths),
                output=str(tmp_path / "link"),
                overwrite=True,
            )
        )
    np.testing.assert_array_equal(data(paths[1]), data(small["tomogram"]))


@pytest.mark.slow
@KEPT
@pytest.mark.pictures
def test_pictures_of_the_user_are_kept(quick_denoise, small, tmp_path):
    picture = tmp_path / "tomogram_slices.png"
    picture.write_bytes(b"mine")
    for options in (dict(), dict(resume=True)):
        with pytest.raises(UserError, match="tomogram_slices.png exists already; it is kept"):
            quick_denoise(small["tomogram"], tmp_path, predictions=1, **options)
    assert picture.read_bytes() == b"mine"
    result = quick_denoise(small["tomogram"], tmp_path, predictions=1, overwrite=True)
    os.remove(result)  # as if killed between the picture and the tomogram
    quick_denoise(small["tomogram"], tmp_path, predictions=1, resume=True)
    assert os.path.exists(result)


def test_a_bad_tomogram_is_found_before_anything_is_computed(tiny_model, phantom, tmp_path):
    with pytest.raises(UserError, match="missing.mrc does not exist"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                output=str(tmp_path / "out"),
                tomograms=(phantom["tomogram"], "missing.mrc"),
            )
        )
    assert not (tmp_path / "out").exists()


def test_two_tomograms_of_one_name_are_refused(tiny_model, phantom, tmp_path):
    with pytest.raises(UserError, match="two tomograms are called tomogram"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                output=str(tmp_path / "out"),
                tomograms=(phantom["tomogram"], "other/tomogram.mrc"),
            )
        )


def test_another_voxel_size_than_the_models_is_reported(
    quick_denoise, small, write, tmp_path, capsys
):
    quick_denoise(write(data(small["tomogram"]), voxel_size=14.0), tmp_path / "out")
    assert "14 Å, but the model was trained at 10 Å" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("voxel_size", [20.0, 6.0])
def test_a_rescaled_tomogram_is_denoised_at_the_models_voxel_size(
    quick_denoise, small, write, tmp_path, voxel_size, capsys
):
    """As one that was rescaled before, and the result after; on the tomogram's own grid."""
    tomogram = write(data(small["tomogram"]), "own.mrc", voxel_size=voxel_size)
    inside = quick_denoise(tomogram, tmp_path / "a", rescale=True, std=True)
    said = capsys.readouterr().err
    assert "results may suffer" not in said
    rescaling = Rescaling(data(tomogram).shape, voxel_size / 10)
    before = write(rescaling.there(data(tomogram)), "before.mrc", voxel_size=10.0)
    outside = quick_denoise(before, tmp_path / "b", std=True)
    expected = rescaling.back(data(outside))
    np.testing.assert_allclose(data(inside), expected, atol=2e-4 * expected.std())
    found = mrc.open_volume(inside)
    assert found.shape == data(tomogram).shape and found.voxel_size[0] == voxel_size
    deviation = data(files.companion(inside, files.DEVIATION))
    assert deviation.min() >= 0 and deviation.std() > 0
    # A part is that of the whole.
    part = quick_denoise(tomogram, tmp_path / "c", rescale=True, region=(5, 8, 9, 16, 24, 20))
    np.testing.assert_array_equal(data(part), data(inside)[5:21, 8:32, 9:29])


def test_tile_size_must_suit_the_network(tiny_model, phantom, tmp_path):
    with pytest.raises(UserError, match="--tile-size is 20; expected a multiple of 8"):
        denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                output=str(tmp_path),
                tomograms=(phantom["tomogram"],),
                tile_size=20,
            )
        )


@pytest.mark.slow
def test_a_deviation_map_that_is_missing_is_not_skipped(quick_denoise, phantom, tmp_path):
    """Denoised without one, then resumed with one."""
    options = dict(resume=True, predictions=2)
    result = quick_denoise(phantom["tomogram"], tmp_path, **options)
    made = os.stat(result).st_mtime_ns
    assert os.stat(quick_denoise(phantom["tomogram"], tmp_path, **options)).st_mtime_ns == made
    quick_denoise(phantom["tomogram"], tmp_path, std=True, **options)
    assert data(tmp_path / "tomogram_std.mrc").max() > 0


@pytest.mark.slow
def test_a_model_is_run_in_the_precision_that_is_asked_for(
    tiny_model, phantom, write, tmp_path, monkeypatch
):
    """Not in that of its training, which may be slow here; the noise is measured in it, too."""
    state = checkpoint.load(str(tiny_model / "model.pt"))
    state["config"]["precision"] = "bfloat16"
    model = str(tmp_path / "model.pt")
    torch.save(state, model)
    monkeypatch.setattr(torch, "autocast", lambda *about: pytest.fail(f"computed in {about}"))
    monkeypatch.setattr(start, "STEPS", 1)
    monkeypatch.setattr(planted, "PLACES", 1)
    part = write(data(phantom["tomogram"])[:32, :32, :32])
    options = dict(model=model, tomograms=(part,), device="cpu", precision="float32")
    config = DenoiseConfig(output=str(tmp_path / "out"), **options)
    assert denoise(config)
    assert list(judged(model, config))
    assert check(CheckConfig(output=str(tmp_path / "report"), **options))


def test_a_result_of_too_much_contrast_is_reported(tiny_model, small, tmp_path, capsys):
    """A network that makes more of a tomogram than there is does not suit it."""
    state = checkpoint.load(str(tiny_model / "model.pt"))
    network, trained = checkpoint.restore(state, "model.pt")
    with torch.no_grad():
        network.last[-1].weight.mul_(1000)
    wild = str(tmp_path / "wild.pt")
    checkpoint.save(wild, network.state_dict(), trained, state["step"], state["voxel_size"])
    warned = []
    for name, model in (("tame", str(tiny_model / "model.pt")), ("wild", wild)):
        denoise(
            DenoiseConfig(
                model=model,
                tomograms=(small["tomogram"],),
                device="cpu",
                output=str(tmp_path / name),
            )
        )
        warned.append("times the standard deviation of the tomogram" in capsys.readouterr().err)
    assert warned == [False, True]


def test_names_and_types_of_the_results(tiny_model, small, tmp_path):
    """What goes with a result follows its name; its voxels differ by their rounding only."""
    usual = dict(
        model=str(tiny_model / "model.pt"), tomograms=(small["tomogram"],), device="cpu", std=True
    )
    (plain,) = denoise(DenoiseConfig(output=str(tmp_path / "a"), **usual))
    (other,) = denoise(
        DenoiseConfig(
            output=str(tmp_path / "b"), result_name="f2fd {name}", dtype="float16", **usual
        )
    )
    assert sorted(os.listdir(tmp_path / "b")) == ["f2fd tomogram.mrc", "f2fd tomogram_std.mrc"]
    assert data(other).dtype == np.float16
    np.testing.assert_allclose(data(other), data(plain), rtol=1e-3, atol=1e-4 * data(plain).std())
    with pytest.raises(UserError, match="b/f2fd tomogram.mrc exists already"):
        denoise(DenoiseConfig(output=str(tmp_path / "b"), result_name="f2fd {name}", **usual))
    with pytest.raises(UserError, match="was made of other settings"):
        denoise(
            DenoiseConfig(
                output=str(tmp_path / "b"), result_name="f2fd {name}", resume=True, **usual
            )
        )


@pytest.mark.parametrize("pattern", ["denoised", "", "a/{name}", "{tsId}"])
def test_a_pattern_that_names_no_file_is_refused(pattern):
    with pytest.raises(UserError, match="--result-name is .*expected a file's name with {name}"):
        DenoiseConfig(result_name=pattern)


def test_results_of_a_pattern_are_no_input(tiny_model, small, write, tmp_path, capsys):
    """A second run on ``*.mrc`` of a folder that has them leaves them out."""
    first = write(data(small["tomogram"]), "a.mrc")
    write(data(small["odd"]), "clean_a.mrc")
    folder = os.path.dirname(first)
    (result,) = denoise(
        DenoiseConfig(
            model=str(tiny_model / "model.pt"),
            tomograms=(first, os.path.join(folder, "clean_a.mrc")),
            output=str(tmp_path / "out"),
            result_name="clean_{name}",
            device="cpu",
        )
    )
    assert os.path.basename(result) == "clean_a.mrc"
    assert "clean_a.mrc is left out" in capsys.readouterr().err


def test_half_maps_beside_their_mean(small, tmp_path, tiny_model):
    """Each is denoised as it would be alone, in a folder of its own."""
    halves = small["odd"], small["even"]
    usual = dict(model=str(tiny_model / "model.pt"), device="cpu")
    (mean,) = denoise(
        DenoiseConfig(
            tomograms=(small["tomogram"],),
            half_maps=halves,
            denoise_halves=True,
            output=str(tmp_path / "a"),
            **usual,
        )
    )
    assert os.path.basename(mean) == "tomogram_denoised.mrc"
    for folder, half in zip(("odd", "even"), halves):
        (alone,) = denoise(
            DenoiseConfig(tomograms=(half,), output=str(tmp_path / "b" / folder), **usual)
        )
        beside = tmp_path / "a" / folder / os.path.basename(alone)
        np.testing.assert_array_equal(data(str(beside)), data(alone))
    with pytest.raises(UserError, match="--denoise-halves is given without --half-maps"):
        DenoiseConfig(tomograms=("a.mrc",), denoise_halves=True)
    os.remove(mean)
    config = DenoiseConfig(
        tomograms=(small["tomogram"],),
        half_maps=halves,
        denoise_halves=True,
        output=str(tmp_path / "a"),
        **usual,
    )
    with pytest.raises(UserError, match="a/odd/odd_denoised.mrc exists already"):
        denoise(config)
    assert not os.path.exists(mean)
    for _ in range(2):  # and where all is finished
        assert denoise(dataclasses.replace(config, resume=True)) == [mean]
