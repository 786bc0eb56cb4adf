"""Whether a denoised tomogram, turned, is a teacher of its own network: for the noise, and for the
missing wedge.

    python benchmarks/rotations.py denoising --help
    python benchmarks/rotations.py lamella --help
    python benchmarks/rotations.py wedge --help
    python benchmarks/rotations.py tilts --help

The first may be left out.
"""

import contextlib
import copy
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
from scipy.ndimage import affine_transform, gaussian_filter

from f2fd_core import DenoiseConfig, TrainConfig, denoise, fourier, train
from f2fd_core.checking.parts import denoiser_of
from f2fd_core.checking.wedge import examine_wedge
from f2fd_core.commands.inputs import open_silently
from f2fd_core.commands.train import open_for_training
from f2fd_core.data import mrc
from f2fd_core.data.orientation import USUAL
from f2fd_core.data.regions import crop
from f2fd_core.evaluation.membranes import RIDGE_SCALES, average_precision, sheetness
from f2fd_core.evaluation.metrics import correlation, fourier_shell_correlation
from f2fd_core.filters.wedge import tilt_range_of
from f2fd_core.network import checkpoint
from f2fd_core.perturbation.base import Pairs, Perturbation
from f2fd_core.perturbation.noise_matched import noise_of
from f2fd_core.runtime import files
from f2fd_core.runtime.device import prepare_cpu
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.simulation.specimen import random_rotation
from f2fd_core.training.trainer import fit, train_step

# How the teachers are turned, whether their wedge is taken away from the input and from the target,
# their share of the pairs, and their noise over that of the tomogram ("copies": as in its pairs).
VARIANTS = {
    "default continued": None,
    "not turned": dict(turns="none"),
    "quarter turns": dict(turns="quarter"),
    "quarter turns, wedge kept": dict(turns="quarter", wedge=(False, False)),
    "any turns": dict(turns="any"),
    "any turns, alone": dict(turns="any", share=1.0),
    "any turns, noise of copies": dict(turns="any", level="copies"),
}
# What turned() knows, and the number of "any" turns.
TURNED = ("none", "quarter", "tilt axis", "any")
TURNS = 12
# Degrees, and cases with less.
TILT_RANGE = 60
LAMELLA_RANGE = 57
LESS_TILTED = {"in-situ": LAMELLA_RANGE, "real-noise": LAMELLA_RANGE}
SHELLS = ((0.0, 0.05), (0.05, 0.1), (0.1, 0.15), (0.15, 0.2), (0.2, 0.3), (0.3, 0.5))
CASES = (
    "cell",
    "cell@1",
    "crowded",
    "sirt",
    "uneven",
    "lowpass",
    "binned",
    "int8",
    "spheres@0.3",
    "thick",
    "in-situ",
    "real-noise",
)


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


def turned(volume, turns, seed=0):
    """Turned copies of a volume. Half turns and mirrors are left to the augmentation, so that the
    orders of the axes stand for all quarter turns. Beyond its faces the volume is mirrored."""
    if turns == "none":
        return [volume]
    if turns == "tilt axis":
        return [volume.permute(2, 1, 0)]
    if turns == "quarter":
        return [volume.permute(axes) for axes in itertools.permutations(USUAL) if axes != USUAL]
    random = np.random.default_rng(seed)
    middle = (np.array(volume.shape) - 1) / 2
    copies = []
    for _ in range(TURNS):
        matrix = random_rotation(random)
        offset = middle - matrix @ middle
        copies.append(affine_transform(volume.numpy(), matrix, offset, order=3, mode="mirror"))
    return [torch.from_numpy(values) for values in copies]


class Teachers(Perturbation):
    """A tomogram's own pairs, and a ``share`` of pairs of its denoised volume, turned: with fresh
    noise, and without."""

    def __init__(self, own, denoised, tilt_range, turns, wedge=(True, True), share=0.5, level=1.0):
        super().__init__(own.volume, own.config, own.device)
        self.own, self.share = own, share
        self.level = math.sqrt(1 + own.scale**2) if level == "copies" else level
        self.teachers = [
            [without_wedge(volume, tilt_range) if away else volume for away in wedge]
            for volume in turned(denoised, turns)
        ]

    def pairs(self, start, size, count, random):
        """As of any perturbation; those of teachers are of random places."""
        if torch.rand((), generator=random.host) >= self.share:
            # Nothing of these becomes a lesson of the training's own.
            return self.own.pairs(start, size, count, random)._replace(scale=None)
        chosen = int(torch.randint(len(self.teachers), (), generator=random.host))
        shape = self.teachers[chosen][0].shape
        place = [
            int(torch.randint(max(length - side, 0) + 1, (), generator=random.host))
            for length, side in zip(shape, size)
        ]
        seen, target = (crop(volume, place, size) for volume in self.teachers[chosen])
        noise = self.own.noise.sample(start, size, count, random, self.device)
        return Pairs(seen + self.level * noise, target.expand(count, *size))


