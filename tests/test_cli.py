import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from bad_files import FAULTS, faulty
from conftest import data

from f2fd_core import DeconvolveConfig, cli
from f2fd_core.cli import ENDING_SIGNALS, main, parse
from f2fd_core.evaluation.metrics import fourier_shell_correlation
from f2fd_core.filters.deconvolution import deconvolved


def refused(arguments, words, capsys):
    """The command exits with 2 and one sentence on stderr that has all the words."""
    assert main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("f2fd: error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (command, kind)
        for command in ("train", "denoise", "deconvolve")
        for kind in FAULTS
        if command != "deconvolve" or kind not in ("constant", "thin")
    ],
)  # a filter can take those
def test_bad_tomograms(command, kind, tmp_path, tiny_model, capsys):
    path, words = faulty(tmp_path, kind)
    if kind == "folder":  # it stands for the tomograms in it
        words = ["holds no tomogram"]
    output = tmp_path / "out"
    model = [tiny_model / "model.pt"] if command == "denoise" else []
    more = ["--defocus", 3] if command == "deconvolve" else []
    refused([command, *model, path, "--output", output, *more], ["bad.mrc", *words], capsys)
    assert not output.exists()


def test_bad_models(phantom, tmp_path, capsys):
    for path, words in (
        (tmp_path / "none.pt", "does not exist"),
        (tmp_path, "is a folder"),
        (phantom["clean"], "is not an F2Fd model"),
    ):
        refused(
            ["denoise", path, phantom["tomogram"], "--output", tmp_path / "out"],
            [str(path), words],
            capsys,
        )
        refused(["info", path], [str(path), words], capsys)


@pytest.mark.slow
def test_output_that_is_a_file_or_not_writable(phantom, tiny_model, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("keep me")
    for arguments in (
        ["train", phantom["tomogram"]],
        ["deconvolve", phantom["tomogram"], "--defocus", 3],
        ["denoise", tiny_model / "model.pt", phantom["tomogram"]],
    ):
        refused([*arguments, "--output", blocked / "out"], [str(blocked)], capsys)
        refused([*arguments, "--output", blocked], [str(blocked)], capsys)
    refused(["simulate", blocked], [str(blocked)], capsys)
    assert blocked.read_text() == "keep me"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
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
        (
            ["evaluate", "a.mrc", "--half-map", "b.mrc", "--reference", "c.mrc"],
            ["--half-map is given with", "expected it alone"],
        ),
        (["train", "a.mrc", "--output", "o", "--patchsize", "3"], ["--patchsize"]),
        (["train", "a.mrc", "--output", "o", "--steps", "x"], ["--steps", "'x'"]),
        (["train", "a.mrc", "--output", "o", "--steps", "-1"], ["--steps is -1", "at least 0"]),
        (["train", "--config", "none.json"], ["none.json"]),
        (["simulate", "o", "--shape", "5", "5"], ["--shape"]),
        (["simulate", "o", "--snr", "0"], ["--snr is 0", "above 0"]),
        (
            ["simulate", "o", "--shape", "100000", "100000", "100000"],
            ["--shape is 100000", "at most 4096"],
        ),
        (["simulate", "o", "--tilt-step", "1e-300"], ["--tilt-step is 1e-300", "at least 0.1"]),
        (
            ["train", "a.mrc", "--output", "o", "--patch-size", "16000000000000"],
            ["--patch-size is 16000000000000", "at most 1024"],
        ),
    ],
)
def test_bad_options(arguments, words, capsys):
    refused(arguments, words, capsys)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "²", "cuda:²"])
def test_bad_devices(device, phantom, tmp_path, capsys):
    refused(
        ["train", phantom["tomogram"], "--output", tmp_path / "out", "--device", device],
        [f"--device is '{device}'"],
        capsys,
    )


@pytest.mark.parametrize(
    "order",
    [
        "denoise m.pt a.mrc b.mrc --output out",
        "denoise --output out m.pt a.mrc b.mrc",
        "denoise m.pt --output out a.mrc b.mrc",
        "denoise m.pt a.mrc --output out b.mrc",
    ],
)
def test_files_and_options_in_any_order(order):
    settings, _ = parse(order.split())
    assert (settings.model, settings.tomograms, settings.output) == (
        "m.pt",
        ("a.mrc", "b.mrc"),
        "out",
    )


@pytest.mark.parametrize(
    "order",
    [
        "denoise m.pt --output out -- -a.mrc b.mrc",
        "denoise --output out -- m.pt -a.mrc b.mrc",
        "denoise m.pt -- -a.mrc b.mrc",
        "denoise m.pt --half-maps a b c d -- -a.mrc b.mrc",
    ],
)
def test_names_that_begin_like_options(order):
    settings, _ = parse(order.split())
    assert (settings.model, settings.tomograms) == ("m.pt", ("./-a.mrc", "b.mrc"))


