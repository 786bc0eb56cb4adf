"""What the second estimate of the noise spectrum brings, on one simulated tomogram, in one run.

The default method with the spectrum estimated once (low frequencies spared), estimated twice (the
default), and with the true spectrum of the simulated noise. Prints the estimated over the true
power in low, middle and high Fourier shells, and the scores of the denoised tomogram.

    python benchmarks/noise_spectrum.py --steps 500 --seed 1
"""
import argparse
import tempfile
from pathlib import Path

import torch
from methods import read

from f2fd_core import SimulateConfig, TrainConfig, fourier, simulate
from f2fd_core.denoising import Predictor, denoised_region
from f2fd_core.device import arithmetic, choose_device, set_threads
from f2fd_core.gain import Gain
from f2fd_core.metrics import score
from f2fd_core.training import Training, prepare_folder
from f2fd_core.volume import Volume, crop

SHELLS = {"below 0.1": slice(1, 3), "0.1 to 0.25": slice(3, 8), "above 0.25": slice(8, 16)}
SCORES = ("correlation", "psnr", "ssim", "fsc_mean", "membrane_average_precision")
CASES = {"estimated once": {"refine_after": 0}, "estimated twice (default)": {},
         "true": {"refine_after": 0}}


def true_power(noise, window):
    """Mean power of the windows of a volume of pure noise, a numpy array."""
    corners = fourier.window_corners(noise.shape, window)
    return fourier.window_power(lambda start, size: crop(noise, start, size), corners,
                                window).mean(0)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 160, 160))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, default=0.1)
    options = parser.parse_args(argv)
    set_threads(0)
    device = choose_device("auto")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = simulate(SimulateConfig(output=folder, shape=tuple(options.shape),
                                        seed=options.seed, snr=options.snr))
        noisy, clean = read(paths["tomogram"]), read(paths["clean"])
        membrane = read(paths["membrane"]) > 0.5
        for name, settings in CASES.items():
            config = TrainConfig(tomograms=(paths["tomogram"],), steps=options.steps,
                                 output=str(Path(folder) / name), checkpoint_every=options.steps,
                                 **settings)
            prepare_folder(config)
            volume = Volume(config.tomograms[0])
            training = Training(config, [volume], [], device, arithmetic("auto", device))
            perturbation, = training.perturbations
            truth = true_power(((noisy - clean) / volume.std).numpy(), perturbation.window)
            if name == "true":
                perturbation.set_noise(Gain(), truth)
            training.run()
            predictor = Predictor(training.network, device, training.dtype, 4, 1)
            denoised = denoised_region(predictor, perturbation, (0, 0, 0), volume.shape, 96,
                                       config.network)
            ratio = (fourier.shell_means(perturbation.power, perturbation.window)[1]
                     / fourier.shell_means(truth, perturbation.window)[1])
            rows.append((name, [float(ratio[part].mean()) for part in SHELLS.values()],
                         score(torch.from_numpy(denoised), clean, membrane)))
    print("| noise spectrum | %s | %s |" % (
        " | ".join("power ratio, %s" % part for part in SHELLS), " | ".join(SCORES)))
    print("|---" * (1 + len(SHELLS) + len(SCORES)) + "|")
    for name, ratios, scores in rows:
        values = ratios + [scores[column] for column in SCORES]
        print("| %s | %s |" % (name, " | ".join("%.3f" % value for value in values)))


if __name__ == "__main__":
    main()
