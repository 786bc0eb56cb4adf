"""Makes the start that --start pretrained begins with: f2fd_core/start.pt.

A network learns to give the noise-free reconstruction from a noisy one, on simulated tomograms of
random ellipsoids, solid and hollow: on no cell, by which it is measured (spheres are ellipsoids,
too), and on many sizes, densities, voxel sizes, tilt schemes, filters and strengths of noise.
Matter is dark, as in most tomograms; a training inverts the network where it is bright. What is
shipped took 18 341 steps on an NVIDIA H200, beside which 15 processors simulated at first:

    python benchmarks/start.py f2fd_core/start.pt --device cuda --precision float32 --minutes 9.1
"""
import argparse
import concurrent.futures
import math
import multiprocessing
import time

import numpy as np
import torch

from f2fd_core import SimulateConfig, TrainConfig, checkpoint, fourier, unet
from f2fd_core.device import arithmetic, autocast, choose_devices, cpu_threads, moved, prepare_cpu
from f2fd_core.optimizer import build as build_optimizer
from f2fd_core.phantom import simulate_volumes
from f2fd_core.schedule import course

PATCH = 48
CLEAN, NOISES = 0, (1, 2)
# Tomograms to begin with; the others come while the network learns.
FIRST = 32
# Of the noise at a signal-to-noise ratio of 0.1.
WEAKEST, STRONGEST = 0.25, 2.0
# Shares of the patches: those without signal, and those with noise added, as a training's inputs
# have it.
EMPTY, COPIES = 0.03, 0.7
# Share of the tomograms that are low-passed.
FILTERED = 0.2
# The learning rate over a training's, at first and, after a linear fall, at last; the weights are
# averaged over about so many steps.
FIRST_RATE, LAST_RATE, AVERAGED = 2.0, 0.05, 200


def low_passed(volumes, random):
    """The volumes without high frequencies, all alike, by a soft edge at a random place."""
    limit, width = random.uniform(0.15, 0.4), random.uniform(0.02, 0.1)
    transfer = torch.sigmoid((limit - fourier.radial_frequency(volumes[0].shape)) / width * 4)
    return [torch.fft.irfftn(torch.fft.rfftn(volume) * transfer, s=volume.shape)
            for volume in volumes]


def simulated(seed, shape):
    """A noise-free reconstruction of random shapes with a random microscope, and two noises of it:
    an array (3, Z, Y, X), each of mean 0."""
    random = np.random.default_rng(seed)
    volumes = simulate_volumes(SimulateConfig(
        specimen="shapes", shape=shape, seed=seed, voxel_size=random.uniform(6, 15),
        tilt_range=random.uniform(45, 66), tilt_step=float(random.choice([1.5, 2, 3])),
        defocus=random.uniform(1, 5),
        sirt_iterations=int(random.choice([0, 0, 0, 10, 20, 30]))))
    clean, odd, even = (torch.from_numpy(volumes[name]) for name in ("clean", "odd", "even"))
    if random.uniform() < FILTERED:
        clean, odd, even = low_passed((clean, odd, even), random)
    specimen = torch.stack([clean, *((half - clean) / math.sqrt(2) for half in (odd, even))])
    return (specimen - specimen.mean((1, 2, 3), keepdim=True)).numpy()


