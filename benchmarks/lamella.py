"""The real cell: trained on the even halves of five boxes, scored against the odd ones.

    python benchmarks/lamella.py FOLDER [--steps auto 25 50 ...] [--seeds 0 ...] [--left-out]

FOLDER holds box0_even.mrc ... box4_odd.mrc. Prints, for the input, the weights that a training
begins with and each number of steps: the correlation with the odd halves in the central 40³ over
the root of that between both halves, which estimates the correlation with the truth; the mean gain
in Fourier shell correlation with odd over that of the input in shells 5 to 12 (of 64), the worst
change in shells 1 to 12, and these shells. --left-out denoises the even half of each box by a model
that half-maps of the other four have made, by noise-matched pairs and by Noise2Noise.
"""

import argparse
import os
import tempfile

import harness
import numpy as np

from f2fd_core import DenoiseConfig, TrainConfig, denoise, train
from f2fd_core.commands.train import open_for_training
from f2fd_core.data import mrc

BOXES, SIDE, MARGIN = 5, 64, 12


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


class Scores:
    """Prints a row for each result."""

    def __init__(self, even, odd):
        self.odd = odd
        self.ceiling = np.sqrt(correlation(even, odd))
        self.input = shell_correlation(even, odd)
        print(
            "| | with the truth (estimated) | gain, shells 5 to 12 | worst, 1 to 12 | shells |\n"
            "|---|---|---|---|---|"
        )
        self.row("even as it is", even)

    def row(self, name, boxes):
        shells = shell_correlation(boxes, self.odd)
        gain = shells - self.input
        print(
            (
                f"| {name} | {correlation(boxes, self.odd) / self.ceiling:.3f} | "
                f"{gain[4:].mean():+.3f} | {gain.min():+.3f} | "
                f"{' '.join(f'{value:.2f}' for value in shells)} |"
            ),
            flush=True,
        )


def settings(folder, names, output, steps, seed):
    even, odd = (
        [os.path.join(folder, f"box{name}_{half}.mrc") for name in names]
        for half in ("even", "odd")
    )
    return (
        even,
        odd,
        dict(
            output=output,
            steps=0 if steps == "auto" else int(steps),
            seed=seed,
            checkpoint_every=10**6,
            device="cpu",
            threads=1,
        ),
    )


def denoised(model, paths, output):
    results = denoise(
        DenoiseConfig(model=model, tomograms=tuple(paths), output=output, device="cpu", threads=1)
    )
    return [read(path) for path in results]


def start_as_it_is(folder, output):
    """The even boxes by the weights that a training begins with."""
    even, _, options = settings(folder, range(BOXES), output, 1, 0)
    run = open_for_training(TrainConfig(tomograms=tuple(even), **options))
    return [harness.denoised(run, number=number) for number in range(BOXES)]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument(
        "--steps", nargs="+", default=["auto", "25", "50", "100", "200", "500", "1000"]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--left-out", action="store_true")
    options = parser.parse_args(argv)
    boxes = range(BOXES)
    even, odd, _ = settings(options.folder, boxes, "", 1, 0)
    scores = Scores([read(path) for path in even], [read(path) for path in odd])
    with tempfile.TemporaryDirectory() as folder:
        if options.left_out:
            for perturbation in ("noise_matched", "noise2noise"):
                for steps in options.steps:
                    results = []
                    for box in boxes:
                        output = os.path.join(folder, perturbation + steps + str(box))
                        even, odd, given = settings(
                            options.folder,
                            [other for other in boxes if other != box],
                            output,
                            steps,
                            options.seeds[0],
                        )
                        pairs = tuple(path for pair in zip(odd, even) for path in pair)
                        model = train(
                            TrainConfig(half_maps=pairs, perturbation=perturbation, **given)
                        )
                        left_out, _, _ = settings(options.folder, [box], "", 1, 0)
                        results += denoised(model, left_out, output)
                    scores.row(
                        f"half-maps of the other four, {perturbation}, {steps} steps", results
                    )
            return
        scores.row("the weights it begins with", start_as_it_is(options.folder, folder))
        for seed in options.seeds:
            for steps in options.steps:
                output = os.path.join(folder, f"{steps}_{seed}")
                even, _, given = settings(options.folder, boxes, output, steps, seed)
                model = train(TrainConfig(tomograms=tuple(even), **given))
                scores.row(f"{steps} steps, seed {seed}", denoised(model, even, output))


if __name__ == "__main__":
    main()
