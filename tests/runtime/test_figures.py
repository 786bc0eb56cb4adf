"""Pictures are drawn without a display, and without what Matplotlib keeps for interactive use."""

import os
import subprocess
import sys

import pytest
from PIL import Image

DRAW = """
import sys
from f2fd_core.runtime import figures

with figures.own_settings():
    figure = figures.new_figure()
    figure.subplots().plot([0, 1])
    figures.save(figure, sys.argv[1])
sys.exit("matplotlib.pyplot" in sys.modules)
"""


@pytest.mark.parametrize("backend", ["", "TkAgg"])
def test_no_backend_is_chosen(backend, tmp_path):
    path = str(tmp_path / "line.png")
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    if backend:
        environment["MPLBACKEND"] = backend
    subprocess.run([sys.executable, "-c", DRAW, path], env=environment, check=True)
    with Image.open(path) as picture:
        assert len(picture.getcolors(picture.width * picture.height)) > 10
