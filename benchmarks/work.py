"""The default method's time to its quality, against the cost of the published settings.

One simulated tomogram, one machine, one run. The default trains once; at several checkpoints it
denoises, and is scored against the noise-free reconstruction. Of the published preset a training
step and a prediction of one patch are timed and multiplied by the published numbers of steps (50
epochs) and predictions (100 a patch): its full run is not made. It computes in float32, as the
published program does.

A set of tomograms needs one model. So a second table is of a further tomogram, of the next seed:
the model of the most steps denoises it as it is, or goes on on it for --further-steps. The work is
what the further tomogram takes, against the cost of the published settings on it.

    python benchmarks/work.py --steps 150 300 600 3000 --further-steps 0 50 100 --threads 1
"""

import argparse
import csv
import math
import tempfile
import time

from ablation import read

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, simulate, train
from f2fd_core.commands.train import open_for_training
from f2fd_core.data.patches import patch_grid
from f2fd_core.evaluation.metrics import correlation
from f2fd_core.network.checkpoint import path_of
from f2fd_core.prediction.predictor import Predictor
from f2fd_core.runtime.device import choose_devices, prepare_cpu

TIMED = 2


def seconds_of(function):
    """Mean time of a call, after one to warm up."""
    function()
    began = time.monotonic()
    for _ in range(TIMED):
        function()
    return (time.monotonic() - began) / TIMED


def published_cost(tomogram, folder, options):
    """(seconds of a step, number of steps, seconds of a patch's prediction, number of patches)."""
    config = TrainConfig.create(
        dict(
            preset="published",
            tomograms=(tomogram,),
            output=folder,
            device=options.device,
            threads=options.threads,
            precision="float32",
        )
    )
    training = open_for_training(config)
    training.network.train()
    side = (config.patch_size,) * 3
    batch = config.prediction_defaults()["batch_size"]
    predictor = Predictor(training.model(), training.device, training.dtype, batch, batch)
    calls = config.prediction_defaults()["predictions"] // batch
    patches = len(patch_grid(training.shapes[0], config.patch_size))
    return (
        seconds_of(training.take_step),
        training.steps,
        calls
        * seconds_of(lambda: predictor.predict_tile(training.perturbations[0], (0, 0, 0), side)),
        patches,
    )


class Work:
    """Trains and denoises one simulated tomogram, and sets that against the published ``cost``."""

    def __init__(self, folder, seed, options):
        self.paths = simulate(
            SimulateConfig(
                output=folder + "/sim", shape=tuple(options.shape), snr=options.snr, seed=seed
            )
        )
        self.folder, self.clean = folder, read(self.paths["clean"])
        self.start = options.start
        self.run = dict(
            tomograms=(self.paths["tomogram"],), device=options.device, threads=options.threads
        )

    def train(self, steps, initial=""):
        """Path of the model at each number of ``steps``, and the seconds to there; at 0 it is
        ``initial``."""
        models = {0: (initial, 0.0)}
        if max(steps):
            train(
                TrainConfig(
                    output=self.folder + "/run",
                    steps=max(steps),
                    checkpoint_every=math.gcd(*steps),
                    initial_model=initial,
                    start="automatic" if initial else self.start,
                    **self.run,
                )
            )
            with open(self.folder + "/run/log.csv", newline="", encoding="utf-8") as stream:
                seconds = [float(row["seconds"]) for row in csv.DictReader(stream)]
            models.update(
                (step, (path_of(self.folder + "/run/checkpoints", step), seconds[step - 1]))
                for step in steps
                if step
            )
        return {step: models[step] for step in sorted(steps)}

    def print_table(self, models, cost):
        print(
            "| steps | training, s | denoising, s | published cost over both | correlation "
            "|\n|---|---|---|---|---|\n| (input) | | | | "
            f"{correlation(read(self.paths['tomogram']), self.clean):.3f} |"
        )
        for step, (model, trained) in models.items():
            began = time.monotonic()
            (result,) = denoise(
                DenoiseConfig(model=model, output=self.folder + "/out", overwrite=True, **self.run)
            )
            denoised = time.monotonic() - began
            print(
                (
                    f"| {step} | {trained:.0f} | {denoised:.0f} | "
                    f"{cost / (trained + denoised):.0f} | "
                    f"{correlation(read(result), self.clean):.3f} |"
                ),
                flush=True,
            )
        print(flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 160, 160))
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, nargs="+", default=(150, 300, 600, 3000))
    parser.add_argument("--further-steps", type=int, nargs="+", default=(0, 50, 100))
    parser.add_argument(
        "--start",
        default=TrainConfig.start,
        choices=("automatic", "random", "pretrained"),
        help="what the first tomogram's model starts from",
    )
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    choose_devices(options.device)
    prepare_cpu(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        first, further = (
            Work(f"{folder}/{seed}", seed, options) for seed in (options.seed, options.seed + 1)
        )
        step, steps, patch, patches = published_cost(
            first.paths["tomogram"], folder + "/published", options
        )
        cost = step * steps + patch * patches
        print(
            f"published settings: {step:.1f} s a step x {steps} steps + {patch:.0f} s a patch "
            f"x {patches} patches = {cost / 3600:.1f} h\n",
            flush=True,
        )
        models = first.train(options.steps)
        first.print_table(models, cost)
        print(f"A further tomogram, from the model of {max(options.steps)} steps:\n")
        model, _ = models[max(options.steps)]
        further.print_table(further.train(options.further_steps, model), cost)


if __name__ == "__main__":
    main()