class Lessons:
    """A training of the default, and what further steps make of it.

    Attributes: ``results``, the denoised tomograms, and ``standardised``, the same in the units of
    the tomograms' standard deviations; ``seconds`` of the training.
    """

    def __init__(self, tomograms, folder, steps, seed, tilt_range):
        config = TrainConfig(
            tomograms=tuple(tomograms),
            output=folder,
            steps=steps,
            seed=seed,
            checkpoint_every=10**6,
            device="cpu",
            threads=1,
        )
        prepare_folder(config)
        self.training, self.tilt_range = open_for_training(config), tilt_range
        began = time.process_time()
        fit(self.training)
        self.seconds = time.process_time() - began
        self.own = self.training.perturbations
        self.results = self.denoised()
        self.standardised = [
            torch.from_numpy((result.numpy() - own.volume.mean) / own.volume.std)
            for result, own in zip(self.results, self.own)
        ]
        self.state = copy.deepcopy(
            dict(
                self.training.state_dict(),
                model=self.training.model().state_dict(),
                step=self.training.step,
            )
        )

    def start_again(self):
        """Go back to the end of the training."""
        self.training.perturbations = self.own
        self.training.load_state_dict(copy.deepcopy(self.state), self.training.config)

    def learn(self, variant, steps=0, afresh=False, teachers=()):
        """Take so many steps more of a variant, by default as many as the training had; ``afresh``:
        with the learning rates that it began with; ``teachers``: in place of ``standardised``."""
        training = self.training
        if afresh:
            training.schedule.by_step.last_epoch = 0
        if variant:
            training.perturbations = [
                Teachers(own, teacher, self.tilt_range, **variant)
                for own, teacher in zip(self.own, teachers or self.standardised)
            ]
        training.network.train()
        last = training.step + (steps or self.state["step"])
        while training.step < last:
            train_step(training)
            training.step += 1
        training.prefetcher.join()
        training.perturbations = self.own

    def denoised(self):
        """The tomograms as the network denoises them now."""
        return [harness.denoised(self.training, number=n) for n in range(len(self.own))]


def by_shells(volume, reference):
    """Mean Fourier shell correlation in each of SHELLS."""
    frequency, curve = fourier_shell_correlation(volume, reference)
    return np.array(
        [float(curve[(frequency >= low) & (frequency < high)].mean()) for low, high in SHELLS]
    )


def run_denoising(argv=None):
    """What rotations of the denoised tomogram teach its network, on simulated tomograms.

    The default's training; then as many steps more, of itself or with teachers. Prints the
    correlation with the truth, the mean Fourier shell correlation, and it by bands of frequency;
    for what comes after the default's training, their change.

        python benchmarks/rotations.py denoising [--cases cell crowded@1 ...] [--seeds 3 4 ...]

    CASE@SNR is a case at another signal-to-noise ratio than 0.1.
    """
    parser = harness.parser(run_denoising)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CASE[@SNR]")
    parser.add_argument("--seeds", type=int, nargs="+", default=(3, 4, 6))
    parser.add_argument("--steps", type=int, default=0, help="0: as the default ends by itself")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    options = parser.parse_args(argv)
    prepare_cpu(1)
    bands = [f"{low:g} to {high:g}" for low, high in SHELLS]
    harness.heading("case, seed", "", "correlation", "FSC", *bands)
    changes = {name: [] for name in options.variants}
    for given, seed in itertools.product(options.cases, options.seeds):
        case, _, snr = given.partition("@")
        with tempfile.TemporaryDirectory() as folder:
            made = harness.simulated(case, options.shape, float(snr or 0.1), seed, folder)
            clean = read(made.reference)
            tilt_range = LESS_TILTED.get(case, TILT_RANGE)
            lessons = Lessons(
                [made.tomogram], os.path.join(folder, "run"), options.steps, seed, tilt_range
            )

            def scores(volume, clean=clean):
                shells = by_shells(volume, clean)
                mean = float(fourier_shell_correlation(volume, clean)[1].mean())
                return np.array([correlation(volume, clean), mean, *shells])

            first = scores(lessons.results[0])
            harness.show(f"{given}, {seed}", "default", *(f"{value:.3f}" for value in first))
            for name in options.variants:
                lessons.start_again()
                lessons.learn(VARIANTS[name])
                change = scores(lessons.denoised()[0]) - first
                changes[name].append(change)
                harness.show(f"{given}, {seed}", name, *(f"{value:+.3f}" for value in change))
    for name, rows in changes.items():
        harness.show("mean", name, *(f"{value:+.4f}" for value in np.mean(rows, 0)))
        harness.show("lowest", name, *(f"{value:+.3f}" for value in np.min(rows, 0)))


