"""The pictures that F2Fd draws, with Matplotlib's own settings and texts as they are."""

import contextlib
import shutil
import threading

import numpy as np

from f2fd_core.runtime.files import replaced
from f2fd_core.runtime.train_log import column, read_log, signal_explained

# Quantiles of the intensities that are drawn black and white.
CONTRAST_QUANTILES = (0.005, 0.995)
# Pixels between the sections of a picture.
GAP = 4
# What our pictures say that they were made with, within so many bytes.
SOFTWARE = "F2Fd"
HEAD_BYTES = 200
DRAWING = threading.Lock()  # Matplotlib draws in one thread at a time


@contextlib.contextmanager
def own_settings():
    """Draw alone, with Matplotlib's own settings, whatever the user's matplotlibrc says."""
    import matplotlib

    # To set the backend, which has no part in this, Matplotlib imports pyplot and chooses one.
    own = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with DRAWING, matplotlib.rc_context(own):
        yield


def literal(name):
    """A file's name as Matplotlib draws it as it is: no formula, nothing that is no text."""
    return name.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")


def save(figure, path):
    """Write a figure as PNG, under a temporary name first."""
    with replaced(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": SOFTWARE})


def drew(path):
    """Whether a picture is one of F2Fd's, which says so before its first pixels."""
    with open(path, "rb") as stream:
        return b"Software\0" + SOFTWARE.encode() in stream.read(HEAD_BYTES)


def copy_picture(path, copy):
    """Copy a picture to a temporary name, renamed at the end."""
    with replaced(copy) as partial:
        shutil.copyfile(path, partial)


def new_figure(**options):
    """A Matplotlib figure; ``options`` as those of ``Figure``."""
    # The object-oriented interface: no global state, no display, whatever MPLBACKEND says.
    from matplotlib.figure import Figure

    return Figure(layout="constrained", **options)


def plot_smoothed(axes, step, values, color, label):
    """Plot the running mean of ``values`` over a twentieth of them."""
    width = max(1, len(values) // 20)
    mean = np.convolve(values, np.ones(width) / width, mode="valid")
    axes.plot(
        step[width - 1 :],
        mean,
        color=color,
        label=f"{label}, mean over {width} steps" if width > 1 else label,
    )


def plot_training(axes, rows):
    """Plot what a training has gained by the ``rows`` of its log, and the learning rate: the share
    of the signal that the network explains (:func:`signal_explained`) or, where that is not known,
    the loss."""
    step, explained = column(rows, "step"), 100 * signal_explained(rows)
    known = np.isfinite(explained)
    if known.any():
        axes.plot(step[known], explained[known], color="C0", marker=".")
        axes.set_title("On parts kept from the training")
        axes.set_ylim(min(0, explained[known].min()), max(100, explained[known].max()))
        axes.set_ylabel("signal explained (%)")
    else:
        _plot_loss(axes, step, column(rows, "loss"), column(rows, "validation_loss"))
    axes.set_xlabel("training step")
    right = axes.twinx()
    right.plot(step, column(rows, "learning_rate"), color="C1", linewidth=1, linestyle="--")
    right.set_ylabel("learning rate", color="C1")
    right.set_ylim(bottom=0)


def _plot_loss(axes, step, loss, validation):
    axes.plot(step, loss, color="0.75", linewidth=0.8, label="loss of each step")
    plot_smoothed(axes, step, loss, "C0", "loss")
    low, high = np.quantile(loss, (0.0, 0.98))
    checked = np.isfinite(validation)
    if checked.any():
        axes.plot(
            step[checked],
            validation[checked],
            color="C3",
            marker=".",
            label="on parts kept from the training",
        )
        low = min(low, validation[checked].min())
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_ylabel("loss")
    axes.legend(frameon=False)


@own_settings()
def draw_loss(log_path, picture_path):
    """loss.png, see :func:`plot_training`; none without a log."""
    rows = read_log(log_path)
    if rows:
        figure = new_figure(figsize=(7, 4))
        plot_training(figure.subplots(), rows)
        save(figure, picture_path)


def show_section(axes, section, low, high):
    """Draw a section in shades of gray from ``low`` to ``high``, its first row at the bottom: Y (or
    Z) goes up, as in 3dmod and Scipion."""
    axes.imshow(section, cmap="gray", vmin=low, vmax=high, interpolation="nearest", origin="lower")


def central_slices(shape):
    """The three index tuples of a volume's central XY, XZ and YZ slices."""
    z, y, x = (side // 2 for side in shape)
    every = slice(None)
    return (z, every, every), (every, y, every), (every, every, x)


def _mosaic(slices):
    """XY with YZ to its right and XZ above it, to be drawn with Y and Z going up; NaN between."""
    xy, xz, yz = slices
    height, width = xy.shape
    canvas = np.full((height + GAP + xz.shape[0], width + GAP + yz.shape[0]), np.nan)
    canvas[:height, :width] = xy
    canvas[height + GAP :, :width] = xz
    canvas[:height, width + GAP :] = yz.T
    return canvas


@own_settings()
def draw_outline(sections, masks, picture_path, title):
    """Central sections of a tomogram with the outline of a mask, both as for
    :func:`draw_slices`."""
    mosaic, inside = _mosaic(sections), _mosaic(masks)
    height, width = mosaic.shape
    figure = new_figure(figsize=(6, 6 * height / width + 0.4))
    axes = figure.subplots()
    show_section(axes, mosaic, *np.nanquantile(mosaic, CONTRAST_QUANTILES))
    axes.contour(inside, levels=[0.5], colors="C1", linewidths=1.5)
    axes.axis("off")
    figure.suptitle(f"{literal(title)}: the specimen, central sections")
    save(figure, picture_path)


@own_settings()
def draw_slices(before, after, picture_path, title):
    """slices.png: input, denoised and what was removed; Y goes up, and Z up and to the right.

    ``before`` and ``after`` are (XY, XZ, YZ): arrays (Y, X), (Z, X) and (Z, Y) in the same units.
    """
    removed = [old - new for old, new in zip(before, after)]
    mosaics = [_mosaic(slices) for slices in (before, after, removed)]
    limits = [np.nanquantile(mosaic, CONTRAST_QUANTILES) for mosaic in mosaics]
    limits[2] = np.diff(limits[0]) / 2 * (-1, 1)
    height, width = mosaics[0].shape
    figure = new_figure(figsize=(13, 13 / 3 * height / width + 0.6))
    for axes, name, mosaic, (low, high) in zip(
        figure.subplots(1, 3), ("input", "denoised", "removed (input - denoised)"), mosaics, limits
    ):
        show_section(axes, mosaic, low, high)
        axes.set_title(name)
        axes.axis("off")
    figure.suptitle(f"{literal(title)}: central XY, YZ (right) and XZ (above) slices")
    save(figure, picture_path)


def plot_noise(axes, noise, voxel_size):
    """Plot the power of a tomogram and of its noise, with the interval of the latter, over the
    spatial frequency; returns that (1/Å).

    ``noise``: what :meth:`~f2fd_core.noise.NoiseModel.by_shell` gives; ``voxel_size`` in Å.
    """
    frequency = np.array(noise["frequency"]) / voxel_size
    axes.plot(frequency, noise["total"], marker=".", label="tomogram")
    (line,) = axes.plot(frequency, noise["noise"], marker=".", label="noise, as estimated")
    axes.fill_between(
        frequency,
        noise["lower"],
        noise["upper"],
        alpha=0.25,
        linewidth=0,
        color=line.get_color(),
        label="interval of the estimate",
    )
    axes.set(xlabel="spatial frequency (1/Å)", ylabel="power")
    return frequency


@own_settings()
def draw_spectrum(noise, voxel_size, picture_path):
    """spectrum.png: power of a tomogram and of its noise; see :func:`plot_noise`."""
    figure = new_figure(figsize=(6, 4))
    axes = figure.subplots()
    plot_noise(axes, noise, voxel_size)
    axes.set_yscale("log")
    low, high = np.array(noise["total"]).clip(1e-30).min(), max(noise["total"])
    axes.set_ylim(low / 10, high * 3)
    axes.legend(frameon=False)
    save(figure, picture_path)


@own_settings()
def draw_histogram(before, after, picture_path):
    """histogram.png: intensities of the central slices before and after denoising."""
    figure = new_figure(figsize=(6, 4))
    axes = figure.subplots()
    for slices, name in ((before, "input"), (after, "denoised")):
        values = np.concatenate([part.ravel() for part in slices])
        axes.hist(values, bins=200, density=True, histtype="step", label=name)
    axes.set(xlabel="intensity", ylabel="density")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    save(figure, picture_path)


@own_settings()
def draw_grid(rows, picture_path):
    """Sections in a grid: ``rows`` is a list of (label, [(title, 2D array, words in the corner)]);
    None in the place of a section leaves it empty.
    """
    columns = max(len(cells) for _, cells in rows)
    figure = new_figure(figsize=(1.9 * columns, 2.1 * len(rows)))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, cells) in zip(grid, rows):
        for axes in line:
            axes.axis("off")
        for axes, cell in zip(line, cells):
            if cell is None:
                continue
            title, section, words = cell
            low, high = np.quantile(section, CONTRAST_QUANTILES)
            show_section(axes, section, low, high)
            axes.set_title(title, fontsize=8)
            axes.text(
                0.02,
                0.02,
                words,
                transform=axes.transAxes,
                fontsize=6,
                color="white",
                va="bottom",
                bbox=dict(facecolor="black", alpha=0.6, pad=1, linewidth=0),
            )
        line[0].text(
            -0.04,
            0.5,
            label,
            transform=line[0].transAxes,
            rotation=90,
            fontsize=8,
            ha="right",
            va="center",
        )
    save(figure, picture_path)
