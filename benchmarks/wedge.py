"""The missing wedge, as ``--fill-wedge`` fills it.

    python benchmarks/wedge.py simulated --help
    python benchmarks/wedge.py tilts --help

The first may be left out.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import sys
import tempfile
import time

import harness
import numpy as np
import real as lamella
import torch
from harness import read
from scipy.ndimage import gaussian_filter

from f2fd_core import DenoiseConfig, TrainConfig, denoise, fourier, train
from f2fd_core.checking.parts import denoiser_of
from f2fd_core.checking.wedge import examine_wedge
from f2fd_core.commands.inputs import open_silently
from f2fd_core.data import mrc
from f2fd_core.evaluation.membranes import RIDGE_SCALES, average_precision, sheetness
from f2fd_core.filters.wedge import tilt_range_of
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.noise_matched import noise_of
from f2fd_core.runtime import files
from f2fd_core.runtime.device import prepare_cpu

# Degrees, and cases with less.
TILT_RANGE = 60
LAMELLA_RANGE = 57
LESS_TILTED = {"in-situ": LAMELLA_RANGE, "real-noise": LAMELLA_RANGE}
CASES = ("cell@0.3", "cell", "cell@1", "crowded@0.3", "in-situ", "empty")
# What denoising writes.
WRITTEN = (files.DENOISED_ENDING, files.FILLED)
# Resolutions (Å), and how far the shells reach on either side of them.
RESOLUTIONS = (200, 100, 60, 45)
REACH = 0.15
SCORES = (
    *(f"{resolution} Å" for resolution in RESOLUTIONS),
    "all",
    "power",
    "flat membranes",
    "contrast",
    "in the cone",
    "time",
)
# The largest angle (degrees) of a flat membrane to the slab, and the sigmas (voxels) with which its
# normal is found.
FLAT = 30
MASK_SIGMA = 2
NORMAL_SIGMA = 3


def measured(shape, tilt_range):
    """Which coefficients of the rfft grid tilts up to ``tilt_range`` degrees measure, booleans."""
    z, _, x = fourier.axis_frequencies(shape)
    reach = x.abs()[None, None, :] * math.tan(math.radians(tilt_range))
    inside = z.abs()[:, None, None] <= reach + 0.5 / shape[0]
    return inside.expand(*shape[:2], shape[2] // 2 + 1)


def without_wedge(volume, tilt_range):
    """A volume without what such tilts don't measure."""
    spectrum = torch.fft.rfftn(volume) * measured(volume.shape, tilt_range)
    return torch.fft.irfftn(spectrum, s=volume.shape)


def in_cone(volume, truth, cone, voxel_size):
    """Of what is in a cone of Fourier space (booleans, rfft grid): the Fourier shell correlation at
    each of RESOLUTIONS, the correlation of all, and the power over that of the truth, if outside
    both are scaled alike."""
    one, two = (torch.fft.rfftn(values - values.mean()) for values in (volume, truth))
    grid = fourier.grid_of(tuple(volume.shape))

    def products(where):
        where = where * grid.weights
        return [
            float((values * where).sum(dtype=torch.float64))
            for values in ((one * two.conj()).real, one.abs() ** 2, two.abs() ** 2)
        ]

    found = []
    bands = [
        (grid.radius >= (1 - REACH) * voxel_size / resolution)
        & (grid.radius < (1 + REACH) * voxel_size / resolution)
        for resolution in RESOLUTIONS
    ]
    for band in [*bands, torch.ones_like(cone)]:
        cross, first, second = products(cone & band)
        # Where nothing is, rounding errors mean nothing.
        found.append(cross / math.sqrt(first * second) if first > 1e-9 * second else 0.0)
    cross, _, square = products(~cone)
    return [*found, first / second / (cross / square) ** 2]


def flat_membranes(mask):
    """Which voxels of a membrane mask belong to membranes parallel to the slab, nearly."""
    slopes = np.gradient(gaussian_filter(mask.astype(np.float32), MASK_SIGMA))
    tensor = np.stack(
        [
            np.stack([gaussian_filter(one * other, NORMAL_SIGMA)[mask] for other in slopes], -1)
            for one in slopes
        ],
        -1,
    )
    flat = np.zeros_like(mask)
    flat[mask] = np.abs(np.linalg.eigh(tensor)[1][:, 0, -1]) > math.cos(math.radians(FLAT))
    return flat


