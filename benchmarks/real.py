"""What is real: a cell whose halves judge each other, and the published sample run.

    python benchmarks/real.py lamella --help
    python benchmarks/real.py small --help
    python benchmarks/real.py shrec --help

The first may be left out.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import torch
from skimage.filters import gaussian

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.config import PRETRAINED
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation as correlation_of_all
from f2fd_core.evaluation.metrics import min_max, psnr, structural_similarity

BOXES = 5
SIDE = 64
MARGIN = 12
VOXEL_SIZE = 14.56


def read(path):
    return np.array(mrc.open_volume(path).data, np.float64)


def correlation(first, second):
    """Correlation in the central part of all boxes together."""
    inner = (slice(MARGIN, SIDE - MARGIN),) * 3
    pair = [
        np.concatenate([(box - box.mean())[inner].ravel() for box in boxes])
        for boxes in (first, second)
    ]
    return np.corrcoef(*pair)[0, 1]


def shell_correlation(first, second):
    """Fourier shell correlation of all boxes together, in shells one coefficient wide."""
    hann = np.hanning(SIDE + 2)[1:-1]
    taper = hann[:, None, None] * hann[:, None] * hann
    frequency = np.fft.fftfreq(SIDE) * SIDE
    shell = (
        np.rint(np.sqrt(frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2))
        .astype(int)
        .ravel()
    )
    sums = np.zeros((3, shell.max() + 1))
    for pair in zip(first, second):
        one, other = (np.fft.fftn((box - box.mean()) * taper).ravel() for box in pair)
        for number, values in enumerate(
            ((one * other.conj()).real, abs(one) ** 2, abs(other) ** 2)
        ):
            sums[number] += np.bincount(shell, values)
    return (sums[0] / np.sqrt(sums[1] * sums[2]))[1:13]


class Cell:
    """Boxes of a real cell in a folder, box0_even.mrc and so on: the even halves are denoised, and
    the odd ones judge."""

    def __init__(self, folder):
        folder = os.path.abspath(folder)
        self.even, self.odd = (
            [os.path.join(folder, f"box{number}_{half}.mrc") for number in range(BOXES)]
            for half in ("even", "odd")
        )
        self.inputs, self.judges = ([read(path) for path in each] for each in (self.even, self.odd))
        self.ceiling = np.sqrt(correlation(self.inputs, self.judges))

    def correlation(self, boxes):
        """With the truth, estimated: that with the odd halves over what the truth would have."""
        return correlation(boxes, self.judges) / self.ceiling

    def denoised(self, model, folder):
        """The even halves by a model (path)."""
        return [read(path) for path in harness.results(model, self.even, folder)]

    def left_out(self, folder, **settings):
        """Each even half by a model that half-maps of the other boxes have made."""
        boxes = []
        for box, path in enumerate(self.even):
            pairs = [pair for n, pair in enumerate(zip(self.odd, self.even)) if n != box]
            model = harness.trained(folder, half_maps=tuple(sum(pairs, ())), **settings)
            boxes += [read(result) for result in harness.results(model, [path], folder)]
        return boxes


def small_boxes(boxes, side):
    """All cubes of a ``side`` that boxes (Z, Y, X) consist of."""
    corners = np.ndindex(*(length // side for length in boxes[0].shape))
    places = [tuple(slice(side * at, side * at + side) for at in corner) for corner in corners]
    return [box[place] for box in boxes for place in places]


def run_small(argv=None):
    """The real cell's boxes cut into small ones, as of particles: this version, beside another one.

        real.py small FOLDER [/somewhere/else] [--side 32]

    The even halves of the small boxes make one model. Prints the mean over them of the correlation
    with the odd half, but for an eighth of the side at their faces, over the root of that of both
    halves: for the best Gaussian filter, the pretrained weights and the default.
    """
    parser = harness.parser(run_small)
    parser.add_argument("folder")
    harness.add_other_version(parser)
    parser.add_argument("--side", type=int, default=SIDE // 2)
    options = parser.parse_args(argv)
    cell = Cell(options.folder)
    even, odd = (small_boxes(boxes, options.side) for boxes in (cell.inputs, cell.judges))
    inner = (slice(options.side // 8, -(options.side // 8)),) * 3

    def mean_correlation(boxes):
        return np.mean(
            [
                np.corrcoef(one[inner].ravel(), other[inner].ravel())[0, 1]
                for one, other in zip(boxes, odd)
            ]
        )

    ceiling = np.sqrt(mean_correlation(even))

    def row(name, boxes):
        harness.show(name, f"{mean_correlation(boxes) / ceiling:.3f}")

    harness.heading(f"{len(even)} boxes of {options.side} voxels", "with the truth (estimated)")
    row("even as it is", even)
    filtered = ([gaussian(box, sigma) for box in even] for sigma in (1, 1.5, 2, 3))
    row("best Gaussian", max(filtered, key=mean_correlation))
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"box{number:03}.mrc") for number in range(len(even))]
        for path, box in zip(paths, even):
            mrc.write_volume(path, box.astype(np.float32), VOXEL_SIZE)
        row("the pretrained weights", map(read, harness.results(PRETRAINED, paths, folder)))
        for version, code in harness.versions(options.code).items():
            results, _ = harness.by_version(code, paths, folder)
            row(f"default, {version} version", map(read, results))


class Scores:
    """Prints a row for each result."""

    def __init__(self, even, odd):
        self.odd = odd
        self.ceiling = np.sqrt(correlation(even, odd))
        self.input = shell_correlation(even, odd)
        harness.heading(
            *("", "with the truth (estimated)", "gain, shells 5 to 12", "worst, 1 to 12", "shells")
        )
        self.row("even as it is", even)

    def row(self, name, boxes):
        shells = shell_correlation(boxes, self.odd)
        gain = shells - self.input
        harness.show(
            name,
            f"{correlation(boxes, self.odd) / self.ceiling:.3f}",
            f"{gain[4:].mean():+.3f}",
            f"{gain.min():+.3f}",
            " ".join(f"{value:.2f}" for value in shells),
        )


def run_lamella(argv=None):
    """The real cell: trained on the even halves of five boxes, scored against the odd ones.

        real.py lamella FOLDER [--steps 0 25 50 ...] [--seeds 0 ...] [--left-out]

    FOLDER holds box0_even.mrc ... box4_odd.mrc. Prints, for the input, the pretrained weights and
    each number of steps (0: as the default ends by itself): the correlation with the odd halves in
    the central 40³ over the root of that between both halves, which estimates the correlation with
    the truth; the mean gain in Fourier shell correlation with odd over that of the input in shells
    5 to 12 (of 64), the worst change in shells 1 to 12, and these shells. --left-out denoises the
    even half of each box by a model that half-maps of the other four have made, by noise-matched
    pairs and by Noise2Noise.
    """
    parser = harness.parser(run_lamella, seeds=[0])
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, nargs="+", default=(0, 25, 50, 100, 200, 500, 1000))
    parser.add_argument("--left-out", action="store_true")
    options = parser.parse_args(argv)
    cell = Cell(options.folder)
    scores = Scores(cell.inputs, cell.judges)
    ways = ("noise_matched", "noise2noise") if options.left_out else ("",)
    with tempfile.TemporaryDirectory() as folder:
        if not options.left_out:
            scores.row("the pretrained weights", cell.denoised(PRETRAINED, folder))
        for way in ways:
            for seed in options.seeds:
                for steps in options.steps:
                    words = f"{steps or 'auto'} steps, seed {seed}"
                    settings = dict(steps=steps, seed=seed)
                    if way:
                        boxes = cell.left_out(folder, perturbation=way, **settings)
                        words = f"half-maps of the other four, {way}, {words}"
                    else:
                        model = harness.trained(folder, tomograms=tuple(cell.even), **settings)
                        boxes = cell.denoised(model, folder)
                    scores.row(words, boxes)


# What the publication clips before it scores.
CLIP_QUANTILES = (0.0005, 0.9995)
NAMES = ("reconstruction.mrc", "grandmodel.mrc")
PUBLISHED = (
    ("raw", 0.06, 5.89),
    ("Wiener-like", 0.09, 6.89),
    ("Noise2Void", 0.06, 5.90),
    ("Self2Self with dropout", 0.06, 6.05),
    ("IsoNet", 0.13, 8.65),
    ("F2Fd", 0.10, 6.98),
)
"""The publication's own rows for SHREC 2021: (method, SSIM, PSNR)."""