@pytest.mark.parametrize("encoding", ["ascii", "koi8-r", "iso8859-2", "gbk", "utf-8"])
@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help_in_any_encoding(command, encoding, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    sys.stdout.flush()
    assert ended.value.code == 0 and b"usage: f2fd " + command.encode() in shown.getvalue()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\rf2fd: done\n.mrc", r"a\rf2fd: done\n.mrc does not exist"),
        (b"a\x1b[2J.mrc", r"a\x1b[2J.mrc does not exist"),
        (b"\xff.mrc", r"\udcff.mrc does not exist"),
        ("ü Å.mrc".encode(), "ü Å.mrc does not exist"),
    ],
)
def test_a_sentence_stays_one_line_whatever_a_name_holds(name, shown, tmp_path, capsys):
    refused(["train", os.fsdecode(name), "--output", tmp_path / "out"], [shown], capsys)


@pytest.mark.slow
@pytest.mark.reliability("standard error closed", "the same")
def test_without_a_place_for_messages(small, tmp_path):
    """The file that would take the closed stream's place would get what belongs there."""
    words = ["deconvolve", small["tomogram"], "--defocus", "2", "--output"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    done = subprocess.run(
        [
            "sh",
            "-c",
            'exec "$@" 2>&-',
            "sh",
            sys.executable,
            "-m",
            "f2fd_core",
            *words,
            str(tmp_path / "out"),
        ],
        check=False,
    )
    assert done.returncode == 0
    name = "tomogram_deconvolved.mrc"
    assert (tmp_path / "out" / name).read_bytes()[1024:] == (
        tmp_path / "whole" / name
    ).read_bytes()[1024:]


@pytest.fixture
def raising(monkeypatch):
    """Let 'f2fd info' get signals, the first while it works, the others while it ends: the exit
    code."""

    def run(*numbers):
        def info(_):
            try:
                signal.raise_signal(numbers[0])
            finally:
                for number in numbers[1:]:
                    signal.raise_signal(number)

        config_class, _ = cli.COMMANDS["info"]
        monkeypatch.setitem(cli.COMMANDS, "info", (config_class, info))
        return main(["info"])

    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.reliability(
    "a second signal, of the same or another kind, while a run ends",
    "one sentence and the exit code of the first",
)
@pytest.mark.parametrize("first", ENDING_SIGNALS)
def test_only_the_first_signal_counts(first, raising, capsys):
    assert raising(first, *ENDING_SIGNALS, first) == 128 + first
    (sentence,) = capsys.readouterr().err.splitlines()
    ended = "interrupted" if first == signal.SIGINT else f"ended by {first.name}"
    assert sentence == f"f2fd: {ended}; what was finished is kept"


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_that_is_ignored_stays_so(number, raising):
    """As under nohup."""
    signal.signal(number, signal.SIG_IGN)
    assert raising(number) == 0
    assert signal.getsignal(number) == signal.SIG_IGN


def test_signals_are_as_before_after_a_run(raising):
    before = [signal.getsignal(number) for number in ENDING_SIGNALS]
    main(["dream"])
    assert [signal.getsignal(number) for number in ENDING_SIGNALS] == before


def test_broken_configuration_file(tmp_path, capsys):
    path = tmp_path / "train.json"
    for text, words in (
        ("{", "not valid JSON"),
        ("[1]", "holds a list"),
        ('{"stepz": 3}', "'stepz' is no parameter"),
    ):
        path.write_text(text)
        refused(["train", "--config", path], [words], capsys)


@pytest.mark.reliability(
    "settings files with deep lists, huge numbers, NUL in paths", "one short sentence"
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'{{"tomograms": {"[" * 10**5}{"]" * 10**5}}}', "is nested too deeply"),
        (f'{{"tomograms": {"[" * 200}{"]" * 200}}}', "--tomograms is [[[[[[[...]]]]]]]; expected"),
        ('{"preset": [["x"]]}', "--preset is [['x']]; expected a text"),
        (f'{{"steps": 1{"0" * 400}}}', "--steps is 1000"),
        (f'{{"learning_rate": -1{"0" * 400}}}', "--learning-rate is -1000"),
        (f'{{"steps": 1{"0" * 5000}}}', "0"),
        (f'{{"output": "{"x" * 10**6}"}}', "--output is 'xxxx"),
        (f'{{"loss": "{"x" * 4000}"}}', "--loss is 'xxxx"),
        (f'{{"{"x" * 10**6}": 3}}', "is no parameter of TrainConfig"),
        ('{"tomograms": ["a\\u0000b"]}', "--tomograms is 'a\\x00b'; expected a text that can"),
        ('{"output": "a\\ud800"}', "--output is 'a\\ud800'; expected a text that can be a path"),
    ],
)
def test_odd_settings_files(text, words, tmp_path, capsys):
    path = tmp_path / "train.json"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert words in sentence and len(sentence) < 300


