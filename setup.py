"""Installs the Scipion plugin (f2fd_scipion) and the engine's code (f2fd_core), of which the plugin
needs the configuration.

What the engine needs beyond that is the extra [engine], since it usually lives in an environment of
its own: there f2fd_core/pyproject.toml installs it, without anything of Scipion.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+?)"', (here / "f2fd_core/__init__.py").read_text()).group(1)

setup(
    name="scipion-em-f2fd",
    version=version,
    description="F2Fd: denoise cryo-electron tomograms from one volume, alone or in Scipion",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The F2Fd for Scipion developers",
    url="https://github.com/scipion-em/scipion-em-f2fd",
    project_urls={"Original program": "https://github.com/Fickincool/F2Fd"},
    keywords=[
        "scipion",
        "cryo-em",
        "cryo-et",
        "electron-tomography",
        "tomogram",
        "denoising",
        "image-processing",
        "scipion-3.0",
    ],
    license="GPL-3.0-or-later",
    classifiers=[
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    python_requires=">=3.8",
    packages=find_packages(include=["f2fd*"]),
    package_data={
        "f2fd_core": ["network/pretrained.pt", "py.typed", "pyproject.toml", "requirements.txt"],
        "f2fd_scipion": ["*.png", "protocols.conf", "templates/*.json.template"],
    },
    # scipion-em-tomo 3.12 imports what pyworkflow has since 3.11.6, but asks for less.
    install_requires=["scipion-pyworkflow>=3.11.6", "scipion-em>=3.11", "scipion-em-tomo>=3.12"],
    extras_require={
        "engine": (here / "f2fd_core/requirements.txt").read_text().split(),
        "benchmark": ["scikit-image"],
        "star": ["starfile"],
        "zarr": ["zarr"],
        "copick": ["copick", "zarr"],
        "test": [
            "copick; python_version >= '3.9'",
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "hypothesis",
            "mypy",
            "ruff",
            "scikit-image",
            "scipion-app",
            "scipion-em-aretomo",
            "scipion-em-membrain",
            "scipion-em-motioncorr",
            "scipion-em-tomosegmemtv",
            "setuptools<81",
            "starfile",
            "zarr",
        ],
    },
    entry_points={
        "console_scripts": ["f2fd = f2fd_core.cli:main"],
        "pyworkflow.plugin": ["f2fd_scipion = f2fd_scipion"],
    },
)
