"""Installs the engine (f2fd_core) and the Scipion plugin (f2fd_scipion) as one distribution.

The heavy dependencies are extras, since the two packages usually live in different environments:
[engine] brings PyTorch, [scipion] the Scipion packages that the plugin needs.
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
    license="GPL-3.0-or-later",
    classifiers=[
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    python_requires=">=3.8",
    packages=find_packages(include=["f2fd_core*", "f2fd_scipion*"]),
    package_data={"f2fd_core": ["start.pt"],
                  "f2fd_scipion": ["*.png", "protocols.conf", "templates/*.json.template"]},
    install_requires=["numpy>=1.23.2", "mrcfile>=1.4.0", "matplotlib>=3.6.0", "tqdm>=4.60.0"],
    extras_require={
        "engine": ["torch>=2.1.0", "pytorch-msssim>=1.0.0"],
        "benchmark": ["scikit-image"],
        # scipion-em-tomo 3.12 imports what pyworkflow has since 3.11.6, but asks for less.
        "scipion": ["scipion-pyworkflow>=3.11.6", "scipion-em>=3.11", "scipion-em-tomo>=3.12",
                    "setuptools<81"],
        "test": ["pytest", "pytest-xdist", "hypothesis", "ruff", "scikit-image", "scipion-app",
                 "scipion-em-aretomo", "scipion-em-membrain", "scipion-em-tomosegmemtv"],
    },
    entry_points={
        "console_scripts": ["f2fd = f2fd_core.cli:main"],
        "pyworkflow.plugin": ["f2fd_scipion = f2fd_scipion"],
    },
)
