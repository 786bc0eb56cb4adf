"""What pip and Scipion's installer make of the checkout."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
INSTALLER = textwrap.dedent("""
    import json, pathlib, sys
    from f2fd_scipion import headless
    headless.set_environment(sys.argv[1])
    from scipion.install.plugin_funcs import Environment, PluginInfo
    plugin = PluginInfo("scipion-em-f2fd", "scipion-em-f2fd", remote=False)
    environment = pathlib.Path(Environment.getEmFolder(), plugin.binVersions[0], "env")
    environment.mkdir(parents=True)
    plugin.uninstallBins()
    print(json.dumps([plugin.getPluginClass().getName(), plugin.binVersions,
                      environment.parent.exists()]))
""")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository, in which distributions can be built."""
    return shutil.copytree(
        REPOSITORY,
        tmp_path_factory.mktemp("checkout") / "scipion-em-f2fd",
        ignore=shutil.ignore_patterns(".*", "build", "dist", "demo", "*.egg-info", "__pycache__"),
    )


def installed(folder, *what):
    """Let pip install into a folder, without dependencies; returns {name: distribution}."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
            "--target",
            folder,
            *what,
        ],
        check=True,
    )
    return {
        found.metadata["Name"]: found
        for found in importlib.metadata.distributions(path=[str(folder)])
    }


def needed(distribution):
    """What a distribution asks for, extras apart."""
    return {
        re.match(r"[\w.-]+", text).group()
        for text in distribution.requires
        if "extra ==" not in text
    }


@pytest.mark.slow
def test_the_engine_is_installed_alone_and_whole(checkout, tmp_path):
    """Everything of f2fd_core, and nothing of Scipion."""
    engine = installed(tmp_path, checkout / "f2fd_core")["f2fd-core"]
    sources = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "f2fd_core").rglob("*")
        if path.suffix in (".py", ".pt") and "build" not in path.parts
    }
    assert sources == {str(path) for path in engine.files if path.suffix in (".py", ".pt")}
    assert "torch" in needed(engine)
    assert not any(name.startswith("scipion") for name in needed(engine))


@pytest.mark.slow
@pytest.mark.reliability(
    "Scipion's installer, with a wheel or the source",
    "it finds the plugin; uninstalling removes the engine, too",
)
@pytest.mark.parametrize("how", [[], ["--editable"]])
def test_scipions_installer_finds_the_plugin(how, checkout, tmp_path):
    """From a wheel and in developing mode (installp --devel), and removes the engine's environment
    with it; what the plugin needs comes without extras, which it doesn't install."""
    pytest.importorskip("scipion.constants")
    plugin = installed(tmp_path / "packages", *how, checkout)["scipion-em-f2fd"]
    assert {"scipion-em-tomo", "scipion-em", "scipion-pyworkflow"} == needed(plugin)
    environment = dict(os.environ, PYTHONPATH=str(tmp_path / "packages"))
    for name in ("SCIPION_HOME", "F2FD_HOME", "EM_ROOT"):
        environment.pop(name, None)
    if how:  # links to the checkout work in the folders of Python's own only
        environment["PYTHONPATH"] += os.pathsep + str(checkout)
    said = subprocess.run(
        [sys.executable, "-c", INSTALLER, tmp_path / "scipion"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    ).stdout
    assert json.loads(said.splitlines()[-1]) == ["F2Fd", ["f2fd-" + plugin.version], False]


def test_what_the_readme_shows_is_in_the_source_distribution(checkout, tmp_path):
    subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path],
        check=True,
        cwd=checkout,
    )
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    shown = re.findall(r"\]\(([\w./-]+)[#)]", (REPOSITORY / "README.md").read_text())
    assert "docs/microtubule.png" in shown and set(shown) <= names
    assert {"f2fd_core/pyproject.toml", "f2fd_core/requirements.txt"} <= names
