import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import data
from test_mrc import FAULTS, faulty

from f2fd_core import DeconvolveConfig
from f2fd_core.cli import main, parse
from f2fd_core.deconvolution import deconvolved
from f2fd_core.metrics import fourier_shell_correlation


def refused(arguments, words, capsys):
    """The command exits with 2 and one sentence on stderr that has all the words."""
    assert main([str(argument) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("f2fd: error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(("command", "kind"), [
    (command, kind) for command in ("train", "denoise", "deconvolve") for kind in FAULTS
    if command != "deconvolve" or kind not in ("constant", "thin")])  # a filter can take those
def test_bad_tomograms(command, kind, tmp_path, tiny_model, capsys):
    path, words = faulty(tmp_path, kind)
    output = tmp_path / "out"
    model = [tiny_model / "model.pt"] if command == "denoise" else []
    more = ["--defocus", 3] if command == "deconvolve" else []
    refused([command, *model, path, "--output", output, *more], ["bad.mrc", *words], capsys)
    assert not output.exists()


def test_bad_models(phantom, tmp_path, capsys):
    for path, words in ((tmp_path / "none.pt", "does not exist"), (tmp_path, "is a folder"),
                        (phantom["clean"], "is no F2Fd model")):
        refused(["denoise", path, phantom["tomogram"], "--output", tmp_path / "out"],
                [str(path), words], capsys)
        refused(["info", path], [str(path), words], capsys)


def test_output_that_is_a_file_or_not_writable(phantom, tiny_model, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("keep me")
    for arguments in (["train", phantom["tomogram"]],
                      ["deconvolve", phantom["tomogram"], "--defocus", 3],
                      ["denoise", tiny_model / "model.pt", phantom["tomogram"]]):
        refused([*arguments, "--output", blocked / "out"], [str(blocked)], capsys)
        refused([*arguments, "--output", blocked], [str(blocked)], capsys)
    refused(["simulate", blocked], [str(blocked)], capsys)
    assert blocked.read_text() == "keep me"


@pytest.mark.parametrize(("arguments", "words"), [
    ([], ["no command given", "train, denoise"]),
    (["dream"], ["dream"]),
    (["train"], ["TOMOGRAMS is missing"]),
    (["train", "a.mrc"], ["--output is missing"]),
    (["denoise", "m.pt"], ["TOMOGRAMS is missing"]),
    (["deconvolve", "--output", "o"], ["TOMOGRAMS is missing"]),
    (["deconvolve", "a.mrc", "--defocus", "3"], ["--output is missing"]),
    (["deconvolve", "a.mrc", "--output", "o"], ["--defocus is 0", "in µm"]),
    (["train", "a.mrc", "--output", "o", "--deconvolve"], ["--defocus is 0", "in µm"]),
    (["train", "--half-maps", "a.mrc", "b.mrc"], ["--output is missing"]),
    (["train", "--half-maps", "a.mrc", "--output", "o"], ["--half-maps names 1 files"]),
    (["denoise", "m.pt", "--half-maps", "a", "b", "--output", "o"], ["m.pt does not exist"]),
    (["evaluate", "a.mrc"], ["--reference is missing"]),
    (["evaluate", "a.mrc", "--half-map", "b.mrc", "--reference", "c.mrc"],
     ["--half-map is given beside", "expected it alone"]),
    (["train", "a.mrc", "--output", "o", "--patchsize", "3"], ["--patchsize"]),
    (["train", "a.mrc", "--output", "o", "--steps", "x"], ["--steps", "'x'"]),
    (["train", "a.mrc", "--output", "o", "--steps", "-1"], ["--steps is -1", "at least 0"]),
    (["train", "--config", "none.json"], ["none.json"]),
    (["simulate", "o", "--shape", "5", "5"], ["--shape"]),
    (["simulate", "o", "--snr", "0"], ["--snr is 0", "above 0"]),
])
def test_bad_options(arguments, words, capsys):
    refused(arguments, words, capsys)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99"])
def test_bad_devices(device, phantom, tmp_path, capsys):
    refused(["train", phantom["tomogram"], "--output", tmp_path / "out", "--device", device],
            ["--device is '%s'" % device], capsys)


@pytest.mark.parametrize("order", [
    "denoise m.pt a.mrc b.mrc --output out", "denoise --output out m.pt a.mrc b.mrc",
    "denoise m.pt --output out a.mrc b.mrc", "denoise m.pt a.mrc --output out b.mrc"])
def test_files_and_options_in_any_order(order):
    settings, _ = parse(order.split())
    assert (settings.model, settings.tomograms, settings.output) == (
        "m.pt", ("a.mrc", "b.mrc"), "out")


def test_broken_configuration_file(tmp_path, capsys):
    path = tmp_path / "train.json"
    for text, words in (("{", "not valid JSON"), ("[1]", "holds a list"),
                        ('{"stepz": 3}', "'stepz' is no parameter")):
        path.write_text(text)
        refused(["train", "--config", path], [words], capsys)


def test_whole_chain_as_a_program(tmp_path):
    """simulate, train, denoise and evaluate as a user types them; also names with odd letters."""
    def run(*arguments):
        done = subprocess.run([sys.executable, "-m", "f2fd_core", *map(str, arguments)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    folder = tmp_path / "ein 100% ütiger Ordner"
    run("simulate", folder, "--shape", 32, 48, 48, "--seed", 2, "--snr", 0.3)
    run("train", folder / "tomogram.mrc", "--output", folder / "run", "--steps", 2,
        "--patch-size", 16, "--batch-size", 1)
    run("denoise", folder / "run" / "model.pt", folder / "tomogram.mrc", "--output", folder / "out",
        "--predictions", 1)
    scores = json.loads(run(
        "evaluate", folder / "out" / "tomogram_denoised.mrc", "--reference", folder / "clean.mrc",
        "--noisy", folder / "tomogram.mrc", "--membrane", folder / "membrane.mrc"))
    assert set(scores) == {"denoised", "noisy"}
    assert 0.1 < scores["noisy"]["correlation"] < 0.9
    assert 0 < scores["noisy"]["membrane_average_precision"] < 1
    described = json.loads(run("info", folder / "run" / "model.pt"))
    assert described["step"] == 2 and described["voxel_size"] == 10.0
    assert json.loads(run("info"))["device"] in ("cpu", "cuda:0")


@pytest.mark.reliability("every command where PyTorch is not installed",
                         "one sentence; info, which needs none, works")
def test_without_pytorch(tmp_path):
    """As in Scipion's own Python: a sentence of each command, but of those that need none."""
    out = ["--output", str(tmp_path / "out")]
    code = ("import sys; sys.modules['torch'] = None\n"
            "from f2fd_core.cli import main; sys.exit(main())")
    for arguments in (["train", "a.mrc", *out], ["denoise", "m.pt", "a.mrc", *out],
                      ["deconvolve", "a.mrc", "--defocus", "3", *out], ["simulate", out[1]],
                      ["benchmark", out[1]], ["evaluate", "a.mrc", "--reference", "b.mrc"],
                      ["info", "m.pt"], ["info", "--benchmark"], ["info"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True,
                              text=True)
        if arguments == ["info"]:
            assert done.returncode == 0 and json.loads(done.stdout)["torch"] is None
            continue
        assert done.returncode == 1 and done.stdout == "", arguments
        line, = done.stderr.splitlines()
        assert line.startswith("f2fd: error: ") and "torch" in line and "f2fd_core" in line
    assert not (tmp_path / "out").exists()


def test_deconvolve_as_a_command(small, tmp_path, capsys):
    words = ["deconvolve", small["tomogram"], small["odd"], "--output", str(tmp_path / "out"),
             "--defocus", "2", "--phase-flipped", "--threads", "all"]
    assert main(words) == 0
    assert "written to %s" % (tmp_path / "out" / "odd_deconvolved.mrc") in capsys.readouterr().err
    for name in ("tomogram", "odd"):
        expected = deconvolved(data(small[name]), 10.0,
                               DeconvolveConfig(defocus=2.0, phase_flipped=True))
        np.testing.assert_allclose(data(tmp_path / "out" / (name + "_deconvolved.mrc")), expected,
                                   atol=1e-4 * expected.std())
    refused(words, ["tomogram_deconvolved.mrc exists already", "--overwrite"], capsys)


def test_evaluate_refuses_other_shapes_and_empty_masks(phantom, write, capsys):
    other = write(np.random.default_rng(0).normal(size=(16, 16, 16)), "other.mrc")
    refused(["evaluate", phantom["tomogram"], "--reference", other],
            ["other.mrc", "(16, 16, 16)", "(48, 64, 72)"], capsys)
    empty = write(np.zeros((48, 64, 72)), "empty.mrc")
    refused(["evaluate", phantom["tomogram"], "--reference", phantom["clean"], "--membrane", empty],
            ["empty.mrc", "no membrane"], capsys)
    refused(["evaluate", empty, "--reference", phantom["clean"]], ["empty.mrc", "constant"], capsys)


def test_blocks_larger_than_the_volume(phantom, tmp_path, capsys):
    refused(["train", phantom["tomogram"], "--output", tmp_path / "run", "--perturbation", "masks",
             "--block-size", 49],
            ["--block-size is 49", "expected at most 48", phantom["tomogram"]], capsys)
    assert not (tmp_path / "run").exists()


def test_half_maps_are_compared_by_shells_alone(phantom, capsys):
    assert main(["evaluate", phantom["odd"], "--half-map", phantom["even"]]) == 0
    scores = json.loads(capsys.readouterr().out)["half_maps"]
    odd, even = (torch.from_numpy(data(phantom[name])) for name in ("odd", "even"))
    frequency, curve = fourier_shell_correlation(odd, even)
    assert scores["fsc"]["correlation"] == pytest.approx(curve.tolist(), abs=1e-4)
    assert scores["fsc_mean"] == pytest.approx(float(curve.mean()), abs=1e-4)
    assert set(scores) == {"fsc", "fsc_mean", "fsc_0.5", "fsc_0.143"}
