"""How the time of denoising grows with voxels and predictions, and of training with steps.

Three sizes of each, with the seconds per unit beside them: constant where time grows linearly. The
noise's estimate, which more than four predictions need, takes about the same for any large tomogram
and is told apart.

    python benchmarks/scaling.py --threads 1
"""

import argparse
import math
import tempfile
import time

from memory import sides, write_noise

from f2fd_core import TrainConfig, train
from f2fd_core.commands.inputs import open_as_they_are
from f2fd_core.commands.train import open_for_training
from f2fd_core.config import DenoiseConfig
from f2fd_core.perturbation import perturbation_for_prediction
from f2fd_core.prediction.predictor import Predictor, denoised_region
from f2fd_core.runtime.device import prepare_cpu
from f2fd_core.runtime.run_folder import prepare_folder


def denoising_seconds(training, path, predictions):
    """(seconds of the noise's estimate, seconds of all tiles) of a tomogram."""
    (volume,) = open_as_they_are(DenoiseConfig(tomograms=(path,)), training.config)
    began = time.monotonic()
    config = training.config
    perturbation = perturbation_for_prediction(volume, config, training.device, predictions, 4)
    estimated = time.monotonic()
    predictor = Predictor(
        training.model(),
        training.device,
        training.dtype,
        predictions,
        config.prediction_defaults()["batch_size"],
        flips=config.tta_flips(),
    )
    denoised_region(predictor, perturbation, (0, 0, 0), volume.shape, 96, config.network)
    return estimated - began, time.monotonic() - estimated


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes",
        type=sides,
        nargs="+",
        metavar="Z,Y,X",
        default=[(96, 176, 176), (96, 256, 256), (96, 336, 336)],
    )
    parser.add_argument("--steps", type=int, nargs="+", default=(25, 50, 100))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    prepare_cpu(options.threads)
    print("| what | size | seconds | per unit | the noise's estimates, s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for number, shape in enumerate(options.shapes):
            paths[shape] = f"{folder}/noise{number}.mrc"
            write_noise(paths[shape], shape)
        first = next(iter(paths))
        config = TrainConfig(
            tomograms=(paths[first],),
            output=folder + "/run",
            steps=10,
            device=options.device,
            threads=options.threads,
        )
        prepare_folder(config)
        training = open_for_training(config)
        cases = [(shape, 4) for shape in paths] + [(first, count) for count in (8, 16)]
        for shape, predictions in cases:
            estimates, seconds = denoising_seconds(training, paths[shape], predictions)
            million = math.prod(shape) / 1e6
            print(
                f"| denoising, {predictions} predictions | {million:.1f} million voxels | "
                f"{seconds:.1f} | {seconds / million / predictions:.3f} for a million voxels "
                f"and a prediction | {estimates:.1f} |",
                flush=True,
            )
        for steps in options.steps:
            began = time.monotonic()
            train(
                TrainConfig(
                    tomograms=(paths[first],),
                    output=folder + f"/steps{steps}",
                    steps=steps,
                    checkpoint_every=10**6,
                    device=options.device,
                    threads=options.threads,
                )
            )
            seconds = time.monotonic() - began
            print(
                (f"| training | {steps} steps | {seconds:.1f} | {seconds / steps:.3f} a step | |"),
                flush=True,
            )


if __name__ == "__main__":
    main()