class Truth:
    """The full-tilt density of a case, seen through the microscope: scores of volumes."""

    def __init__(self, case, tilt_range):
        # Matter is dark; the sign apart, a transfer function changes no Fourier shell correlation.
        self.density = -read(case.density)
        self.voxel_size = mrc.open_volume(case.density).true_voxel_size[0]
        self.cone = ~measured(self.density.shape, tilt_range)
        mask = read(case.membrane).numpy() > 0.5
        flat = flat_membranes(mask)
        self.counted = torch.from_numpy(flat | ~mask)
        self.flat = flat[self.counted.numpy()]
        self.scale = max(RIDGE_SCALES, key=lambda scale: self.precision(self.density, scale))

    def precision(self, volume, scale=None):
        """Average precision of flat membranes, which are dark, among what is no membrane; at the
        scale that suits the truth best."""
        ridges = sheetness(-volume, scale or self.scale)[self.counted]
        return average_precision(ridges.numpy(), self.flat)

    def scores(self, volume):
        """See :func:`in_cone`; and the precision of flat membranes."""
        return [*in_cone(volume, self.density, self.cone, self.voxel_size), self.precision(volume)]


def learned(tomograms, folder, options, seed, tilt_range=0.0):
    """The model of a training with ``--fill-wedge``, and the CPU seconds of each of its parts."""
    config = TrainConfig(
        tomograms=tuple(tomograms),
        output=os.path.join(folder, "run"),
        steps=options.steps,
        seed=seed,
        checkpoint_every=10**6,
        device="cpu",
        threads=1,
        tilt_range=tilt_range,
    )
    seconds = []
    for more in (dict(), dict(fill_wedge=True, resume=True)):
        began = time.process_time()
        model = train(dataclasses.replace(config, **more))
        seconds.append(time.process_time() - began)
    return model, seconds


def filled_by(model, tomograms, folder, tilt_range=0.0):
    """[denoised], [filled]: float32 tensors of what ``f2fd denoise --fill-wedge`` writes to a
    ``folder``."""
    paths = denoise(
        DenoiseConfig(
            model=model,
            tomograms=tuple(tomograms),
            output=folder,
            device="cpu",
            threads=1,
            fill_wedge=True,
            tilt_range=tilt_range,
        )
    )
    return [[read(files.companion(path, ending)) for path in paths] for ending in WRITTEN]


def believed(model, tomogram):
    """What ``f2fd check`` says of the wedge: the mean Fourier shell correlation in directions that
    were hidden, the share of the prediction that noise makes, and what it finds of a membrane that
    is parallel to the specimen."""
    state = checkpoint.load(model)
    network, trained = checkpoint.restore(state, model)
    (volume,) = open_silently(DenoiseConfig(tomograms=(tomogram,)), trained)
    device = torch.device("cpu")
    of_model, of_filler = (
        denoiser_of(volume, each, trained, device, torch.float32)
        for each in (network, checkpoint.restore_filler(state, model))
    )
    found, _ = examine_wedge(
        of_filler,
        of_model,
        noise_of(volume, trained, device),
        tilt_range_of(volume),
        -1.0,
        0,
        lambda: None,
    )
    return [found["mean"], found["invented"], *list(found["planted"].values())[-1:]]


