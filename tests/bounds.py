"""The engine's requirements at their lowest or newest, as arguments of pip: see the Makefile.

The bounds are those of setup.py, as the installed distribution tells them.
"""
import importlib.metadata
import re
import sys

TOOLS = ["pytest", "pytest-xdist", "hypothesis", "scikit-image", "setuptools<81"]
NAME = re.compile(r"[\w.-]+")
LOWEST = re.compile(r">=([\w.]+)")


def requirements(which):
    """A list such as ["numpy==1.23.2"] for 'lowest' and ["numpy"] for 'newest'."""
    found = []
    for text in importlib.metadata.requires("scipion-em-f2fd"):
        needed, _, condition = text.partition(";")
        if condition and "engine" not in condition:
            continue
        name = NAME.match(needed).group()
        found.append(name if which == "newest" else
                     "%s==%s" % (name, LOWEST.search(needed).group(1)))
    return found


if __name__ == "__main__":
    print(*requirements(sys.argv[1]), *map(repr, TOOLS))
