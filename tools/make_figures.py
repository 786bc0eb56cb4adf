"""Makes the pictures of README.md and docs/ that are no screenshots.

    python tools/make_figures.py microtubule docs --tomogram microtubule_14pf.mrc
    python tools/make_figures.py tutorial docs/tutorial
    python tools/make_figures.py wedge docs [--tomogram microtubule_14pf.mrc]
    python tools/make_figures.py method docs

microtubule: a real tomogram before and after, by 'f2fd train' and 'f2fd denoise' with default
options; microtubule_14pf.mrc is test data of the project cylindra (BSD-3-Clause), acquired at the
University of Tokyo. tutorial: what the commands of docs/tutorial.md draw, in some minutes. wedge:
what those of docs/wedge.md draw of the missing wedge, in a simulated cell with less noise or in the
real tomogram. method:
the way from one tomogram to a pair and to the result, and what is known of its noise.
"""

import argparse
import os
import tempfile

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from PIL import Image

from f2fd_core import (
    CheckConfig,
    DenoiseConfig,
    SimulateConfig,
    TrainConfig,
    denoise,
    simulate,
    train,
)
from f2fd_core import check as check_model
from f2fd_core.data import mrc
from f2fd_core.data.volume import Volume
from f2fd_core.perturbation.noise_matched import NoiseMatched, noise_of
from f2fd_core.runtime import figures, files
from f2fd_core.runtime.randomness import Randomness

# What is shown of the intensities, and an inch of the picture has so many voxels.
QUANTILES = (0.002, 0.998)
VOXELS_AN_INCH = 25
# So few steps from random weights make a model that removes signal, too.
TOO_FEW = 25
# Pictures of noise are large: so many shades of gray, and no more pixels across.
GRAYS = 48
WIDEST = 1200
BOX = dict(boxstyle="round", facecolor="white", edgecolor="C0")
CHECKED = ("slices", "shells", "noise", "planted")


def shrunk(path, copy, colors=0):
    """Write a copy of a picture that is no larger than it need be, of so many ``colors``; 0: of all
    that it has, but of few grays if it is gray."""
    with Image.open(path) as picture:
        picture = picture.convert("RGB")
        if picture.width > WIDEST:
            height = round(picture.height * WIDEST / picture.width)
            picture = picture.resize((WIDEST, height), Image.LANCZOS)
        if np.ptp(np.asarray(picture), axis=2).max() == 0:
            colors = GRAYS
        if colors:
            picture = picture.quantize(colors, dither=Image.Dither.NONE)
        picture.save(copy, optimize=True)