def run_simulated(argv=None):
    """Simulated tomograms, of which it is known what belongs into the wedge.

    Prints the Fourier shell correlation with the noise-free density inside the cone that no tilt
    measures, at 200, 100, 60 and 45 Å, the correlation of all that is in the cone, its power over
    that of the truth, the average precision of membranes that are nearly parallel to the slab, the
    contrast in all and in the cone over that of the tomogram, and the seconds over those of the
    training. Rows: the denoised tomogram, with nothing in the wedge, and filled. Then what ``f2fd
    check`` says without a truth: the mean Fourier shell correlation in hidden directions, noise's
    share of the prediction, and what it finds of a planted membrane parallel to the specimen.

        python benchmarks/wedge.py [--cases cell@0.3 ...] [--seeds 3 4 ...] [--output FOLDER]

    The volumes stay in FOLDER/CASE_SEED, for benchmarks/segmentation.py FOLDER.
    """
    parser = harness.parser(run_simulated)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CASE[@SNR]")
    parser.add_argument("--seeds", type=int, nargs="+", default=(3, 4, 6))
    parser.add_argument("--steps", type=int, default=0, help="0: as the default ends by itself")
    parser.add_argument("--output", metavar="FOLDER", help="new, for the volumes")
    options = parser.parse_args(argv)
    prepare_cpu(1)
    harness.heading("case, seed", "", *SCORES)
    for given, seed in itertools.product(options.cases, options.seeds):
        case, _, snr = given.partition("@")
        tilt_range = LESS_TILTED.get(case, TILT_RANGE)
        with contextlib.ExitStack() as stack:
            if options.output:
                folder = os.path.join(options.output, f"{given}_{seed}")
                os.makedirs(folder)
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
            made = harness.simulated(case, options.shape, float(snr or 0.1), seed, folder)
            model, seconds = learned([made.tomogram], folder, options, seed)
            (denoised,), (filled,) = filled_by(model, [made.tomogram], folder)
            unit = float(read(made.tomogram).std())
            truth = made.membrane and Truth(made, tilt_range)

            def row(
                name, volume, *more, of=f"{given}, {seed}", truth=truth, limit=tilt_range, unit=unit
            ):
                scores = truth.scores(volume) if truth else [math.nan] * (len(RESOLUTIONS) + 3)
                beyond = volume - without_wedge(volume, limit)
                cells = [*scores, volume.std() / unit, beyond.std() / unit, *more]
                harness.show(of, name, *(f"{float(value):.3f}" for value in cells))

            row("denoised", denoised)
            row("nothing in the wedge", without_wedge(denoised, tilt_range))
            row("filled", filled, seconds[1] / seconds[0])
            if truth:
                said = (f"{value:.3f}" for value in believed(model, made.tomogram))
                harness.show(f"{given}, {seed}", "f2fd check says", *said)


def run_tilts(argv=None):
    """The same on the real cell, whose wedge nobody knows: tilts beyond --tilt-range are taken away
    from the even halves, predicted, and scored against those of the odd ones.

        python benchmarks/wedge.py tilts FOLDER [--tilt-range 45] [--seeds 0 ...]
    """
    parser = harness.parser(run_tilts)
    parser.add_argument("folder")
    parser.add_argument("--tilt-range", type=float, default=45)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,))
    parser.add_argument("--steps", type=int, default=0, help="0: as the default ends by itself")
    options = parser.parse_args(argv)
    prepare_cpu(1)
    even, odd = (
        [read(os.path.join(options.folder, f"box{box}_{half}.mrc")) for box in range(lamella.BOXES)]
        for half in ("even", "odd")
    )
    shape = even[0].shape
    taken = measured(shape, LAMELLA_RANGE) & ~measured(shape, options.tilt_range)
    hann = torch.from_numpy(np.hanning(lamella.SIDE + 2)[1:-1]).float()
    taper = hann[:, None, None] * hann[:, None] * hann
    grid = fourier.grid_of(tuple(shape))
    ranges = ((1, 4), (5, 8), (9, 12))

    def row(name, boxes):
        """Fourier shell correlation of all boxes together in what was taken away."""
        sums = torch.zeros(3, len(ranges))
        for box, other in zip(boxes, odd):
            one, two = (torch.fft.rfftn((v - v.mean()) * taper) for v in (box, other))
            for number, (low, high) in enumerate(ranges):
                where = taken & (grid.radius * shape[0] >= low - 0.5)
                where = (where & (grid.radius * shape[0] < high + 0.5)) * grid.weights
                values = ((one * two.conj()).real, one.abs() ** 2, two.abs() ** 2)
                sums[:, number] += torch.stack([(value * where).sum() for value in values])
        found = sums[0] / (sums[1] * sums[2]).clamp(min=1e-20).sqrt()
        harness.show(name, *(f"{float(value):.3f}" for value in found))

    harness.heading("", *(f"shells {low} to {high}" for low, high in ranges))
    row("even, all tilts", even)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, f"box{number}.mrc") for number in range(len(even))]
            for path, box in zip(paths, even):
                mrc.write_volume(path, without_wedge(box, options.tilt_range).numpy(), 14.56)
            model, _ = learned(paths, folder, options, seed, options.tilt_range)
            denoised, filled = filled_by(model, paths, folder, options.tilt_range)
            row(f"denoised, seed {seed}", denoised)
            emptied = [without_wedge(box, options.tilt_range) for box in denoised]
            row(f"nothing there, seed {seed}", emptied)
            row(f"filled, seed {seed}", filled)


def main(argv=None):
    parts = {"simulated": run_simulated, "tilts": run_tilts}
    return harness.run(parts, argv)


if __name__ == "__main__":
    sys.exit(main())
