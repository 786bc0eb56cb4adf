"""Whether the loss on held-out parts ends a training where it should, in one run.

Trains the default on a simulated tomogram beyond the point where --steps 0 (auto) would have ended,
and prints at every check the loss on the held-out parts and the true correlation and SSIM of the
denoised tomogram; then the best step by either, and where the rule stops.

    python benchmarks/stopping.py --steps 1500
"""

import argparse
import tempfile

import torch
from ablation import read

from f2fd_core import SimulateConfig, TrainConfig, simulate
from f2fd_core.commands.inputs import open_volumes
from f2fd_core.commands.train import fit_and_save
from f2fd_core.evaluation.metrics import score
from f2fd_core.prediction.predictor import Predictor, denoised_region
from f2fd_core.runtime.device import choose_devices, choose_dtype, prepare_cpu
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.training.state import Training
from f2fd_core.training.stopping import CHECK_EVERY


class Watched(Training):
    """A training that notes at every check what the rule can't know."""

    def watch(self, clean, steps):
        self.clean, self.most, self.rows, self.ended = clean, steps, [], None

    def finished(self):
        if self.ended is None and super().finished():
            self.ended = self.step, self.best.step
        return self.step >= self.most

    def check(self):
        found = super().check()
        (perturbation,) = self.perturbations
        flips = self.config.tta_flips()
        predictor = Predictor(self.model(), self.device, self.dtype, len(flips), 1, flips=flips)
        denoised = perturbation.volume.destandardise(
            denoised_region(
                predictor,
                perturbation.for_prediction(len(flips)),
                (0, 0, 0),
                self.clean.shape,
                96,
                self.config.network,
            )
        )
        self.network.train()
        scores = score(torch.from_numpy(denoised).float(), self.clean)
        self.rows.append((self.step, found.loss, scores["correlation"], scores["ssim"]))
        return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
        training = Watched(config, open_volumes(config), [], device, choose_dtype("auto", device))
        training.begin()
        training.watch(read(paths["clean"]), options.steps)
        fit_and_save(training)
    print("| step | loss on held-out parts | correlation | SSIM |\n|---|---|---|---|")
    for step, loss, validated, correlation in training.rows:
        print(f"| {step} | {loss:.4f} | {validated:.3f} | {correlation:.3f} |")
    print(
        f"\nlowest loss: step {min(training.rows, key=lambda row: row[1])[0]}; highest "
        f"correlation: step {max(training.rows, key=lambda row: row[2])[0]}"
    )
    if training.ended:
        stopped, taken = training.ended
        print(f"the rule stops at step {stopped} and takes the model of step {taken}")


if __name__ == "__main__":
    main()
