"""The engine's requirements at their lowest or newest, as arguments of pip: see the Makefile."""

import pathlib
import sys

REQUIREMENTS = pathlib.Path(__file__).parent.parent / "f2fd_core" / "requirements.txt"
TOOLS = ["pytest", "pytest-xdist", "hypothesis", "scikit-image", "setuptools<81", "zarr"]


def requirements(which):
    """A list such as ["numpy==1.23.2"] for 'lowest' and ["numpy"] for 'newest'."""
    return [
        line.replace(">=", "==") if which == "lowest" else line.split(">=")[0]
        for line in REQUIREMENTS.read_text().split()
    ]


if __name__ == "__main__":
    print(*requirements(sys.argv[1]), *map(repr, TOOLS))
