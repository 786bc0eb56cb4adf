"""f2fd run: all at once, resumed as a whole."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import data

from f2fd_core import DenoiseConfig, RunConfig, SimulateConfig, UserError, denoise, run, simulate
from f2fd_core.cli import main
from f2fd_core.network import checkpoint
from f2fd_core.runtime import distributed, files


@pytest.fixture(scope="module")
def tomograms(tmp_path_factory):
    """Three tomograms with half-maps, in a folder."""
    folder = tmp_path_factory.mktemp("set")
    for seed in (1, 2, 3):
        paths = simulate(
            SimulateConfig(
                output=str(folder / f"sim{seed}"), shape=(32, 40, 48), snr=0.3, seed=seed
            )
        )
        for name, ending in (("tomogram", ""), ("odd", "_ODD"), ("even", "_EVN")):
            os.rename(paths[name], folder / f"TS_{seed}{ending}.mrc")
    return folder


@pytest.fixture
def config(tomograms, tmp_path):
    return RunConfig(
        tomograms=tuple(str(tomograms / f"TS_{seed}.mrc") for seed in (1, 2, 3)),
        output=str(tmp_path / "out"),
        steps=2,
        device="cpu",
    )


@pytest.mark.slow
@pytest.mark.pictures
def test_a_set_is_chosen_from_trained_on_denoised_and_shown(config, tmp_path, capsys):
    """And with --resume what is finished stays, whatever of it was lost is made again."""
    page = run(config)
    out = tmp_path / "out"
    said = capsys.readouterr().err
    chosen = json.loads((out / "chosen.json").read_text())
    assert set(chosen) <= set(config.tomograms) and chosen
    assert all(f"training on {name}: {why}" in said for name, why in chosen.items())
    trained = checkpoint.load(str(out / "training" / "model.pt"))
    assert set(trained["config"]["tomograms"]) == set(chosen)
    text = (out / "overview.html").read_text(encoding="utf-8")
    assert page == str(out / "overview.html")
    pictures = re.findall("src='(.*?)'", text)
    assert sorted(pictures) == [f"denoised/TS_{seed}_slices.png" for seed in (1, 2, 3)]
    for name in config.tomograms:
        result = out / "denoised" / (files.stem(name) + files.DENOISED_ENDING)
        found = json.loads((out / "denoised" / (files.stem(name) + files.VERDICT)).read_text())
        assert f"{found['denoised']['estimate']:.2f}" in text
        assert data(str(result)).shape == (32, 40, 48)
    model = (out / "training" / "model.pt").stat().st_mtime_ns
    kept = out / "denoised" / "TS_1_denoised.mrc"
    before = kept.stat().st_mtime_ns
    os.remove(out / "denoised" / "TS_2_denoised.mrc")
    with pytest.raises(UserError, match="overview.html exists already; .*--resume to go on"):
        run(config)
    again = ["run", *config.tomograms, "--output", str(out), "--steps", "2", "--device", "cpu"]
    assert main([*again, "--resume"]) == 0
    assert (out / "training" / "model.pt").stat().st_mtime_ns == model
    assert kept.stat().st_mtime_ns == before
    assert (out / "denoised" / "TS_2_denoised.mrc").exists()


@pytest.mark.slow
def test_tasks_train_together_and_share_the_tomograms(config, tmp_path, forked):
    """The last one's page has all; they learn to fill the missing wedge together, too."""
    config = dataclasses.replace(config, fill_wedge=True, tilt_range=60.0)
    distributed.start(run, config, 2)
    out = tmp_path / "out"
    chosen = json.loads((out / "chosen.json").read_text())
    trained = checkpoint.load(str(out / "training" / "model.pt"))
    assert set(trained["config"]["tomograms"]) == set(chosen)
    assert not all(
        torch.equal(weight, trained["model"][name])
        for name, weight in trained[checkpoint.FILLER].items()
    )
    for seed in (1, 2, 3):
        for ending in (files.DENOISED_ENDING, files.FILLED):
            assert data(str(out / "denoised" / f"TS_{seed}{ending}")).std() > 0
    text = (out / "overview.html").read_text(encoding="utf-8")
    assert text.count("<h2 ") == 3
    # One refusal for both.
    with pytest.raises(UserError, match="overview.html exists already; .*--resume to go on"):
        distributed.start(run, config, 2)


