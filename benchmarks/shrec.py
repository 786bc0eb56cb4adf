"""The published sample run: model 0 of SHREC 2021, by the published preset and by our default.

    python benchmarks/shrec.py FOLDER --output out [--steps 1000] [--published-epochs 50]

FOLDER holds reconstruction.mrc and grandmodel.mrc of one model (or a folder model_0 that does).
The data set is that of Gubins et al., "SHREC 2021: Classification in cryo-electron tomograms"
(3DOR 2021, doi 10.2312/3dor.20211307), to be had from the track's page, www.shrec.net/cryo-et.
Scores are those of the publication, over the whole volume, both volumes clipped to their 0.05 % and
99.95 % quantiles and scaled from 0 to 1, with the correlation beside them.

The published preset with its 50 epochs takes many hours even on a GPU; --methods default leaves it
out, --published-epochs and --features shorten it, and then it is no longer the published one.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from f2fd_core import DenoiseConfig, TrainConfig, UserError, denoise, train
from f2fd_core.data import mrc
from f2fd_core.evaluation.metrics import correlation, min_max, psnr, structural_similarity

# What the publication clips before it scores.
CLIP_QUANTILES = (0.0005, 0.9995)
NAMES = ("reconstruction.mrc", "grandmodel.mrc")
PUBLISHED = (
    ("raw", 0.06, 5.89),
    ("Wiener-like", 0.09, 6.89),
    ("Noise2Void", 0.06, 5.90),
    ("Self2Self with dropout", 0.06, 6.05),
    ("IsoNet", 0.13, 8.65),
    ("F2Fd", 0.10, 6.98),
)
"""The publication's own rows for SHREC 2021: (method, SSIM, PSNR)."""


def find(folder):
    """Paths of the reconstruction and the grand model; raises UserError."""
    for place in (Path(folder), Path(folder) / "model_0"):
        paths = [place / name for name in NAMES]
        if all(path.exists() for path in paths):
            return [str(path) for path in paths]
    raise UserError(
        f"{folder} holds no {' and '.join(NAMES)}; expected model 0 of the SHREC 2021 "
        "data set (Gubins et al., doi 10.2312/3dor.20211307), to be had from "
        "www.shrec.net/cryo-et"
    )


def read(path):
    """The clipped volume as a tensor, see the module's text."""
    array = np.array(mrc.open_volume(path, voxel_size=1.0).data, dtype=np.float32)
    return torch.from_numpy(array.clip(*np.quantile(array, CLIP_QUANTILES)))


def same_depth(volume, depth):
    """The central ``depth`` sections: the reconstructions are deeper than the specimen."""
    first = (volume.shape[0] - depth) // 2
    return volume[first : first + depth]


def scores(volume, truth):
    """(SSIM, PSNR, correlation) against the grand model, over the sections that both have."""
    depth = min(len(volume), len(truth))
    volume, truth = (min_max(same_depth(part, depth)) for part in (volume, truth))
    return (
        structural_similarity(volume, truth, 1.0),
        psnr(volume, truth, 1.0),
        correlation(volume, truth),
    )


def run(reconstruction, folder, settings, options):
    """Train and denoise; returns (path of the result, seconds)."""
    began = time.monotonic()
    shared = dict(
        tomograms=(reconstruction,), output=str(folder), device=options.device, overwrite=True
    )
    model = train(TrainConfig.create(dict(shared, **settings)))
    (result,) = denoise(DenoiseConfig(model=model, **shared))
    return result, time.monotonic() - began


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--output", required=True, help="folder for models and volumes")
    parser.add_argument(
        "--methods", nargs="+", default=("default", "published"), choices=("default", "published")
    )
    parser.add_argument(
        "--same-contrast",
        action="store_true",
        help="the grand model's contrast is that of the reconstruction, not its inverse",
    )
    parser.add_argument("--steps", type=int, default=0, help="steps of the default; 0: its own")
    parser.add_argument("--published-epochs", type=int, default=50)
    parser.add_argument(
        "--features", type=int, default=48, help="features of the published network"
    )
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    try:
        reconstruction, grand_model = find(options.folder)
        truth = read(grand_model)
        if not options.same_contrast:
            truth = -truth
        settings = {
            "default": {"steps": options.steps} if options.steps else {},
            "published": {
                "preset": "published",
                "epochs": options.published_epochs,
                "features": options.features,
            },
        }
        rows = [("input", scores(read(reconstruction), truth), 0.0)]
        for name in options.methods:
            path, seconds = run(
                reconstruction, Path(options.output) / name, settings[name], options
            )
            rows.append((name, scores(read(path), truth), seconds))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("| method | SSIM | PSNR | correlation | seconds |\n|---|---|---|---|---|")
    for name, (ssim, ratio, correlated), seconds in rows:
        print(f"| {name} | {ssim:.3f} | {ratio:.2f} | {correlated:.3f} | {seconds:.0f} |")
    for name, ssim, ratio in PUBLISHED:
        print(f"| publication: {name} | {ssim:.2f} | {ratio:.2f} | | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