def run_lamella(argv=None):
    """The same on the real cell: trained on the even halves of five boxes, scored against the odd
    ones as benchmarks/real.py does it.

        python benchmarks/rotations.py lamella FOLDER [--seeds 0 ...]
    """
    parser = harness.parser(run_lamella)
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,))
    parser.add_argument("--steps", type=int, default=0, help="0: as the default ends by itself")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    options = parser.parse_args(argv)
    prepare_cpu(1)
    even, odd = (
        [os.path.join(options.folder, f"box{box}_{half}.mrc") for box in range(lamella.BOXES)]
        for half in ("even", "odd")
    )
    scores = lamella.Scores([lamella.read(path) for path in even], list(map(lamella.read, odd)))
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            lessons = Lessons(even, folder, options.steps, seed, LAMELLA_RANGE)
            scores.row(f"default, seed {seed}", [box.numpy() for box in lessons.results])
            for name in options.variants:
                lessons.start_again()
                lessons.learn(VARIANTS[name])
                scores.row(f"{name}, seed {seed}", [box.numpy() for box in lessons.denoised()])


WEDGE_CASES = ("cell@0.3", "cell", "cell@1", "crowded@0.3", "in-situ", "empty")
# What denoising writes.
WRITTEN = (files.DENOISED_ENDING, files.FILLED)
# Resolutions (Å), and how far the shells reach on either side of them.
RESOLUTIONS = (200, 100, 60, 45)
REACH = 0.15
WEDGE_SCORES = (
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


def run_wedge(argv=None):
    """The missing wedge, as ``--fill-wedge`` fills it.

    Prints the Fourier shell correlation with the noise-free density inside the cone that no tilt
    measures, at 200, 100, 60 and 45 Å, the correlation of all that is in the cone, its power over
    that of the truth, the average precision of membranes that are nearly parallel to the slab, the
    contrast in all and in the cone over that of the tomogram, and the seconds over those of the
    training. Rows: the denoised tomogram, with nothing in the wedge, and filled. Then what ``f2fd
    check`` says without a truth: the mean Fourier shell correlation in hidden directions, noise's
    share of the prediction, and what it finds of a planted membrane parallel to the specimen.

        python benchmarks/rotations.py wedge [--cases cell@0.3 ...] [--seeds 3 4 ...]
                                             [--output FOLDER]

    The volumes stay in FOLDER/CASE_SEED, for benchmarks/segmentation.py FOLDER.
    """
    parser = harness.parser(run_wedge)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--cases", nargs="+", default=WEDGE_CASES, metavar="CASE[@SNR]")
    parser.add_argument("--seeds", type=int, nargs="+", default=(3, 4, 6))
    parser.add_argument("--steps", type=int, default=0, help="0: as the default ends by itself")
    parser.add_argument("--output", metavar="FOLDER", help="new, for the volumes")
    options = parser.parse_args(argv)
    prepare_cpu(1)
    harness.heading("case, seed", "", *WEDGE_SCORES)
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

        python benchmarks/rotations.py tilts FOLDER [--tilt-range 45] [--seeds 0 ...]
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
    parts = {
        "denoising": run_denoising,
        "lamella": run_lamella,
        "wedge": run_wedge,
        "tilts": run_tilts,
    }
    return harness.run(parts, argv)


if __name__ == "__main__":
    sys.exit(main())