def test_the_doubtful_come_first(tmp_path):
    from f2fd_core.pipeline import overview

    results = {}
    for name, value, worse in (("a", 0.9, False), ("b", 0.5, False), ("c", 0.7, True)):
        results[name + ".mrc"] = path = str(tmp_path / f"{name}_denoised.mrc")
        found = {column: {"estimate": value} for column, _ in overview.PAGE_COLUMNS}
        with open(files.companion(path, files.VERDICT), "w") as stream:
            json.dump(dict(found, worse=worse), stream)
    results["<d>.mrc"] = str(tmp_path / "d_denoised.mrc")
    page = str(tmp_path / "overview.html")
    overview.write(page, results, {"b.mrc": "why"}, "model.pt")
    with open(page, encoding="utf-8") as stream:
        text = stream.read()
    assert re.findall("<h2 id='t[0-9]'>(.*?)</h2>", text) == [
        "c.mrc",
        "b.mrc",
        "a.mrc",
        "&lt;d&gt;.mrc",
    ]
    assert text.count("worse than what it should improve on") == 1
    assert text.count("(trained on)") == 1


@pytest.mark.slow
def test_half_maps_and_the_tomograms_to_train_on_are_used(config, tomograms, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = ["run", str(tomograms), "--half-maps", "auto", "--output", out, "--steps", "1"]
    train_on = str(tomograms / "TS_2.mrc")
    arguments += ["--sampling-masks", "auto", "--device", "cpu"]
    assert main([*arguments, "--train-on", train_on]) == 0
    state = checkpoint.load(os.path.join(out, "training", "model.pt"))
    assert state["config"]["tomograms"] == [train_on]
    assert state["config"]["sampling_masks"] == ["auto"]
    assert [os.path.basename(path) for path in state["config"]["half_maps"]] == [
        "TS_2_ODD.mrc",
        "TS_2_EVN.mrc",
    ]
    assert "training on" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--train-on", "other.mrc"]) == 2
    assert "other.mrc, which is none of the tomograms" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--sampling-masks", "mask.mrc"]) == 2
    assert "--sampling-masks is 'mask.mrc'; expected one of auto" in capsys.readouterr().err


@pytest.mark.slow
def test_what_denoise_makes_run_makes_too(config, tomograms, tmp_path, capsys):
    """The half-maps and the deviation beside the mean, deconvolved with CTFs of their own."""
    table = tmp_path / "ctf.csv"
    table.write_text("tomogram,defocus\nTS_1,2\nTS_2,4\nTS_3,3\n")
    config = dataclasses.replace(
        config,
        half_maps=tuple(
            str(tomograms / f"TS_{seed}_{half}.mrc")
            for seed in (1, 2, 3)
            for half in ("ODD", "EVN")
        ),
        train_on=config.tomograms[:1],
        steps=1,
        deconvolve=True,
        ctf=str(table),
        strength=0.8,
        denoise_halves=True,
        std=True,
        predictions=2,
    )
    run(config)
    out = tmp_path / "out"
    model = str(out / "training" / "model.pt")
    trained = checkpoint.load(model)["config"]
    assert (trained["ctf"], trained["strength"], trained["deconvolve"]) == (str(table), 0.8, True)
    alone = dict(model=model, std=True, predictions=2, voxel_size=10.0, device="cpu")
    for folder, halves, name, defocus in (
        ("", config.half_maps[2:4], config.tomograms[1], 4.0),
        ("odd", (), config.half_maps[2], 4.0),
        ("even", (), config.half_maps[5], 3.0),
    ):
        table.write_text(f"tomogram,defocus\n{files.stem(name)},{defocus}\n")
        (expected,) = denoise(
            DenoiseConfig(
                tomograms=(name,),
                half_maps=halves,
                ctf=str(table),
                output=str(tmp_path / "alone" / folder),
                **alone,
            )
        )
        for path in files.volumes_of(expected, True, False):
            made = out / "denoised" / os.path.relpath(path, tmp_path / "alone")
            np.testing.assert_array_equal(data(str(made)), data(path))

    # What is lost is made again; with anything else, what is there would not be what was asked for.
    table.write_text("tomogram,defocus\nTS_1,2\nTS_2,4\nTS_3,3\n")
    again = dataclasses.replace(config, resume=True)
    kept = out / "denoised" / "TS_1_denoised.mrc"
    before = kept.stat().st_mtime_ns
    lost = out / "denoised" / "odd" / "TS_2_ODD_std.mrc"
    os.remove(lost)
    run(again)
    assert lost.exists() and kept.stat().st_mtime_ns == before
    for other, words in (
        (dict(strength=1.0), f"--strength is 1.0; expected 0.8 as in {model}"),
        (dict(deconvolve=False, ctf=""), f"--deconvolve is False; expected True as in {model}"),
        (dict(seed=1), f"--seed is 1; expected 0 as in {model}"),
        (dict(predictions=4), "TS_1_denoised.mrc was made of other settings"),
    ):
        with pytest.raises(UserError, match=words):
            run(dataclasses.replace(again, **other))
    table.write_text("tomogram,defocus\nTS_1,2\nTS_2,4\nTS_3,5\n")
    with pytest.raises(UserError, match="TS_3_denoised.mrc was made of other settings"):
        run(again)


@pytest.mark.reliability(
    "a CTF without the deconvolution, none for a tomogram, one prediction with its deviation",
    "refused before anything is trained",
)
def test_what_denoise_would_refuse_is_refused_at_once(config, tmp_path):
    for bad, words in (
        (dict(ctf="ctf.csv"), "--ctf is ctf.csv without --deconvolve; expected both"),
        (dict(defocus=3.0), "--defocus is 3.0 without --deconvolve; expected both"),
        (dict(deconvolve=True), "--defocus is 0; expected the tomograms' defocus"),
        (dict(denoise_halves=True), "--denoise-halves is given without --half-maps"),
        (dict(std=True, predictions=1), "--predictions is 1; expected at least 2 for --std"),
    ):
        with pytest.raises(UserError, match=words):
            dataclasses.replace(config, **bad)
    table = tmp_path / "ctf.csv"
    table.write_text("tomogram,defocus\nTS_1,2\nTS_2,4\n")
    with pytest.raises(UserError, match="ctf.csv has no rows for TS_3"):
        run(dataclasses.replace(config, deconvolve=True, ctf=str(table)))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_pretrained_weights_denoise_as_they_are(tomograms, tmp_path, capsys):
    tomogram = str(tomograms / "TS_1.mrc")
    assert main(["denoise", "pretrained", tomogram, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "the model is the pretrained weights as they are" in said
    assert (tmp_path / "TS_1_denoised.mrc").exists()


@pytest.mark.slow
def test_star_files_come_back_with_the_results(tomograms, tmp_path, monkeypatch, capsys):
    """From f2fd run and f2fd denoise; only what is there counts as a result."""
    starfile = pytest.importorskip("starfile")
    monkeypatch.chdir(tmp_path)
    paths = [str(tomograms / f"TS_{seed}.mrc") for seed in (1, 2)]
    rows = "\n".join(f"TS_{number} {path}" for number, path in enumerate(paths, 1))
    star = tmp_path / "tomograms.star"
    star.write_text(
        f"data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoReconstructedTomogram #2\n{rows}\n"
    )
    options = ["--device", "cpu", "--output"]
    assert main(["run", "tomograms.star", "--steps", "1", *options, "out"]) == 0
    table = starfile.read("out/tomograms.star")
    found = list(table["rlnTomoReconstructedTomogramDenoised"])
    assert found == ["out/denoised/TS_1_denoised.mrc", "out/denoised/TS_2_denoised.mrc"]
    assert all(os.path.exists(path) for path in found)
    assert "out/tomograms.star names the results of 2 of 2 tomograms" in capsys.readouterr().err
    denoise = ["denoise", "out/training/model.pt", "tomograms.star", *options]
    assert main([*denoise, "again"]) == 0
    assert list(starfile.read("again/tomograms.star")["rlnTomoReconstructedTomogramDenoised"]) == [
        "again/TS_1_denoised.mrc",
        "again/TS_2_denoised.mrc",
    ]
    # Two tasks share the tomograms; the last to end, or to begin, names all results.
    variables = dict(WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="1", OMP_NUM_THREADS="1")
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "f2fd_core", *denoise, "together"],
            env=dict(os.environ, RANK=rank, LOCAL_RANK=rank, **variables),
            stderr=subprocess.DEVNULL,
        )
        for rank in "01"
    ]
    assert [task.wait() for task in tasks] == [0, 0]
    for rank in "01":
        with monkeypatch.context() as task:
            for name, value in dict(variables, RANK=rank, LOCAL_RANK=rank).items():
                task.setenv(name, value)
            assert main([*denoise, "in turn"]) == 0
    for started in ("together", "in turn"):
        found = starfile.read(f"{started}/tomograms.star")["rlnTomoReconstructedTomogramDenoised"]
        assert list(found) == [f"{started}/TS_{seed}_denoised.mrc" for seed in (1, 2)]
    # Neither is the STAR file itself replaced, nor one that is there.
    assert main([*denoise, "again"]) == 2
    assert "again/tomograms.star exists already" in capsys.readouterr().err
    assert main([*denoise, ".", "--overwrite"]) == 2
    assert star.read_text().count("\n") == 7