def section(path):
    """The central XY section of a tomogram, (Y, X), and its voxel size (Å)."""
    volume = mrc.open_volume(path)
    return np.array(volume[volume.shape[0] // 2], dtype=np.float32), volume.true_voxel_size[0]


def show(axes, values, title, limits=None):
    """A section in shades of gray, Y going up."""
    figures.show_section(
        axes, values, *np.quantile(values, QUANTILES) if limits is None else limits
    )
    axes.set_title(title)
    axes.axis("off")


@figures.own_settings()
def draw_before_and_after(before, after, voxel_size, path):
    """Two sections side by side with a scale bar."""
    height, width = before.shape
    figure = figures.new_figure(figsize=(2 * width / VOXELS_AN_INCH, height / VOXELS_AN_INCH + 0.3))
    for axes, values, title in zip(figure.subplots(1, 2), (before, after), ("tomogram", "F2Fd")):
        show(axes, values, title)
        length = 200 / voxel_size
        axes.plot([4, 4 + length], [4, 4], color="white", linewidth=3)
        axes.text(4 + length / 2, 6, "20 nm", color="white", ha="center", va="bottom", fontsize=9)
    figures.save(figure, path)


def microtubule(options, folder):
    """microtubule.png."""
    model = train(TrainConfig(tomograms=(options.tomogram,), output=os.path.join(folder, "run")))
    (result,) = denoise(DenoiseConfig(model=model, tomograms=(options.tomogram,), output=folder))
    (before, voxel_size), (after, _) = section(options.tomogram), section(result)
    path = os.path.join(options.output, "microtubule.png")
    draw_before_and_after(before, after, voxel_size, path)


def simulated(folder):
    """The folder of the simulated cell."""
    path = os.path.join(folder, "sim")
    simulate(SimulateConfig(output=path))
    return path


def tutorial(options, folder):
    """Every picture that training, denoising and check draw, and a bad slices.png."""
    tomogram = os.path.join(simulated(folder), "tomogram.mrc")
    run, bad, report = (os.path.join(folder, name) for name in ("run", "bad", "report"))
    model = train(TrainConfig(tomograms=(tomogram,), output=run))
    train(TrainConfig(tomograms=(tomogram,), output=bad, start="random", steps=TOO_FEW))
    check_model(CheckConfig(model=model, tomograms=(tomogram,), output=report))
    for name in ("slices", "spectrum", "loss", "histogram"):
        shrunk(os.path.join(run, name + ".png"), os.path.join(options.output, name + ".png"))
    shrunk(os.path.join(bad, "slices.png"), os.path.join(options.output, "bad.png"))
    for name in CHECKED:
        shrunk(
            os.path.join(report, "tomogram", name + ".png"),
            os.path.join(options.output, f"check_{name}.png"),
        )


def wedge(options, folder):
    """What the check says of a missing wedge that was filled, in a tomogram or a simulated one."""
    path = options.tomogram
    if not path:
        config = SimulateConfig(output=folder, shape=(64, 128, 128), snr=0.3)
        path = simulate(config)["tomogram"]
    run, report = (os.path.join(folder, name) for name in ("run", "report"))
    model = train(TrainConfig(tomograms=(path,), output=run, fill_wedge=True))
    check_model(CheckConfig(model=model, tomograms=(path,), output=report))
    picture = os.path.join(report, files.stem(path), "wedge.png")
    name = "wedge_real.png" if options.tomogram else "wedge.png"
    shrunk(picture, os.path.join(options.output, name))


def arrow(figure, begin, end, words=""):
    """An arrow between two points of a figure (0 to 1), with words above its middle."""
    figure.add_artist(
        ConnectionPatch(
            begin,
            end,
            "figure fraction",
            "figure fraction",
            arrowstyle="-|>",
            mutation_scale=18,
            color="C0",
            linewidth=2,
        )
    )
    x, y = np.mean([begin, end], axis=0)
    figure.text(x, y + 0.03, words, ha="center", va="bottom", color="C0", fontsize=11)


@figures.own_settings()
def draw_pipeline(before, inputs, targets, after, path):
    """From a tomogram to the two copies of a pair, and to the result: four sections."""
    figure = Figure(figsize=(12, 5.4))
    limits = np.quantile(inputs, QUANTILES)
    width, height = 0.16, 0.36
    for (x, y), values, title, gray in (
        ((0.01, 0.3), before, "tomogram X", limits),
        ((0.36, 0.56), inputs, "input X + αn", limits),
        ((0.36, 0.04), targets, "target X − n/α", limits),
        ((0.83, 0.3), after, "result", None),
    ):
        show(figure.add_axes((x, y, width, height)), values, title, gray)
    figure.text(0.605, 0.48, "3D U-Net", ha="center", va="center", fontsize=14, bbox=BOX)
    arrow(figure, (0.18, 0.5), (0.35, 0.7))
    arrow(figure, (0.18, 0.46), (0.35, 0.26))
    figure.text(0.265, 0.48, "noise n\nof the same\nspectrum", ha="center", va="center", bbox=BOX)
    arrow(figure, (0.53, 0.7), (0.605, 0.55))
    arrow(figure, (0.605, 0.41), (0.53, 0.26))
    figure.text(0.595, 0.29, "learns to predict", ha="left", color="C0", fontsize=11)
    arrow(figure, (0.665, 0.48), (0.82, 0.48), "four orientations\nof X, their mean")
    figures.save(figure, path)


@figures.own_settings()
def draw_noise(estimate, true, voxel_size, path):
    """The power of a tomogram, of its noise as estimated, and of its true noise."""
    figure = figures.new_figure(figsize=(7, 4))
    axes = figure.subplots()
    frequency = figures.plot_noise(axes, estimate, voxel_size)
    axes.plot(frequency, true, "k--", label="noise, true")
    axes.set_ylim(0, None)
    axes.legend(frameon=False)
    figures.save(figure, path)


def method(options, folder):
    """pipeline.png and noise.png."""
    place = simulated(folder)
    tomogram, difference = (os.path.join(place, f"{name}.mrc") for name in ("tomogram", "noise"))
    config = TrainConfig(tomograms=(tomogram,), output=os.path.join(folder, "run"))
    (result,) = denoise(DenoiseConfig(model=train(config), tomograms=(tomogram,), output=folder))
    noisy, clean = (
        np.array(mrc.open_volume(os.path.join(place, name))[:], np.float32)
        for name in ("tomogram.mrc", "clean.mrc")
    )
    volume = Volume(tomogram)
    voxel_size = volume.source.true_voxel_size[0]
    mrc.write_volume(difference, noisy - clean, voxel_size)
    noise = Volume(difference)
    known, alone = (noise_of(each, config, "cpu").by_shell() for each in (volume, noise))
    draw_noise(
        known,
        np.array(alone["total"]) * (noise.std / volume.std) ** 2,
        voxel_size,
        os.path.join(options.output, "noise.png"),
    )
    start, size = (volume.shape[0] // 2, 0, 0), (1, *volume.shape[1:])
    pairs = NoiseMatched(volume, config).pairs(start, size, 1, Randomness.of("cpu", 0))
    inputs, targets = (values[0, 0].numpy() for values in (pairs.inputs, pairs.targets))
    before = volume.region(start, size)[0]
    path = os.path.join(options.output, "pipeline.png")
    draw_pipeline(before, inputs, targets, section(result)[0], path)
    shrunk(path, path, colors=2 * GRAYS)


PARTS = {part.__name__: part for part in (microtubule, tutorial, wedge, method)}


def main(argv=None):
    """Make the pictures of one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("output", help="folder of the pictures")
    parser.add_argument("--tomogram", help="of the parts microtubule and wedge")
    options = parser.parse_args(argv)
    os.makedirs(options.output, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        PARTS[options.part](options, folder)


if __name__ == "__main__":
    main()