@pytest.mark.slow
def test_whole_chain_as_a_program(tmp_path, capsys):
    """train, denoise and info as a user types them; also names with odd letters. What they begin
    with and what their result is worth is found in this process, which is faster."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "f2fd_core", *map(str, arguments)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    folder = tmp_path / "ein 100% ütiger Ordner"
    simulation = ["simulate", folder, "--shape", 32, 48, 48, "--seed", 2, "--snr", 0.3]
    assert main(list(map(str, simulation))) == 0
    run(
        "train",
        folder / "tomogram.mrc",
        "--output",
        folder / "run",
        "--steps",
        2,
        "--patch-size",
        16,
        "--batch-size",
        1,
    )
    run(
        "denoise",
        folder / "run" / "model.pt",
        folder / "tomogram.mrc",
        "--output",
        folder / "out",
        "--predictions",
        1,
    )
    capsys.readouterr()
    denoised = folder / "out" / "tomogram_denoised.mrc"
    evaluation = ["evaluate", denoised, "--reference", folder / "clean.mrc"]
    evaluation += ["--noisy", folder / "tomogram.mrc", "--membrane", folder / "membrane.mrc"]
    assert main(list(map(str, evaluation))) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"denoised", "noisy"}
    assert 0.1 < scores["noisy"]["correlation"] < 0.9
    assert 0 < scores["noisy"]["membrane_average_precision"] < 1
    assert main(["info", str(folder / "run" / "model.pt")]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["step"] == 2 and described["voxel_size"] == 10.0
    assert json.loads(run("info"))["device"] in ("cpu", "cuda:0")


@pytest.mark.slow
@pytest.mark.reliability("every command where PyTorch is not installed", "one sentence; info works")
def test_without_pytorch(tmp_path):
    """As in Scipion's own Python: a sentence of each command, but of those that need none."""
    out = ["--output", str(tmp_path / "out")]
    code = (
        "import sys; sys.modules['torch'] = None\nfrom f2fd_core.cli import main; sys.exit(main())"
    )
    for arguments in (
        ["train", "a.mrc", *out],
        ["denoise", "m.pt", "a.mrc", *out],
        ["deconvolve", "a.mrc", "--defocus", "3", *out],
        ["simulate", out[1]],
        ["benchmark", out[1]],
        ["evaluate", "a.mrc", "--reference", "b.mrc"],
        ["info", "m.pt"],
        ["info", "--benchmark"],
        ["info"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True
        )
        if arguments == ["info"]:
            assert done.returncode == 0 and json.loads(done.stdout)["torch"] is None
            continue
        assert done.returncode == 1 and done.stdout == "", arguments
        (line,) = done.stderr.splitlines()
        assert line.startswith("f2fd: error: ") and "torch" in line and "f2fd_core" in line
    assert not (tmp_path / "out").exists()


def test_deconvolve_as_a_command(small, tmp_path, capsys):
    words = [
        "deconvolve",
        small["tomogram"],
        small["odd"],
        "--output",
        str(tmp_path / "out"),
        "--defocus",
        "2",
        "--phase-flipped",
        "--threads",
        "all",
    ]
    assert main(words) == 0
    assert f"written to {tmp_path / 'out' / 'odd_deconvolved.mrc'}" in capsys.readouterr().err
    for name in ("tomogram", "odd"):
        expected = deconvolved(
            data(small[name]), 10.0, DeconvolveConfig(defocus=2.0, phase_flipped=True)
        )
        np.testing.assert_allclose(
            data(tmp_path / "out" / (name + "_deconvolved.mrc")),
            expected,
            atol=1e-4 * expected.std(),
        )
    refused(words, ["tomogram_deconvolved.mrc exists already", "--overwrite"], capsys)


def test_evaluate_refuses_other_shapes_and_empty_masks(phantom, write, capsys):
    other = write(np.random.default_rng(0).normal(size=(16, 16, 16)), "other.mrc")
    refused(
        ["evaluate", phantom["tomogram"], "--reference", other],
        ["other.mrc", "(16, 16, 16)", "(40, 48, 72)"],
        capsys,
    )
    empty = write(np.zeros((40, 48, 72)), "empty.mrc")
    refused(
        ["evaluate", phantom["tomogram"], "--reference", phantom["clean"], "--membrane", empty],
        ["empty.mrc", "no membrane"],
        capsys,
    )
    refused(["evaluate", empty, "--reference", phantom["clean"]], ["empty.mrc", "constant"], capsys)


def test_blocks_larger_than_the_volume(phantom, tmp_path, capsys):
    refused(
        [
            "train",
            phantom["tomogram"],
            "--output",
            tmp_path / "run",
            "--perturbation",
            "fourier_masks",
            "--block-size",
            41,
        ],
        ["--block-size is 41", "expected at most 40", phantom["tomogram"]],
        capsys,
    )
    assert not (tmp_path / "run").exists()


def test_half_maps_are_compared_by_shells_alone(phantom, capsys):
    assert main(["evaluate", phantom["odd"], "--half-map", phantom["even"]]) == 0
    scores = json.loads(capsys.readouterr().out)["half_maps"]
    odd, even = (torch.from_numpy(data(phantom[name])) for name in ("odd", "even"))
    frequency, curve = fourier_shell_correlation(odd, even)
    assert scores["fsc"]["correlation"] == pytest.approx(curve.tolist(), abs=1e-4)
    assert scores["fsc_mean"] == pytest.approx(float(curve.mean()), abs=1e-4)
    assert set(scores) == {"fsc", "fsc_mean", "fsc_0.5", "fsc_0.143"}
