"""What denoising is worth to membrane segmentation: Dice of a segmentation network, in one run.

A small network learns to segment membranes in simulated cells of other seeds than the test's. It
then segments every volume in the folders of 'f2fd benchmark' (and of
benchmarks/wedge.py): the noisy tomogram, what each method made of it, and the noise-free
one. Of what several folders hold the last
one's counts. The network learns from noisy and noise-free volumes alike, so that it knows exactly
the noise of the test, or, with --foreign-noise, from noise-free ones with white noise of random
strength: it knows noise, but not this one, as a network that was trained on others' tomograms.

    f2fd benchmark out
    python benchmarks/segmentation.py out [--foreign-noise]
"""

import argparse
import glob
import os

import torch
from harness import read
from torch.nn import functional

from f2fd_core import SimulateConfig
from f2fd_core.data.patches import augment
from f2fd_core.data.regions import crop
from f2fd_core.network.unet import CompactUNet
from f2fd_core.runtime.device import autocast, choose_devices, choose_dtype, prepare_cpu
from f2fd_core.simulation.microscope import simulate_volumes

SEEDS = (101, 102, 103)
RATIOS = (0.1, 0.3, 1.0)
SIDE = 48
BATCH = 4
RATE = 1e-3
LONGEST = 1.0
MOST_WHITE = 1.0
PARTS = ("odd", "even", "membrane", "density")
CLEAN = "clean"


def standardised(volume):
    return (volume - volume.mean()) / volume.std()


def training_volumes(shape, noisy):
    """[(volume, mask)]: simulated cells without noise and, if ``noisy``, at every ratio."""
    pairs = []
    for seed in SEEDS:
        for number, ratio in enumerate(RATIOS if noisy else RATIOS[:1]):
            volumes = {
                name: torch.from_numpy(volume)
                for name, volume in simulate_volumes(
                    SimulateConfig(shape=shape, snr=ratio, seed=seed)
                ).items()
            }
            mask = (volumes["membrane"] > 0.5).float()
            names = ("tomogram",) * noisy + (() if number else (CLEAN,))
            pairs += [(standardised(volumes[name]), mask) for name in names]
    return pairs


def batch(pairs, white):
    """Random patches and their masks, (BATCH, 1, Z, Y, X) each, turned alike.

    White noise of random strength up to ``white`` is added to the patches.
    """
    stacks = []
    for number in torch.randint(len(pairs), (BATCH,)).tolist():
        volume, mask = pairs[number]
        start = [int(torch.randint(length - SIDE + 1, ())) for length in volume.shape]
        patch = torch.stack([crop(part, start, (SIDE,) * 3) for part in (volume, mask)])
        if white:
            patch[0] += white * float(torch.rand(())) * torch.randn(patch[0].shape)
        stacks.append(augment(patch, "wedge"))
    return torch.stack(stacks).split(1, dim=1)


def soft_dice(logits, mask):
    inside = torch.sigmoid(logits)
    return 2 * (inside * mask).sum() / (inside.sum() + mask.sum())


def train(pairs, steps, white, device, dtype):
    torch.manual_seed(0)
    network = CompactUNet(features=8, dropout=0.0).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(steps):
        volumes, masks = (part.to(device) for part in batch(pairs, white))
        with autocast(dtype, device):
            logits = network(volumes)
        logits = logits.float()
        loss = (
            functional.binary_cross_entropy_with_logits(logits, masks)
            + 1
            - soft_dice(logits, masks)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), LONGEST)
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def dice(network, volume, mask, device):
    """Dice of the network's membranes, probability above 0.5, with the true mask."""
    found = network(standardised(volume)[None, None].to(device))[0, 0].cpu() > 0
    return float(2 * (found & mask).sum() / (found.sum() + mask.sum()))


def places(folders):
    """{case: {method: path}} of the benchmark's folders, noise-free and noisy ones among them."""
    found = {}
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(folder, "*", "*.mrc"))):
            case, name = os.path.basename(os.path.dirname(path)), os.path.basename(path)[:-4]
            found.setdefault(case, {})[name] = path
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--foreign-noise", action="store_true")
    options = parser.parse_args(argv)
    prepare_cpu(options.threads)
    (device,) = choose_devices("auto")
    cases = {case: paths for case, paths in places(options.folders).items() if "membrane" in paths}
    shape = tuple(read(next(iter(cases.values()))[CLEAN]).shape)
    foreign = options.foreign_noise
    pairs = training_volumes(shape, not foreign)
    network = train(
        pairs, options.steps, MOST_WHITE if foreign else 0.0, device, choose_dtype("auto", device)
    )
    # Now and then a training goes wrong, and then the table says nothing.
    known = [dice(network, volume, mask > 0.5, device) for volume, mask in pairs]
    print(f"Dice on what it learned from: {', '.join(f'{value:.3f}' for value in known)}\n")
    methods = [
        name
        for name in dict.fromkeys(name for paths in cases.values() for name in paths)
        if name not in PARTS
    ]
    methods.sort(key=lambda name: (name != "tomogram", name == CLEAN))
    titles = {"tomogram": "noisy", CLEAN: "noise-free"}
    print(
        f"| case | {' | '.join(titles.get(name, name) for name in methods)} "
        f"|\n{'|---' * (1 + len(methods))}|"
    )
    for case, paths in cases.items():
        mask = read(paths["membrane"]) > 0.5
        cells = [
            f"{dice(network, read(paths[name]), mask, device):.3f}" if name in paths else ""
            for name in methods
        ]
        print(f"| {case} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
