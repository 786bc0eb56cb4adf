"""The default method's time to its quality, against the cost of the published settings.

One simulated tomogram, one machine, one run. The default trains once; at several checkpoints it
denoises, and is scored against the noise-free reconstruction. Of the published preset a training
step and a prediction of one patch are timed and multiplied by the published numbers of steps (50
epochs) and predictions (100 a patch): its full run is not made.

    python benchmarks/work.py --steps 150 300 600 3000 --threads 1
"""
import argparse
import csv
import math
import tempfile
import time

from ablation import read

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, simulate, train
from f2fd_core.checkpoint import path_of
from f2fd_core.denoising import Predictor
from f2fd_core.device import choose_devices, prepare_cpu
from f2fd_core.metrics import correlation
from f2fd_core.patches import patch_grid
from f2fd_core.training import open_for_training

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
    config = TrainConfig.create(dict(
        preset="published", tomograms=(tomogram,), output=folder, device=options.device,
        threads=options.threads))
    training = open_for_training(config)
    training.network.train()
    side = (config.patch_size,) * 3
    batch = config.prediction_defaults()["batch_size"]
    predictor = Predictor(training.model(), training.device, training.dtype, batch, batch)
    calls = config.prediction_defaults()["predictions"] // batch
    patches = len(patch_grid(training.shapes[0], config.patch_size))
    return (seconds_of(training.take_step), training.steps, calls * seconds_of(
        lambda: predictor.moments(training.perturbations[0], (0, 0, 0), side)), patches)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 160, 160))
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, nargs="+", default=(150, 300, 600, 3000))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    choose_devices(options.device)
    prepare_cpu(options.threads)
    every = math.gcd(*options.steps)
    with tempfile.TemporaryDirectory() as folder:
        paths = simulate(SimulateConfig(output=folder + "/sim", shape=tuple(options.shape),
                                        snr=options.snr, seed=options.seed))
        clean = read(paths["clean"])
        step, steps, patch, patches = published_cost(paths["tomogram"], folder + "/published",
                                                     options)
        cost = step * steps + patch * patches
        print("published settings: %.1f s a step x %d steps + %.0f s a patch x %d patches = %.1f h"
              "\n" % (step, steps, patch, patches, cost / 3600), flush=True)
        train(TrainConfig(tomograms=(paths["tomogram"],), output=folder + "/run",
                          steps=max(options.steps), checkpoint_every=every,
                          device=options.device, threads=options.threads))
        with open(folder + "/run/log.csv", newline="", encoding="utf-8") as stream:
            trained = [float(row["seconds"]) for row in csv.DictReader(stream)]
        print("| steps | training, s | denoising, s | published cost over both | correlation |\n"
              "|---|---|---|---|---|\n| 0 (input) | | | | %.3f |"
              % correlation(read(paths["tomogram"]), clean))
        for number in sorted(options.steps):
            began = time.monotonic()
            result, = denoise(DenoiseConfig(
                model=path_of(folder + "/run/checkpoints", number), overwrite=True,
                tomograms=(paths["tomogram"],), output=folder + "/out", device=options.device,
                threads=options.threads))
            denoised = time.monotonic() - began
            print("| %d | %.0f | %.0f | %.0f | %.3f |" % (
                number, trained[number - 1], denoised, cost / (trained[number - 1] + denoised),
                correlation(read(result), clean)), flush=True)


if __name__ == "__main__":
    main()
