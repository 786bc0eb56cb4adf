"""Makes the README's picture of a real tomogram before and after: docs/microtubule.png.

    python tools/make_figures.py FOLDER docs

FOLDER holds microtubule_14pf.mrc, test data of the project cylindra (BSD-3-Clause), acquired at the
University of Tokyo. The tomogram goes through 'f2fd train' and 'f2fd denoise' with default options.
"""

import argparse
import os
import tempfile

import numpy as np

from f2fd_core import DenoiseConfig, TrainConfig, denoise, train
from f2fd_core.data import mrc
from f2fd_core.runtime import figures

TOMOGRAM = "microtubule_14pf.mrc"
# What is shown of the intensities, and an inch of the picture has so many voxels.
QUANTILES, VOXELS_AN_INCH = (0.002, 0.998), 25


def section(path):
    """The central XY section of a tomogram, (Y, X)."""
    volume = mrc.open_volume(path)
    return np.array(volume[volume.shape[0] // 2], dtype=np.float32), volume.true_voxel_size[0]


@figures.own_settings()
def draw(before, after, voxel_size, path):
    """Two sections side by side with a scale bar, Y going up."""
    height, width = before.shape
    figure = figures.new_figure(figsize=(2 * width / VOXELS_AN_INCH, height / VOXELS_AN_INCH + 0.3))
    for axes, values, title in zip(figure.subplots(1, 2), (before, after), ("tomogram", "F2Fd")):
        figures.show_section(axes, values, *np.quantile(values, QUANTILES))
        axes.set_title(title)
        axes.axis("off")
        length = 200 / voxel_size
        axes.plot([4, 4 + length], [4, 4], color="white", linewidth=3)
        axes.text(4 + length / 2, 6, "20 nm", color="white", ha="center", va="bottom", fontsize=9)
    figures.save(figure, path)


def main(argv=None):
    """Train, denoise and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("output")
    options = parser.parse_args(argv)
    tomogram = os.path.join(options.folder, TOMOGRAM)
    with tempfile.TemporaryDirectory() as folder:
        model = train(TrainConfig(tomograms=(tomogram,), output=os.path.join(folder, "run")))
        (result,) = denoise(DenoiseConfig(model=model, tomograms=(tomogram,), output=folder))
        (before, voxel_size), (after, _) = section(tomogram), section(result)
    draw(before, after, voxel_size, os.path.join(options.output, "microtubule.png"))


if __name__ == "__main__":
    main()
