import os

import pytest
from conftest import TINY, data

from f2fd_core import DeconvolveConfig, DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.commands.deconvolve import deconvolve
from f2fd_core.runtime import files


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/TS_1.mrc", "TS_1"),
        ("TS_1_13.5Apx.mrc", "TS_1_13.5Apx"),
        ("TS_1_13.5Apx", "TS_1_13.5Apx"),
        ("TS_1.rec", "TS_1"),
        ("TS_1.MRC", "TS_1"),
        ("v1.2/TS.v2", "TS.v2"),
        ("TS_1.mrc.rec", "TS_1.mrc"),
    ],
)
def test_only_the_endings_of_tomograms_are_taken_off(path, name):
    assert files.stem(path) == name


def test_names_that_differ_after_a_point_are_two_names():
    paths = files.output_paths(
        ["t_13.5Apx", "t_13.6Apx"], "out", files.NAME + files.DENOISED_ENDING
    )
    assert list(paths.values()) == ["out/t_13.5Apx_denoised.mrc", "out/t_13.6Apx_denoised.mrc"]


@pytest.mark.parametrize("ending", [files.DENOISED_ENDING, files.DECONVOLVED])
def test_a_result_whose_name_is_too_long_is_refused_first(ending, tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    output = str(tmp_path / "new" / "out")
    room = longest - len(ending.replace(".mrc", files.PICTURE) + files.PARTIAL)
    assert files.output_paths(["ü" * (room // 2) + ".mrc"], output, files.NAME + ending)
    with pytest.raises(
        UserError,
        match=f"too long for a file's name, with {longest + 1} bytes; expected at most {longest}",
    ):
        files.output_paths(["a" * (room + 1) + ".mrc"], output, files.NAME + ending)
    with pytest.raises(UserError, match="too long for a file's name"):
        files.output_paths(["a.mrc"], str(tmp_path) + "/a" * 2048, files.NAME + ending)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def folder(phantom, tmp_path):
    """All files of a folder with a tomogram and what was made of it."""
    for name in ("a.mrc", "a_denoised.mrc", "a_std.mrc", "a_deconvolved.mrc"):
        os.symlink(phantom["tomogram"], tmp_path / name)
    return [str(path) for path in sorted(tmp_path.iterdir())]


def test_results_beside_the_tomograms_are_left_out(folder, tiny_model, tmp_path, capsys):
    common = dict(tomograms=folder, output=str(tmp_path / "out"))
    results = denoise(
        DenoiseConfig(
            model=str(tiny_model / "model.pt"), predictions=1, tile_size=32, device="cpu", **common
        )
    )
    results += deconvolve(DeconvolveConfig(defocus=3, **common))
    assert results == [
        str(tmp_path / "out" / name) for name in ("a_denoised.mrc", "a_deconvolved.mrc")
    ]
    said = capsys.readouterr().err
    assert all(said.count(path + " is left out: by its name") == 2 for path in folder[1:])


def test_a_result_alone_is_a_tomogram_like_others(folder, tmp_path):
    assert files.results_among(folder[1:]) == []
    (result,) = deconvolve(
        DeconvolveConfig(tomograms=(folder[2],), output=str(tmp_path), defocus=3)
    )
    assert data(result).std() > 0


def test_nothing_is_learned_from_results(folder, tmp_path):
    with pytest.raises(UserError, match="a_deconvolved.mrc is, by its name, a result of another"):
        train(TrainConfig(tomograms=folder, output=str(tmp_path / "out"), **TINY))
    assert not (tmp_path / "out").exists()
