"""What training brings, step by step: against its cost, on a further tomogram, and where it stops.

    python benchmarks/learning_curve.py cost --help
    python benchmarks/learning_curve.py transfer --help
    python benchmarks/learning_curve.py stopping --help

The first may be left out.
"""

import csv
import math
import sys
import tempfile
import time

import harness
from harness import read

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, simulate, train
from f2fd_core.commands.inputs import open_volumes
from f2fd_core.commands.train import open_for_training
from f2fd_core.config import PRETRAINED, prediction_defaults
from f2fd_core.data.patches import patch_grid
from f2fd_core.evaluation.metrics import correlation, score
from f2fd_core.network.checkpoint import path_of
from f2fd_core.prediction.predictor import Predictor
from f2fd_core.runtime.device import choose_devices, choose_dtype, prepare_cpu
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.training.start import take_initial_weights
from f2fd_core.training.state import Training
from f2fd_core.training.stopping import CHECK_EVERY
from f2fd_core.training.trainer import fit, train_step
from f2fd_core.training.writer import Writer

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
    batch = prediction_defaults(config)["batch_size"]
    predictor = Predictor(training.model(), training.device, training.dtype, batch, batch)
    calls = prediction_defaults(config)["predictions"] // batch
    patches = len(patch_grid(training.shapes[0], config.patch_size))
    return (
        seconds_of(lambda: train_step(training)),
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


def run_cost(argv=None):
    """The default method's time to its quality, against the cost of the published settings.

    One simulated tomogram, one machine, one run. The default trains once; at several checkpoints it
    denoises, and is scored against the noise-free reconstruction. Of the published preset a
    training step and a prediction of one patch are timed and multiplied by the published numbers of
    steps (50 epochs) and predictions (100 a patch): its full run is not made. It computes in
    float32, as the published program does.

    A set of tomograms needs one model. So a second table is of a further tomogram, of the next
    seed: the model of the most steps denoises it as it is, or goes on on it for --further-steps.
    The work is what the further tomogram takes, against the cost of the published settings on it.

        learning_curve.py cost --steps 150 300 600 --further-steps 0 50 --threads 1
    """
    parser = harness.parser(run_cost)
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


def simulated(folder, options, seed):
    return simulate(
        SimulateConfig(
            output=f"{folder}/seed{seed}", seed=seed, shape=tuple(options.shape), snr=options.snr
        )
    )


def trained(paths, output, steps, **start):
    """Path of a model trained on a simulated tomogram."""
    return train(
        TrainConfig(
            tomograms=(paths["tomogram"],),
            output=output,
            steps=steps,
            checkpoint_every=steps,
            **start,
        )
    )


def quality(model, paths, output):
    """Correlation of the tomogram, denoised by the model, with its noise-free reconstruction."""
    (result,) = denoise(DenoiseConfig(model=model, tomograms=(paths["tomogram"],), output=output))
    return correlation(read(result), read(paths["clean"]))


def run_transfer(argv=None):
    """How many steps a trained model saves on another tomogram, in one run.

    A model is trained on one simulated tomogram and goes on (--initial-model) on a second one, of
    other seed; beside it, trainings on the second from random weights (--start random) and from
    those that come with F2Fd (--start pretrained). Prints the correlation of the second, denoised,
    with its noise-free reconstruction after each number of steps.

        python benchmarks/learning_curve.py transfer --steps 50 100 200
    """
    parser = harness.parser(run_transfer)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--first", type=int, default=300, help="steps on the first tomogram")
    parser.add_argument("--steps", type=int, nargs="+", default=(50, 100, 200))
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        first, second = (simulated(folder, options, seed) for seed in (1, 2))
        model = trained(first, folder + "/first", options.first)
        rows = [
            (
                0,
                correlation(read(second["tomogram"]), read(second["clean"])),
                *(
                    quality(start, second, f"{folder}/unchanged{number}")
                    for number, start in enumerate((PRETRAINED, model))
                ),
            )
        ]
        for steps in options.steps:
            row = [steps]
            for name, start in (
                ("random", {"start": "random"}),
                ("shapes", {"start": "shapes"}),
                ("model", {"initial_model": model}),
            ):
                place = f"{folder}/{name}{steps}"
                row.append(quality(trained(second, place, steps, **start), second, place + "/out"))
            rows.append(row)
    print(
        "| steps on the second | from random weights | from shapes | from the first's model |\n"
        "|---|---|---|---|"
    )
    for steps, *scores in rows:
        print(
            f"| {steps or '0 (the input; the models unchanged)'} | "
            f"{' | '.join(f'{score:.3f}' for score in scores)} |"
        )


class Endless(Training):
    """A training of ``most`` steps that notes where it would have ended, and with which model."""

    most, ended = 0, None

    def finished(self):
        if self.ended is None and super().finished():
            self.ended = self.step, self.best.step
        return self.step >= self.most


class Judge(Writer):
    """Notes at every validation what the rule can't know: (step, loss, correlation, SSIM)."""

    def __init__(self, training, clean):
        super().__init__(training)
        self.clean, self.rows = clean, []

    def after_step(self, row, seconds):
        if "validation_loss" in row:
            training = self.training
            scores = score(harness.denoised(training), self.clean)
            training.network.train()
            found = scores["correlation"], scores["ssim"]
            self.rows.append((training.step, row["validation_loss"], *found))
        super().after_step(row, seconds)


def run_stopping(argv=None):
    """Whether the loss on held-out parts ends a training where it should, in one run.

    Trains the default on a simulated tomogram beyond the point where --steps 0 (auto) would have
    ended, and prints at every check the loss on the held-out parts and the true correlation and
    SSIM of the denoised tomogram; then the best step by either, and where the rule stops.

        python benchmarks/learning_curve.py stopping --steps 1500
    """
    parser = harness.parser(run_stopping)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args(argv)
    if options.steps < CHECK_EVERY:
        parser.error(f"--steps is {options.steps}; expected at least {CHECK_EVERY}, a check")
    prepare_cpu(0)
    (device,) = choose_devices("auto")
    with tempfile.TemporaryDirectory() as folder:
        paths = simulate(
            SimulateConfig(
                output=folder, shape=tuple(options.shape), seed=options.seed, snr=options.snr
            )
        )
        config = TrainConfig(
            tomograms=(paths["tomogram"],), output=folder + "/run", checkpoint_every=options.steps
        )
        prepare_folder(config)
        training = Endless(config, open_volumes(config), [], device, choose_dtype("auto", device))
        training.most = options.steps
        take_initial_weights(training)
        with Judge(training, read(paths["clean"])) as judge:
            fit(training, judge)
    print("| step | loss on held-out parts | correlation | SSIM |\n|---|---|---|---|")
    for step, loss, correlated, ssim in judge.rows:
        print(f"| {step} | {loss:.4f} | {correlated:.3f} | {ssim:.3f} |")
    print(
        f"\nlowest loss: step {min(judge.rows, key=lambda row: row[1])[0]}; highest "
        f"correlation: step {max(judge.rows, key=lambda row: row[2])[0]}"
    )
    if training.ended:
        stopped, taken = training.ended
        print(f"the rule stops at step {stopped} and takes the model of step {taken}")


def main(argv=None):
    return harness.run({"cost": run_cost, "transfer": run_transfer, "stopping": run_stopping}, argv)


if __name__ == "__main__":
    sys.exit(main())