def find(folder):
    """Paths of the reconstruction and the grand model; raises UserError."""
    for place in (Path(folder), Path(folder) / "model_0"):
        paths = [place / name for name in NAMES]
        if all(path.exists() for path in paths):
            return [str(path) for path in paths]
    raise UserError(
        f"{folder} holds no {' and '.join(NAMES)}; expected model 0 of the SHREC 2021 "
        "data set (Gubins et al., doi 10.2312/3dor.20211307), to be had from "
        "www.shrec.net/cryo-et"
    )


def clipped(path):
    """A volume as the publication scores it, a tensor."""
    array = harness.read(path).numpy()
    return torch.from_numpy(array.clip(*np.quantile(array, CLIP_QUANTILES)))


def published_scores(volume, truth):
    """(SSIM, PSNR, correlation) against the grand model, over the sections that both have: the
    reconstructions are deeper than the specimen."""
    depth = min(len(volume), len(truth))
    volume, truth = (min_max(part[(len(part) - depth) // 2 :][:depth]) for part in (volume, truth))
    return (
        structural_similarity(volume, truth, 1.0),
        psnr(volume, truth, 1.0),
        correlation_of_all(volume, truth),
    )


def run_shrec(argv=None):
    """The published sample run: model 0 of SHREC 2021, by the published preset and by our default.

        real.py shrec FOLDER --output out [--steps 1000] [--published-epochs 50]

    FOLDER holds reconstruction.mrc and grandmodel.mrc of one model (or a folder model_0 that does).
    The data set is that of Gubins et al., "SHREC 2021: Classification in cryo-electron tomograms"
    (3DOR 2021, doi 10.2312/3dor.20211307), to be had from the track's page, www.shrec.net/cryo-et.
    Scores are those of the publication, over the whole volume, both volumes clipped to their 0.05 %
    and 99.95 % quantiles and scaled from 0 to 1, with the correlation beside them.

    The published preset with its 50 epochs takes many hours even on a GPU; --methods default leaves
    it out, --published-epochs and --features shorten it, and then it is no longer the published
    one.
    """
    parser = harness.parser(run_shrec)
    parser.add_argument("folder")
    parser.add_argument("--output", required=True, help="folder for models and volumes")
    parser.add_argument(
        "--methods", nargs="+", default=("default", "published"), choices=("default", "published")
    )
    parser.add_argument(
        "--same-contrast",
        action="store_true",
        help="the grand model's contrast is that of the reconstruction, not its inverse",
    )
    parser.add_argument("--steps", type=int, default=0, help="steps of the default; 0: its own")
    parser.add_argument("--published-epochs", type=int, default=50)
    parser.add_argument(
        "--features", type=int, default=48, help="features of the published network"
    )
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    reconstruction, grand_model = find(options.folder)
    truth = clipped(grand_model) * (1 if options.same_contrast else -1)
    published = dict(preset="published", epochs=options.published_epochs, features=options.features)
    settings = {"default": {"steps": options.steps}, "published": published}
    harness.heading("method", "SSIM", "PSNR", "correlation", "seconds")

    def row(name, path, seconds=0.0):
        ssim, ratio, correlated = published_scores(clipped(path), truth)
        harness.show(name, f"{ssim:.3f}", f"{ratio:.2f}", f"{correlated:.3f}", f"{seconds:.0f}")

    row("input", reconstruction)
    for name in options.methods:
        began = time.monotonic()
        shared = dict(
            tomograms=(reconstruction,),
            output=os.path.join(options.output, name),
            device=options.device,
            overwrite=True,
        )
        model = train(TrainConfig.create(dict(shared, **settings[name])))
        (result,) = denoise(DenoiseConfig(model=model, **shared))
        row(name, result, time.monotonic() - began)
    for name, ssim, ratio in PUBLISHED:
        harness.show(f"publication: {name}", f"{ssim:.2f}", f"{ratio:.2f}", "", "")
    return 0


def main(argv=None):
    return harness.run({"lamella": run_lamella, "small": run_small, "shrec": run_shrec}, argv)


if __name__ == "__main__":
    sys.exit(main())
