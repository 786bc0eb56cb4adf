"""What the engine touches beyond its own files: the network, the shell, the rest of the disk."""

import ast
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("f2fd_core", "f2fd_scipion", "benchmarks")
    for path in (REPOSITORY / folder).rglob("*.py")
    if "tests" not in path.relative_to(REPOSITORY).parts
)
GUARDED = textwrap.dedent("""
    import json, sys

    def guard(event, arguments):
        if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
            raise RuntimeError("network: %s %s" % (event, arguments))
        if event == "os.system" or event == "subprocess.Popen" and (
                arguments[0].rsplit("/", 1)[-1] in ("sh", "bash", "dash")):
            raise RuntimeError("shell: %s" % (arguments,))

    sys.addaudithook(guard)
""")
RUN = GUARDED + textwrap.dedent("""
    from f2fd_core.cli import main
    for arguments in json.loads(sys.argv[1]):
        if main(arguments):
            sys.exit("failed: %s" % arguments)
""")
CACHES = {".cache/matplotlib", ".config/matplotlib"}


def tree(folder):
    """{relative path of a file: its content and date of change}."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.reliability(
    "commands where every connection and every shell is an error, with all folders watched",
    "only the output folders have changed",
)
def test_no_network_no_shell_and_nothing_outside_the_output(tmp_path):
    home, here, temporary, inputs, out = (
        tmp_path / name for name in ("home", "here", "temporary", "inputs", "out")
    )
    for folder in (home, here, temporary):
        folder.mkdir()
    environment = dict(os.environ, HOME=str(home), TMPDIR=str(temporary))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        environment.pop(name, None)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def run(*commands):
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps([list(map(str, words)) for words in commands])],
            capture_output=True,
            text=True,
            cwd=here,
            env=environment,
        )
        assert done.returncode == 0, done.stderr

    run(["simulate", inputs, "--shape", 24, 32, 32, "--seed", 1])
    before = tree(inputs)
    tomogram, small = (
        inputs / "tomogram.mrc",
        ["--patch-size", 16, "--batch-size", 1, "--features", 2, "--spectrum-window", 16],
    )
    run(
        ["train", tomogram, "--output", out / "run", "--steps", 2, *small],
        [
            "train",
            tomogram,
            "--output",
            out / "masks",
            "--steps",
            1,
            "--perturbation",
            "masks",
            "--pool-size",
            2,
            *small,
        ],
        ["denoise", out / "run" / "model.pt", tomogram, "--output", out / "denoised", "--std"],
        ["deconvolve", tomogram, "--output", out / "deconvolved", "--defocus", 3],
        [
            "evaluate",
            out / "denoised" / "tomogram_denoised.mrc",
            "--reference",
            inputs / "clean.mrc",
        ],
        ["info", out / "run" / "model.pt"],
    )
    assert tree(inputs) == before
    assert tree(here) == {} and tree(temporary) == {}
    assert {"/".join(name.split("/")[:2]) for name in tree(home)} <= CACHES
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "here",
        "home",
        "inputs",
        "out",
        "temporary",
    ]


@pytest.mark.parametrize(
    ("forbidden", "word"),
    [
        ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "network: "),
        ("import os; os.system('true')", "shell: "),
        ("import subprocess; subprocess.run('true', shell=True)", "shell: "),
    ],
)
def test_the_guard_sees_what_it_must(forbidden, word):
    done = subprocess.run(
        [sys.executable, "-c", GUARDED + forbidden], capture_output=True, text=True
    )
    assert done.returncode and word in done.stderr


def calls(path):
    """Every call in a source file, as (dotted name, {keyword: its source})."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {item.arg: ast.unparse(item.value) for item in node.keywords},
            )


@pytest.mark.skipif(sys.version_info < (3, 9), reason="ast.unparse came with Python 3.9")
def test_shells_and_pickles_in_the_source():
    """Shell text has one place, the plugin's engine.py; nothing is unpickled but plain weights."""
    with_shell, loads = [], 0
    for path in SOURCES:
        for name, keywords in calls(path):
            if keywords.get("shell") == "True" or name in ("os.system", "os.popen"):
                with_shell.append(path.name)
            assert name not in ("pickle.load", "pickle.loads", "eval", "exec"), path
            if name == "torch.load":
                loads += 1
                assert keywords.get("weights_only") == "True", path
            if name == "np.load":
                assert keywords.get("allow_pickle", "False") == "False", path
    assert with_shell == ["engine.py"]
    assert loads > 0


def imported(path):
    """The top-level names of the packages that a source file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name.split(".")[0] for item in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_the_two_packages_keep_apart():
    forbidden = {
        "f2fd_core": {"pyworkflow", "pwem", "tomo", "f2fd_scipion"},
        "f2fd_scipion": {"torch"},
    }
    for package, names in forbidden.items():
        for path in (REPOSITORY / package).rglob("*.py"):
            assert not names & set(imported(path)), path


@pytest.mark.slow
@pytest.mark.reliability(
    "pip check in the environment of the tests", "no conflict with anything of Scipion"
)
def test_the_installed_packages_agree():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_denoising_does_not_wait_for_the_compiler(tmp_path, small):
    """PyTorch's takes as long to import as PyTorch; nothing needs it unless --compile is given."""
    model = REPOSITORY / "tests" / "models" / "1.2.0_model.pt"
    command = ["denoise", model, small["tomogram"], "--output", tmp_path, "--device", "cpu"]
    code = RUN + 'sys.exit("torch._dynamo" in sys.modules)\n'
    subprocess.run(
        [sys.executable, "-c", code, json.dumps([[str(word) for word in command]])],
        check=True,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
    )
