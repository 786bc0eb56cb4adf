"""Quality of the default method beside its baselines, on one simulated tomogram, in one run.

Prints a Markdown table: the noisy input, a Gaussian blur, the published masks with the same
network, steps and predictions, and the default. The ratio is that of the correlations to the
input's. With --picture, also draws input, masks, default and ground truth side by side.

    python benchmarks/methods.py --shape 96 160 160 --steps 300 --seed 1
"""
import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, mrc, simulate, train
from f2fd_core.fourier import radial_frequency
from f2fd_core.metrics import score

COLUMNS = ("correlation", "psnr", "ssim", "fsc_mean", "membrane_average_precision")


def gaussian(volume, sigma):
    """Gaussian blur, sigma in voxels."""
    transfer = torch.exp(-2 * (np.pi * sigma * radial_frequency(volume.shape)) ** 2)
    return torch.fft.irfftn(torch.fft.rfftn(volume) * transfer, s=volume.shape)


def read(path):
    """Voxels of an MRC file as a float32 tensor."""
    return torch.from_numpy(np.array(mrc.open_volume(str(path)).data, dtype=np.float32))


def learned(folder, paths, perturbation, options):
    """Train and denoise with a perturbation; returns (volume, seconds)."""
    began = time.monotonic()
    run = folder / perturbation
    model = train(TrainConfig(
        tomograms=(paths["tomogram"],), output=str(run), perturbation=perturbation,
        steps=options.steps, checkpoint_every=options.steps))
    result = denoise(DenoiseConfig(model=model, tomograms=(paths["tomogram"],),
                                   output=str(run / "out")))[0]
    return read(result), time.monotonic() - began


def draw(path, volumes):
    """Central XY slices side by side, each with its own contrast."""
    figure = Figure(figsize=(3.2 * len(volumes), 3.5), layout="constrained")
    for axes, (name, volume) in zip(figure.subplots(1, len(volumes)), volumes.items()):
        image = volume[volume.shape[0] // 2].numpy()
        low, high = np.quantile(image, (0.005, 0.995))
        axes.imshow(image, cmap="gray", vmin=low, vmax=high)
        axes.set_title(name)
        axes.axis("off")
    figure.savefig(path, dpi=90)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 160, 160))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--picture", help="PNG file to draw")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = simulate(SimulateConfig(output=str(folder), shape=tuple(options.shape),
                                        seed=options.seed, snr=options.snr))
        noisy, clean = read(paths["tomogram"]), read(paths["clean"])
        membrane = read(paths["membrane"]) > 0.5
        results = {"input": (noisy, 0.0), "Gaussian blur, sigma 1": (gaussian(noisy, 1.0), 0.0)}
        results["published masks, compact network"] = learned(folder, paths, "masks", options)
        results["default (spectrum)"] = learned(folder, paths, "spectrum", options)
    scores = {name: score(volume, clean, membrane) for name, (volume, _) in results.items()}
    print("| method | %s | correlation / input's | seconds |" % " | ".join(COLUMNS))
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name, (_, seconds) in results.items():
        values = ["%.3f" % scores[name][column] if scores[name][column] is not None else "-"
                  for column in COLUMNS]
        ratio = scores[name]["correlation"] / scores["input"]["correlation"]
        print("| %s | %s | %.2f | %.0f |" % (name, " | ".join(values), ratio, seconds))
    if options.picture:
        draw(options.picture, {
            "input": noisy, "published masks": results["published masks, compact network"][0],
            "default": results["default (spectrum)"][0], "noise-free": clean})


if __name__ == "__main__":
    main()
