"""copick projects, as the package itself sees them before and after."""

import json
import os
import sys

import numpy as np
import pytest
from conftest import TINY, data

from f2fd_core import UserError, cli
from f2fd_core.data import formats
from f2fd_core.runtime.project import Project

copick = pytest.importorskip("copick")
RUNS = ("TS_01", "TS_02")


NO_SUCH = pytest.mark.reliability(
    "a copick project that lacks a run, is damaged or not local", "one sentence"
)


class Made:
    """A project of two runs, whose tomograms are in its static part: folders and words."""

    def __init__(self, folder, values):
        self.folder, self.values = folder, values
        self.static, self.overlay = folder / "static", folder / "overlay"
        for number, run in enumerate(RUNS):
            self.add(run, 10.0, "wbp", values + number)
            self.add(run, 10.0, "ctf", values)
        os.makedirs(self.overlay)
        self.config = self.configured()

    def add(self, run, spacing, kind, values):
        place = self.static / "ExperimentRuns" / run / f"VoxelSpacing{spacing:.3f}"
        os.makedirs(place, exist_ok=True)
        with formats.new_volume(
            str(place / f"{kind}.zarr"), shape=values.shape, voxel_size=(spacing,) * 3
        ) as output:
            output[:] = values

    def configured(self, **more):
        described = dict(
            config_type="filesystem",
            name="test",
            description="two runs",
            version="1.0.0",
            pickable_objects=[],
            overlay_root=f"local://{self.overlay}",
            overlay_fs_args={"auto_mkdir": True},
            static_root=f"local://{self.static}",
            static_fs_args={},
        )
        path = self.folder / "config.json"
        path.write_text(json.dumps(dict(described, **more)))
        return str(path)

    def tomograms(self, run):
        """{type: tomogram} as copick has them."""
        spacing = copick.from_file(self.config).get_run(run).get_voxel_spacing(10.0)
        return {tomogram.tomo_type: tomogram for tomogram in spacing.tomograms}

    def denoise(self, model, *words):
        options = ["--copick", self.config, "--tomo-type", "wbp", "--predictions", 1]
        options += ["--tile-size", 32, "--device", "cpu", *words]
        return cli.main(list(map(str, ["denoise", model, *options])))


@pytest.fixture
def project(small, tmp_path):
    return Made(tmp_path, data(small["tomogram"]))


@pytest.mark.slow
def test_two_runs_from_end_to_end(project, tiny_model, tmp_path, capsys):
    """Results are a type of their own, of which nothing is replaced unasked."""
    model, out = tiny_model / "model.pt", tmp_path / "out"
    assert project.denoise(model, "--output", out) == 0
    for number, run in enumerate(RUNS):
        there = project.tomograms(run)
        assert set(there) == {"wbp", "ctf", "wbp-f2fd"}
        assert there["wbp"].read_only and not there["wbp-f2fd"].read_only
        result = there["wbp-f2fd"].numpy()
        assert result.shape == project.values.shape and 0 < result.std() < project.values.std()
        assert abs(result.mean() - project.values.mean() - number) < project.values.std()
        np.testing.assert_array_equal(
            result, formats.open_volume(str(out / f"{run}_wbp_denoised.zarr"))[:]
        )
    names = [f"{run}_wbp_denoised.zarr" for run in RUNS]
    assert [name for name in sorted(os.listdir(out)) if name.endswith(".zarr")] == names

    assert project.denoise(model, "--output", tmp_path / "other") == 2
    assert "the project has a tomogram of the type wbp-f2fd already" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert project.denoise(model, "--output", out, "--resume") == 0
    assert capsys.readouterr().err.count("is finished: skipped") == 2
    assert project.denoise(model, "--output", out, "--resume", "--seed", 1) == 2
    assert project.denoise(model, "--output", out, "--overwrite", "TS_02") == 0
    assert not list(project.overlay.rglob("*.part"))
    assert project.tomograms("TS_02")["wbp-f2fd"].numpy().shape == result.shape


def test_some_runs_and_no_output_folder(project, tiny_model):
    assert project.denoise(tiny_model / "model.pt", "TS_02") == 0
    assert "wbp-f2fd" in project.tomograms("TS_02") and "wbp-f2fd" not in project.tomograms("TS_01")
    assert (project.overlay / "f2fd" / "TS_02_wbp_denoised.zarr").is_symlink()


@pytest.mark.slow
def test_a_training_on_a_run(project, tmp_path):
    words = ["train", "TS_01", "--copick", project.config, "--tomo-type", "wbp"]
    words += ["--output", tmp_path / "run"]
    for name, value in TINY.items():
        words += ["--" + name.replace("_", "-"), value]
    assert cli.main(list(map(str, words))) == 0
    with open(tmp_path / "run" / "train.json", encoding="utf-8") as stream:
        (path,) = json.load(stream)["tomograms"]
    assert path.endswith("static/ExperimentRuns/TS_01/VoxelSpacing10.000/wbp.zarr")


def test_one_of_several_voxel_spacings(project):
    project.add("TS_01", 20.0, "wbp", project.values)
    with pytest.raises(UserError, match="TS_01 of .* of the type wbp with voxels of 10 and 20 Å"):
        Project(project.config, "wbp")
    assert len(Project(project.config, "wbp", spacing=10.0).places) == 2
    (path,) = Project(project.config, "wbp", spacing=20.0).places
    assert "VoxelSpacing20.000" in path


BAD = {
    "type": (["--tomo-type", "sirt"], "has no tomogram of the type sirt; its types are ctf, wbp"),
    "run": (["TS_09", "--tomo-type", "wbp"], "TS_09 is no run of .*; expected one of TS_01, TS_02"),
    "no type": ([], "--tomo-type is missing; expected it, since --copick and --tomo-type go tog"),
}


@NO_SUCH
@pytest.mark.parametrize("fault", BAD)
def test_what_a_project_does_not_have(project, fault, tmp_path, capsys):
    words, expected = BAD[fault]
    options = ["--copick", project.config, "--output", str(tmp_path / "out")]
    assert cli.main(["denoise", "pretrained", *words, *options]) == 2
    with pytest.raises(UserError, match=expected):
        cli.parse(["denoise", "pretrained", *words, *options])


@NO_SUCH
def test_bad_configurations(project, monkeypatch):
    with pytest.raises(UserError, match="gone.json is no configuration of a copick project"):
        Project("gone.json", "wbp")
    with open(project.config, "w", encoding="utf-8") as stream:
        stream.write("{")
    with pytest.raises(UserError, match="config.json is no configuration of a copick project"):
        Project(project.config, "wbp")
    project.configured(overlay_root="memory://somewhere", overlay_fs_args={})
    with pytest.raises(UserError, match="the overlay of .* is not on a local file system"):
        Project(project.config, "wbp")
    monkeypatch.setitem(sys.modules, "copick", None)
    with pytest.raises(UserError, match="expected the package copick to read it"):
        Project(project.config, "wbp")


def test_projects_are_not_watched(project):
    words = ["run", "--copick", project.config, "--tomo-type", "wbp", "--watch", "--output", "out"]
    with pytest.raises(UserError, match="--copick and --watch exclude each other"):
        cli.parse(words)