class Specimens:
    """Simulated tomograms on a device, of which patches are cut."""

    def __init__(self, futures, shape, device):
        """``futures``: what :func:`simulated` will have given, in their order."""
        self.waiting, self.count = list(futures), 0
        self.volumes = torch.empty((len(self.waiting), 3) + shape, device=device)
        self.powers = torch.empty((len(self.waiting), 2), device=device)
        while self.count < min(FIRST, len(self.volumes)):
            self._take_in()

    def _take_in(self):
        specimen = torch.from_numpy(self.waiting.pop(0).result())
        self.volumes[self.count] = moved(specimen, self.volumes.device)
        signal_and_noise = specimen[[CLEAN, NOISES[0]]]
        self.powers[self.count] = signal_and_noise.square().mean((1, 2, 3))
        self.count += 1

    def take_in_what_came(self):
        while self.waiting and self.waiting[0].done():
            self._take_in()

    def patches(self, specimens, kinds, random):
        """Random patches, flipped about random axes, (N, Z, Y, X): of these specimens, each of the
        kind CLEAN or one of NOISES."""
        indices = [torch.from_numpy(specimens), torch.from_numpy(kinds)]
        for side in self.volumes.shape[2:]:
            places = (random.integers(0, side - PATCH + 1, (len(specimens), 1))
                      + np.arange(PATCH))
            flipped = random.uniform(size=(len(specimens), 1)) < 0.5
            indices.append(torch.from_numpy(np.where(flipped, places[:, ::-1], places)))
        device = self.volumes.device
        specimens, kinds, z, y, x = (moved(index, device) for index in indices)
        return self.volumes[specimens[:, None, None, None], kinds[:, None, None, None],
                            z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]

    def examples(self, count, random):
        """(inputs, targets, weights of their errors): ``count`` patches, as of standardised
        tomograms, (N, Z, Y, X), and N weights.

        Their noise is of another place of the same tomogram. Most have more of it added, as the
        inputs of trainings have. The weights make patches of faint tomograms count, too.
        """
        specimens = random.integers(self.count, size=count)
        own = random.integers(len(NOISES), size=count)
        strength = np.exp(random.uniform(math.log(WEAKEST), math.log(STRONGEST), count))
        added = (random.uniform(size=count) < COPIES) * random.uniform(0, 1, count) * strength
        full = random.uniform(size=count) >= EMPTY
        device = self.volumes.device
        strength, added, full = (
            moved(torch.from_numpy(factor.astype(np.float32)), device)[:, None, None, None]
            for factor in (strength, added, full))
        signal, noise = self.powers[moved(torch.from_numpy(specimens), device), :, None, None,
                                    None].unbind(1)
        scale = torch.sqrt(signal + strength ** 2 * noise)
        clean = full * self.patches(specimens, np.full(count, CLEAN), random)
        noisy = (clean + strength * self.patches(specimens, NOISES[0] + own, random)
                 + added * self.patches(specimens, NOISES[1] - own, random))
        return noisy / scale, clean / scale, (scale / torch.sqrt(signal)).flatten()


def learn(config, specimens, device, seconds):
    """The averaged weights after ``config.steps`` steps, or fewer that take so many ``seconds``,
    and their number."""
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    dtype = arithmetic(config.precision, device)
    network = unet.build(config).train().to(device, memory_format=torch.channels_last_3d)
    optimizer = build_optimizer(config, network, device)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(1 - 1 / AVERAGED))
    warmth = course(config, config.steps, 0.0)
    began, losses = time.monotonic(), []
    step = 0
    while True:
        done = max(step / config.steps, (time.monotonic() - began) / seconds)
        if done >= 1:
            return averaged.module.cpu().state_dict(), step
        inputs, targets, weights = specimens.examples(config.batch_size, random)
        optimizer.param_groups[0]["lr"] = config.learning_rate * warmth(step) * (
            FIRST_RATE + done * (LAST_RATE - FIRST_RATE))
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
        losses.append(loss.detach())
        step += 1
        if step % AVERAGED == 0:
            print("step %d, loss %.4f, %d tomograms, %.0f s"
                  % (step, torch.stack(losses).mean(), specimens.count,
                     time.monotonic() - began), flush=True)
            losses.clear()
            specimens.take_in_what_came()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", metavar="FILE")
    parser.add_argument("--steps", type=int, default=27000)
    parser.add_argument("--minutes", type=float, default=60.0, help="learn no longer than this")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--specimens", type=int, default=1200)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 144, 144))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    prepare_cpu(options.threads)
    device, = choose_devices(options.device)
    config = TrainConfig(steps=options.steps, batch_size=options.batch_size, patch_size=PATCH,
                         seed=options.seed, start="random", precision=options.precision)
    shape = tuple(options.shape)
    with concurrent.futures.ProcessPoolExecutor(
            max(1, cpu_threads() - 1), multiprocessing.get_context("spawn"),
            initializer=prepare_cpu, initargs=(1,)) as processes:
        futures = [processes.submit(simulated, 1000 * options.seed + number, shape)
                   for number in range(options.specimens)]
        try:
            weights, steps = learn(config, Specimens(futures, shape, device), device,
                                   60 * options.minutes)
        finally:
            for future in futures:
                future.cancel()
    checkpoint.save(options.output, weights, config, steps, 10.0)


if __name__ == "__main__":
    main()
