"""The documents' code blocks do what they say: they are run, on tiny tomograms.

Each page has a folder of its own, in which its blocks run one after the other. What a command reads
and no command before it wrote is put there under the name that the page gives it.
"""

import glob
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import data

from f2fd_core import SimulateConfig, TrainConfig, cli, simulate, train
from f2fd_core.checking import start
from f2fd_core.data import formats

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LANGUAGES = {"bash", "python", "text", "json"}
SIDE = 32
# Lines that begin like this are not run; why.
NOT_RUN = {
    "pip install": "changes the environment of the tests",
    "python3 -m venv": "installs, from the network",
    "f2fd-env/bin/": "belongs to an environment that is not made here",
    "scipion3 ": "needs Scipion; f2fd_scipion/tests run the protocols",
    "python benchmarks/": "takes minutes to hours",
    "python tools/": "takes minutes to hours",
    "f2fd info --benchmark": "measures for half a minute",
    "f2fd run tomograms/ --output session": "waits for tomograms that are still to come",
    "make ": "runs these very tests, or Scipion",
}
# What keeps a command short, where it does not say it itself.
SHORT = {
    "simulate": {"--shape": f"{SIDE} {SIDE} {SIDE}"},
    "train": {"--steps": "1", "--patch-size": "16", "--batch-size": "2"},
    "run": {"--steps": "1"},
    "benchmark": {"--methods": "gaussian", "--steps": "1", "--shape": f"{SIDE} {SIDE} {SIDE}"},
}
# The files of a folder that a page names, without ".mrc"; of others: two tomograms.
FOLDERS = {
    "aretomo": ("TS_01_Vol", "TS_01_ODD_Vol", "TS_01_EVN_Vol"),
    "warp_tiltseries": ("TS_01_10.00Apx", "even/TS_01_10.00Apx", "odd/TS_01_10.00Apx"),
    "Tomograms": ("rec_TS_01", "rec_TS_01_half1", "rec_TS_01_half2"),
    "imod": ("TS_01_rec", "TS_01_ODD_rec", "TS_01_EVN_rec"),
}
STAR = """data_global

loop_
_rlnTomoName #1
_rlnTomoReconstructedTomogram #2
_rlnTomoReconstructedTomogramHalf1 #3
_rlnTomoReconstructedTomogramHalf2 #4
TS_01 {0}/rec_TS_01.mrc {0}/rec_TS_01_half1.mrc {0}/rec_TS_01_half2.mrc
"""
SOURCES = {"odd": "odd", "half1": "odd", "even": "even", "evn": "even", "half2": "even"}
SOURCES.update(clean="clean", membrane="membrane", mask="membrane")

pytestmark = pytest.mark.slow


def blocks(page, *languages):
    """The texts of a page's blocks in one of the ``languages``."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the volumes of a tiny simulation, and a model."""
    folder = tmp_path_factory.mktemp("made")
    simulate(SimulateConfig(output=str(folder), shape=(SIDE,) * 3))
    tomograms = (str(folder / "tomogram.mrc"),)
    settings = dict(output=str(folder), steps=1, patch_size=16, batch_size=2)
    train(TrainConfig(tomograms=tomograms, device="cpu", **settings))
    return folder


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch):
    """The check's own training takes a step."""
    monkeypatch.setattr(start, "STEPS", 1)


def put(path, made):
    """Put what a file is called like there: a model, a half-map, else a tomogram."""
    words = "/".join(path.parts[-2:]).lower()
    name = next((source for mark, source in SOURCES.items() if mark in words), "tomogram")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made / ("model.pt" if path.suffix == ".pt" else f"{name}.mrc"), path)


def provide(word, made):
    """Put there what a ``word`` of a command names and no command has written."""
    path = Path(word)
    folder = path.parent if path.suffix else path
    if path.suffix not in (".mrc", ".pt", ".star", ".txt") and not word.endswith("/"):
        return
    if glob.glob(word) or folder.exists() and folder != Path("."):
        return  # what is missing beside a command's results is a mistake of the page
    if folder != Path(".") and path.suffix != ".pt":
        for name in FOLDERS.get(folder.parts[0], ("TS_01", "TS_02")):
            put(folder / f"{name}.mrc", made)
    if path.suffix == ".star":
        pytest.importorskip("starfile")
        path.write_text(STAR.format(folder), encoding="utf-8")
    elif path.suffix == ".txt":
        put(Path("TS_01.mrc"), made)
        path.write_text("TS_01.mrc\n", encoding="utf-8")
    elif path.suffix and not glob.has_magic(word):
        put(path, made)


def put_project(name, made):
    """Make a copick project of two runs with this configuration."""
    pytest.importorskip("copick")
    static, values = Path("static").resolve(), data(str(made / "tomogram.mrc"))
    for run in ("TS_01", "TS_02"):
        place = static / "ExperimentRuns" / run / "VoxelSpacing10.000"
        place.mkdir(parents=True)
        with formats.new_volume(
            str(place / "wbp.zarr"), shape=values.shape, voxel_size=(10.0,) * 3
        ) as output:
            output[:] = values
    described = dict(
        config_type="filesystem",
        name="project",
        description="",
        version="1.0.0",
        pickable_objects=[],
        overlay_root=f"local://{Path('overlay').resolve()}",
        overlay_fs_args={"auto_mkdir": True},
        static_root=f"local://{static}",
        static_fs_args={},
    )
    Path(name).write_text(json.dumps(described), encoding="utf-8")


def run_command(words, made):
    """``f2fd`` with these words and what keeps it short."""
    if "--copick" in words and not Path(words[words.index("--copick") + 1]).exists():
        put_project(words[words.index("--copick") + 1], made)
    for word in words:
        provide(word, made)
    for option, values in SHORT.get(words[0], {}).items():
        if option not in words:
            words = [*words, option, *values.split()]
        elif option == "--steps":
            words[words.index(option) + 1] = "1"
    if words[0] not in ("info", "evaluate") and "--resume" not in words:
        words = [*words, "--overwrite"]
    assert cli.main(words) == 0, words


def run_line(line, made):
    if line.startswith(tuple(NOT_RUN)):
        return
    # Without Slurm the one task is this process.
    words = shlex.split(re.sub(r"^srun (--\S+ )*", "", line), comments=True)
    if words and words[0] == "f2fd":
        run_command(words[1:], made)
    else:
        subprocess.run(["bash", "-ec", line], check=True)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=str)
def test_shell_blocks_run(page, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            run_line(line.strip(), made)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=str)
def test_python_blocks_run(page, made, tmp_path, monkeypatch):
    for number, block in enumerate(blocks(page, "python")):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        for word in re.findall(r'"([^"]+\.mrc)"', block):
            provide(word, made)
        exec(compile(re.sub(r"steps=\d+", "steps=1", block), str(page), "exec"), {})


def test_all_blocks_have_a_language():
    """What is neither bash nor python is text, which nothing runs."""
    for page in PAGES:
        assert set(dict(BLOCK.findall(page.read_text(encoding="utf-8")))) <= LANGUAGES, page


def test_what_is_not_run_is_there():
    lines = [
        line.strip()
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.split("\n")
    ]
    unused = [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)]
    assert not unused
