"""The pictures of a report."""

import os

import numpy as np

from f2fd_core.checking.halves import THRESHOLD
from f2fd_core.checking.planted import RECOVERED
from f2fd_core.checking.wedge import BELIEVED
from f2fd_core.runtime import figures

# The widest part of a tomogram that a picture shows, in voxels.
WIDEST = 256
# The thinnest, in voxels.
DEPTH = 8
# The pictures' files.
SLICES = "slices.png"
SHELLS = "shells.png"
PLANTED = "planted.png"
NOISE = "noise.png"
HALVES = "halves.png"
WEDGE = "wedge.png"


def draw(numbers, sections, volume, denoiser, maps, folder):
    """Draw what the ``numbers`` and ``maps`` of a tomogram show; ``sections``: those of what is
    made of noise alone, see :func:`~f2fd_core.checking.examine.examine`."""
    draw_slices(volume, denoiser, maps, os.path.join(folder, SLICES))
    draw_shells(numbers["shells"], os.path.join(folder, SHELLS))
    draw_noise(sections, os.path.join(folder, NOISE))
    if numbers["planted"]:
        draw_planted(numbers["planted"], os.path.join(folder, PLANTED))


@figures.own_settings()
def draw_slices(volume, denoiser, maps, path):
    """The central XY section before and after denoising, and both maps there."""
    size = [min(side, most) for side, most in zip(volume.shape, (DEPTH, WIDEST, WIDEST))]
    first = [(length - side) // 2 for length, side in zip(volume.shape, size)]
    middle, rows, columns = (slice(at, at + side) for at, side in zip(first, size))
    z = size[0] // 2
    before, after = (values[z] for values in (volume.region(first, size), denoiser((first, size))))
    error, removed = (
        maps[name].section(middle.start + z)[rows, columns] for name in ("error", "removed")
    )
    figure = figures.new_figure(figsize=(13, 13 / 4 * size[1] / size[2] + 0.9))
    panels = figure.subplots(1, 4)
    for axes, title, values in ((panels[0], "tomogram", before), (panels[1], "denoised", after)):
        figures.show_section(axes, values, *np.quantile(values, figures.CONTRAST_QUANTILES))
        axes.set_title(title)
    for axes, title, values, limits in (
        (panels[2], "relative error", error, (0, 1)),
        (panels[3], "structure in what was removed", removed, (-1, 1)),
    ):
        image = axes.imshow(
            values,
            cmap="viridis" if limits[0] == 0 else "coolwarm",
            vmin=limits[0],
            vmax=limits[1],
            origin="lower",
        )
        axes.set_title(title)
        figure.colorbar(image, ax=axes, shrink=0.8)
    for axes in panels:
        axes.axis("off")
    figures.save(figure, path)


@figures.own_settings()
def draw_shells(shells, path):
    """What the shells show: correlation with the truth, response to noise, what was removed."""
    figure = figures.new_figure(figsize=(13, 5))
    panels = figure.subplots(1, 3)
    frequency = shells["frequency"]
    for key, label, style in (
        ("fsc", "denoised", "-"),
        ("fsc_of_reference", "short training", ":"),
        ("fsc_of_tomogram", "tomogram as it is", "--"),
    ):
        panels[0].plot(frequency, shells[key], style, label=label)
    panels[0].axhline(0.5, color="0.6", linewidth=0.8)
    panels[0].set(title="FSC with the truth, estimated", ylim=(-0.1, 1.05))
    panels[1].plot(frequency, shells["response"], label="response to a little noise")
    panels[1].plot(frequency, shells["coherence"], label="coherence of removed and denoised")
    panels[1].axhline(0, color="0.6", linewidth=0.8)
    panels[1].set(title="Response and coherence")
    panels[2].plot(frequency, shells["removed_over_noise"], label="power removed over noise")
    panels[2].plot(frequency, shells["noise_share"], "--", label="share of noise in the tomogram")
    panels[2].axhline(1, color="0.6", linewidth=0.8)
    panels[2].set(title="What was removed", ylim=(0, max(1.5, *shells["removed_over_noise"])))
    for axes in panels:
        axes.set_xlabel("spatial frequency (1/Å)")
        # Below the axes, where no curve runs.
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figures.save(figure, path)


@figures.own_settings()
def draw_planted(planted, path):
    """How much of a planted structure comes out, by its contrast."""
    figure = figures.new_figure(figsize=(9, 4))
    left, right = figure.subplots(1, 2)
    for name, found in planted.items():
        left.plot(found["contrast"], found["recovered"], marker=".", label=name)
        right.plot(found["contrast"], found["beside"], marker=".")
    left.axhline(RECOVERED, color="0.6", linewidth=0.8)
    left.set(title="share of the contrast that comes out", ylim=(0, 1.1))
    right.set(title="change beside it, over what was planted", ylim=(0, None))
    for axes in (left, right):
        axes.set(xlabel="contrast (standard deviations of the tomogram)", xscale="log")
    left.legend(frameon=False, fontsize=8)
    figures.save(figure, path)


@figures.own_settings()
def draw_noise(sections, path):
    """The result, noise alone, and what is made of it: the first and the last in the same grays."""
    height, width = sections["result"].shape
    figure = figures.new_figure(figsize=(10, 10 / 3 * height / width + 0.4))
    low, high = np.quantile(sections["result"], figures.CONTRAST_QUANTILES)
    for axes, (title, key) in zip(
        figure.subplots(1, 3),
        (
            ("denoised tomogram", "result"),
            ("noise of the tomogram's spectrum", "noise"),
            ("what the model makes of it", "null"),
        ),
    ):
        values = sections[key]
        limits = np.quantile(values, figures.CONTRAST_QUANTILES) if key == "noise" else (low, high)
        figures.show_section(axes, values, *limits)
        axes.set_title(title)
        axes.axis("off")
    figures.save(figure, path)


@figures.own_settings()
def draw_halves(halves, path):
    """The Fourier shell correlation between the half-maps, before and after denoising."""
    figure = figures.new_figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.plot(halves["frequency"], halves["fsc"], label="denoised, each by a model of its own")
    axes.plot(halves["frequency"], halves["fsc_before"], "--", label="as they are")
    axes.axhline(THRESHOLD, color="0.6", linewidth=0.8)
    axes.set(
        xlabel="spatial frequency (1/Å)", ylabel="Fourier shell correlation", ylim=(-0.1, 1.05)
    )
    axes.legend(frameon=False)
    figures.save(figure, path)


@figures.own_settings()
def draw_wedge(wedge, planes, path):
    """The central plane across the tilt axis, as it is, denoised and filled, and how much of the
    directions that were hidden was predicted; see :func:`~f2fd_core.checking.wedge.examine_wedge`.
    """
    cut = {name: _middle_of(values) for name, values in planes.items()}
    depth, width = cut["tomogram"].shape
    figure = figures.new_figure(figsize=(13, 13 / 2.2 * depth / width + 4.4))
    above, below = figure.subfigures(2, 1, height_ratios=(13 / 2.2 * depth / width + 0.4, 4))
    titles = {
        "tomogram": "tomogram",
        "denoised": "denoised",
        "filled": "filled: partly predicted, not measured",
    }
    for axes, (name, title) in zip(above.subplots(1, 3), titles.items()):
        values = cut[name]
        limits = np.quantile(
            values if name == "tomogram" else cut["denoised"], figures.CONTRAST_QUANTILES
        )
        figures.show_section(axes, values, *limits)
        axes.set_title(title)
        axes.axis("off")
    axes = below.subplots()
    axes.plot(wedge["frequency"], [np.nan if one is None else one for one in wedge["fsc"]])
    axes.axhline(BELIEVED, color="0.6", linewidth=0.8)
    axes.set(
        title="prediction and signal in directions that were hidden from the network",
        xlabel="spatial frequency (1/Å)",
        ylabel="Fourier shell correlation",
        ylim=(-0.1, 1.05),
    )
    figures.save(figure, path)


def _middle_of(values):
    """The middle of a section (depth, across), no wider than WIDEST."""
    first = max((values.shape[1] - WIDEST) // 2, 0)
    return values[:, first : first + WIDEST]
