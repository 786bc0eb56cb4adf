"""Makes the start that --start shapes begins with: f2fd_core/start.pt.

A network learns to give the noise-free reconstruction from a noisy one, on simulated tomograms of
random ellipsoids, solid and hollow: on no cell, by which it is measured (spheres are ellipsoids,
too), and on many sizes, densities, voxel sizes, tilt schemes, filters and strengths of noise.
Matter is dark, as in most tomograms; a training inverts the network where it is bright. In twice 35
minutes on one core with AVX-512, the second time on other tomograms:

    python benchmarks/start.py first.pt
    python benchmarks/start.py f2fd_core/start.pt --initial-model first.pt --seed 2
"""
import argparse
import dataclasses
import math
import time
from typing import NamedTuple

import numpy as np
import torch

from f2fd_core import SimulateConfig, TrainConfig, checkpoint, fourier, unet
from f2fd_core.device import arithmetic, autocast
from f2fd_core.optimizer import build as build_optimizer
from f2fd_core.phantom import simulate_volumes
from f2fd_core.schedule import course

PATCH, BATCH = 48, 4
# Of the noise at a signal-to-noise ratio of 0.1.
WEAKEST, STRONGEST = 0.25, 2.0
# Shares of the patches: those without signal, and those with noise added, as a training's inputs
# have it.
EMPTY, COPIES = 0.03, 0.7
# Share of the tomograms that are low-passed.
FILTERED = 0.2
# After this share of the steps the learning rate falls, to this part of it; the weights are
# averaged over about so many steps.
SETTLED, LAST_RATE, AVERAGED = 0.5, 0.05, 200


class Specimen(NamedTuple):
    """A noise-free reconstruction and two noises of it, float32 (Z, Y, X), each of mean 0."""
    clean: torch.Tensor
    noises: tuple

    def powers(self):
        return float(self.clean.square().mean()), float(self.noises[0].square().mean())


def low_passed(volumes, random):
    """The volumes without high frequencies, all alike, by a soft edge at a random place."""
    limit, width = random.uniform(0.15, 0.4), random.uniform(0.02, 0.1)
    transfer = torch.sigmoid((limit - fourier.radial_frequency(volumes[0].shape)) / width * 4)
    return [torch.fft.irfftn(torch.fft.rfftn(volume) * transfer, s=volume.shape)
            for volume in volumes]


def simulated(seed, shape):
    """A Specimen of random shapes, with a random microscope."""
    random = np.random.default_rng(seed)
    volumes = simulate_volumes(SimulateConfig(
        specimen="shapes", shape=shape, seed=seed, voxel_size=random.uniform(6, 15),
        tilt_range=random.uniform(45, 66), tilt_step=float(random.choice([1.5, 2, 3])),
        defocus=random.uniform(1, 5),
        sirt_iterations=int(random.choice([0, 0, 0, 10, 20, 30]))))
    clean, odd, even = (torch.from_numpy(volumes[name]) for name in ("clean", "odd", "even"))
    if random.uniform() < FILTERED:
        clean, odd, even = low_passed((clean, odd, even), random)
    noises = ((half - clean) / math.sqrt(2) for half in (odd, even))
    return Specimen(clean - clean.mean(), tuple(noise - noise.mean() for noise in noises))


def cut(volume, random):
    """A random patch, flipped about random axes."""
    corner = [int(random.integers(0, side - PATCH + 1)) for side in volume.shape]
    patch = volume[tuple(slice(first, first + PATCH) for first in corner)]
    return patch.flip([axis for axis in range(3) if random.uniform() < 0.5])


def example(specimens, random):
    """(input, target, weight of its error): a patch as of a standardised tomogram.

    Its noise is of another place of the same tomogram. Most have more of it added, as the inputs
    of trainings have. The weight makes patches of faint tomograms count, too.
    """
    specimen = specimens[random.integers(len(specimens))]
    signal, noise = specimen.powers()
    strength = math.exp(random.uniform(math.log(WEAKEST), math.log(STRONGEST)))
    scale = math.sqrt(signal + strength ** 2 * noise)
    own, added = random.permutation(2)
    clean = cut(specimen.clean, random) * (0 if random.uniform() < EMPTY else 1)
    noisy = clean + strength * cut(specimen.noises[own], random)
    if random.uniform() < COPIES:
        noisy = noisy + random.uniform(0, 1) * strength * cut(specimen.noises[added], random)
    return noisy / scale, clean / scale, torch.tensor(scale / math.sqrt(signal))


def rate(step, steps, settling):
    """The learning rate over the usual one: falls from SETTLED of the steps to LAST_RATE."""
    late = max(0.0, (step / steps - SETTLED) / (1 - SETTLED))
    return settling(step) * (1 - (1 - LAST_RATE) * late)


def learn(config, specimens, seed):
    """The averaged weights after ``config.steps`` steps, from the initial model if there is one."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    device = torch.device("cpu")
    dtype = arithmetic("auto", device)
    if config.initial_model:
        network, _ = checkpoint.restore(checkpoint.load(config.initial_model), config.initial_model)
    else:
        network = unet.build(config)
    network.train().to(memory_format=torch.channels_last_3d)
    optimizer = build_optimizer(config, network, device)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(1 - 1 / AVERAGED))
    settling = course(config, config.steps, 1.0)
    began, losses = time.monotonic(), []
    for step in range(config.steps):
        inputs, targets, weights = map(torch.stack, zip(*(example(specimens, random)
                                                          for _ in range(BATCH))))
        optimizer.param_groups[0]["lr"] = config.learning_rate * rate(step, config.steps, settling)
        inputs = inputs.unsqueeze(1).contiguous(memory_format=torch.channels_last_3d)
        with autocast(dtype, device):
            prediction = network(inputs)[:, 0]
        errors = (prediction.float() - targets).square().mean((1, 2, 3))
        loss = (errors * weights).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
        optimizer.step()
        averaged.update_parameters(network)
        losses.append(loss.item())
        if (step + 1) % AVERAGED == 0:
            print("step %d, loss %.4f, %.0f s" % (step + 1, np.mean(losses[-AVERAGED:]),
                                                  time.monotonic() - began), flush=True)
    return averaged.module.state_dict()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", metavar="FILE")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--specimens", type=int, default=120)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 144, 144))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--initial-model", default="", help="what an earlier run has made")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    config = TrainConfig(steps=options.steps, batch_size=BATCH, patch_size=PATCH, seed=options.seed,
                         start="random", initial_model=options.initial_model)
    specimens = [simulated(1000 * options.seed + number, tuple(options.shape))
                 for number in range(options.specimens)]
    weights = learn(config, specimens, options.seed)
    # Without the path, which is of the machine that made it.
    checkpoint.save(options.output, weights, dataclasses.replace(config, initial_model=""),
                    options.steps, 10.0)


if __name__ == "__main__":
    main()
