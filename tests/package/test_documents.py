"""The documents: their links lead somewhere, and what they say to type is taken."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from f2fd_core import cli

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")]
)
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or anchor and anchor not in anchors(other):
            broken.append(target)
    assert not broken


def commands():
    """(page, line) of every command ``f2fd`` in a block of a page, with its continuation."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = re.sub(r"^srun ", "", line)
                if words.startswith("f2fd "):
                    yield pytest.param(words, id=f"{page.name}: {words[:40]}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_are_taken_as_they_stand(line, tmp_path, monkeypatch):
    """By the parser, with all files that they name; what they do has tests of its own."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)[1:]
    for word in words:
        if word.endswith("/"):
            (tmp_path / word).mkdir()
            (tmp_path / word / "tomogram.mrc").touch()
        elif word.endswith((".mrc", ".pt")):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).touch()
    if "--copick" in words:
        pytest.importorskip("copick")
        make_project(tmp_path, words[words.index("--copick") + 1])
    cli.parse(words)


def make_project(folder, name):
    """A copick project with the runs and the type that the documents name."""
    for run in ("TS_01", "TS_02"):
        (folder / "ExperimentRuns" / run / "VoxelSpacing10.000" / "wbp.zarr").mkdir(parents=True)
    described = {
        "config_type": "filesystem",
        "name": "project",
        "description": "",
        "version": "1.0.0",
        "pickable_objects": [],
        "overlay_root": f"local://{folder}",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    (folder / name).write_text(json.dumps(described))


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def sentences():
    """All texts in the engine's code, with "…" for what is filled in."""
    texts = []
    for path in (REPOSITORY / "f2fd_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_the_sentences_of_troubleshooting_are_the_programs():
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    quoted = re.findall("`(.*?)`", " ".join(rows))
    assert len(quoted) > 15
    texts = sentences()
    for words in quoted:
        parts = [re.escape(part.strip()) for part in words.split("…")]
        found = re.compile(".*".join(parts), re.DOTALL)
        assert any(found.search(text) for text in texts), words
