"""Makes the start that --start pretrained begins with: f2fd_core/network/pretrained.pt.

A network learns to give the noise-free reconstruction from a noisy one, on simulated tomograms of
random ellipsoids, solid and hollow, a third of them in a random density that fills the volume: on
no cell, by which it is measured (spheres are ellipsoids, too). Sizes, densities, voxel sizes,
thicknesses, tilt schemes, filters, the strength of the noise and the patch size vary. What it
learns is the reconstruction of tilts so dense that there are no streaks. Patches with constant
parts and with ramps teach it to leave those alone. Matter is dark, as in most tomograms; a training
inverts the network where it is bright. What is shipped went on from the weights of version 1.1
(18 341 steps of 64 patches on a GPU, of ellipsoids only) for 3400 steps on one core of a CPU:

    START=f2fd_core/network/pretrained.pt
    python tools/make_pretrained.py $START --initial-model $START --minutes 42 \
        --batch-size 16 --specimens 200 --shape 64 112 112 --precision bfloat16 --seed 7
"""

import argparse
import concurrent.futures
import dataclasses
import math
import multiprocessing
import time

import numpy as np
import torch

from f2fd_core import SimulateConfig, TrainConfig, fourier
from f2fd_core.network import checkpoint, unet
from f2fd_core.runtime.device import (
    autocast,
    choose_devices,
    choose_dtype,
    cpu_threads,
    prepare_cpu,
    to_device,
)
from f2fd_core.simulation.microscope import noise_free_volume, simulate_volumes, specimen_of
from f2fd_core.training.optimizer import build as build_optimizer
from f2fd_core.training.schedule import course

# Sides of patches; each batch has one, and about as many voxels as any other.
PATCHES = (32, 48, 64)
USUAL_PATCH = 48
TARGET = 0
CLEAN = 1
NOISES = (2, 3)
# Tomograms to begin with; the others come while the network learns.
FIRST = 32
# Range of the noise's power over the signal's.
WEAKEST = 1.0
STRONGEST = 120.0
# Shares of the patches: those without signal, with noise added, as a training's inputs have it,
# with a constant part and with a ramp.
EMPTY = 0.03
COPIES = 0.7
CUT = 0.06
RAMPS = 0.12
# Between slices so dense nothing is missing in a volume of the size that is simulated.
DENSE_STEP = 1.0
# Share of the tomograms that are low-passed.
FILTERED = 0.2
# Share of those that are full of matter, above and below, too.
FULL = 0.35
# The learning rate over a training's, at first and, after a linear fall, at last; the weights are
# averaged over about so many steps, and saved after so many.
FIRST_RATE = 1.0
LAST_RATE = 0.05
AVERAGED = 200
SAVED = 1000


def low_passed(volumes, random):
    """The volumes without high frequencies, all alike, by a soft edge at a random place."""
    limit, width = random.uniform(0.15, 0.4), random.uniform(0.02, 0.1)
    transfer = torch.sigmoid((limit - fourier.radial_frequency(volumes[0].shape)) / width * 4)
    return [
        torch.fft.irfftn(torch.fft.rfftn(volume) * transfer, s=volume.shape) for volume in volumes
    ]


def simulated(seed, shape):
    """A specimen and a microscope, both random: an array (4, Z, Y, X), each of mean 0.

    The noise-free reconstruction of dense tilts, that of the tilts there are, and two noises.
    """
    random = np.random.default_rng(seed)
    full = random.uniform() < FULL
    config = SimulateConfig(
        specimen="matter" if full else "shapes",
        shape=shape,
        seed=seed,
        voxel_size=random.uniform(6, 20),
        tilt_range=(random.uniform(40, 66),),
        tilt_step=float(random.choice([1, 1.5, 2, 3, 4, 6])),
        defocus=random.uniform(1, 5),
        thickness=int(random.uniform(1, 2.5) * shape[0]) if full else 0,
        sirt_iterations=int(random.choice([0, 0, 0, 10, 20, 30])),
    )
    made = specimen_of(config)
    volumes = simulate_volumes(config, made)
    dense = dataclasses.replace(config, tilt_step=min(DENSE_STEP, config.tilt_step))
    volumes["target"] = volumes["clean"] if dense == config else noise_free_volume(dense, made)
    target, clean, odd, even = (
        torch.from_numpy(volumes[name]) for name in ("target", "clean", "odd", "even")
    )
    noises = [(half - clean) / math.sqrt(2) for half in (odd, even)]
    if random.uniform() < FILTERED:
        target, clean, *noises = low_passed((target, clean, *noises), random)
    specimen = torch.stack([target, clean, *noises])
    return (specimen - specimen.mean((1, 2, 3), keepdim=True)).numpy()


def with_constant_part(noisy, target, random):
    """Both (Z, Y, X) where a random plane cuts off a part that is constant, as borders are."""
    axes = [torch.linspace(-1, 1, side) for side in noisy.shape]
    across = sum(
        weight * axis
        for weight, axis in zip(random.normal(size=3), torch.meshgrid(*axes, indexing="ij"))
    )
    if random.uniform() < 0.7:
        across = torch.meshgrid(*axes, indexing="ij")[random.integers(3)] * random.choice([-1, 1])
    outside = to_device(across > random.uniform(-0.8, 0.8), noisy.device)
    level = random.normal(0, 2)
    return torch.where(outside, level, noisy), torch.where(outside, level, target)


def ramp(shape, random, device):
    """What rises from one side to another, of any mean, (Z, Y, X)."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in shape], indexing="ij")
    values = random.normal(0, 0.7) + sum(random.normal(0, 0.5) * axis for axis in axes)
    return to_device(values.float(), device)


class Specimens:
    """Simulated tomograms on a device, of which patches are cut."""

    def __init__(self, futures, shape, device):
        """``futures``: what :func:`simulated` will have given, in their order."""
        self.waiting, self.count = list(futures), 0
        self.volumes = torch.empty((len(self.waiting), 4) + shape, device=device)
        self.powers = torch.empty((len(self.waiting), 2), device=device)
        while self.count < min(FIRST, len(self.volumes)):
            self._take_in()

    def _take_in(self):
        specimen = torch.from_numpy(self.waiting.pop(0).result())
        self.volumes[self.count] = to_device(specimen, self.volumes.device)
        signal_and_noise = specimen[[TARGET, NOISES[0]]]
        self.powers[self.count] = signal_and_noise.square().mean((1, 2, 3))
        self.count += 1

    def take_in_what_came(self):
        while self.waiting and self.waiting[0].done():
            self._take_in()

    def patches(self, specimens, patch, random, *kinds):
        """Random patches, flipped about random axes, of these specimens, (N, Z, Y, X) for each of
        ``kinds``: TARGET, CLEAN or N numbers out of NOISES. All are of the same places."""
        indices = [torch.from_numpy(specimens)]
        for side in self.volumes.shape[2:]:
            places = random.integers(0, side - patch + 1, (len(specimens), 1)) + np.arange(patch)
            flipped = random.uniform(size=(len(specimens), 1)) < 0.5
            indices.append(torch.from_numpy(np.where(flipped, places[:, ::-1], places)))
        device = self.volumes.device
        specimens, z, y, x = (to_device(index, device) for index in indices)
        kinds = [
            to_device(torch.from_numpy(np.broadcast_to(kind, len(specimens)).copy()), device)
            for kind in kinds
        ]
        return [
            self.volumes[
                specimens[:, None, None, None],
                kind[:, None, None, None],
                z[:, :, None, None],
                y[:, None, :, None],
                x[:, None, None, :],
            ]
            for kind in kinds
        ]

    def examples(self, voxels, random):
        """(inputs, targets, weights of their errors): patches, as of standardised tomograms,
        (N, Z, Y, X), of about so many ``voxels``, and N weights.

        Their noise is of another place of the same tomogram. Most have more of it added, as the
        inputs of trainings have. The weights make patches of faint tomograms count, too.
        """
        patch = int(
            random.choice([side for side in PATCHES if side <= min(self.volumes.shape[2:])])
        )
        count = max(1, round(voxels / patch**3))
        specimens = random.integers(self.count, size=count)
        own = random.integers(len(NOISES), size=count)
        ratio = np.exp(random.uniform(math.log(WEAKEST), math.log(STRONGEST), count))
        added = (random.uniform(size=count) < COPIES) * random.uniform(0, 1, count)
        full = random.uniform(size=count) >= EMPTY
        device = self.volumes.device
        ratio, added, full = (
            to_device(torch.from_numpy(factor.astype(np.float32)), device)[:, None, None, None]
            for factor in (ratio, added, full)
        )
        signal, noise = self.powers[
            to_device(torch.from_numpy(specimens), device), :, None, None, None
        ].unbind(1)
        strength = torch.sqrt(ratio * signal / noise)
        scale = torch.sqrt(signal * (1 + ratio))
        target, clean = self.patches(specimens, patch, random, TARGET, CLEAN)
        (noise,) = self.patches(specimens, patch, random, NOISES[0] + own)
        (other,) = self.patches(specimens, patch, random, NOISES[1] - own)
        noisy = (full * clean + strength * (noise + added * other)) / scale
        target = full * target / scale
        for number in range(count):
            if random.uniform() < RAMPS:
                rising = ramp(noisy.shape[1:], random, device)
                noisy[number] += rising
                target[number] += rising
            if random.uniform() < CUT:
                noisy[number], target[number] = with_constant_part(
                    noisy[number], target[number], random
                )
        return noisy, target, torch.sqrt(1 + ratio).flatten()


def learn(config, specimens, device, seconds, save):
    """Learn for ``config.steps`` steps, or fewer that take so many ``seconds``; ``save(weights,
    steps)`` gets the averaged weights now and then and in the end."""
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    dtype = choose_dtype(config.precision, device)
    network = unet.build(config)
    if config.initial_model:
        network.load_state_dict(checkpoint.load(config.initial_model)["model"])
    network = network.train().to(device, memory_format=torch.channels_last_3d)
    optimizer = build_optimizer(config, network, device)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(1 - 1 / AVERAGED)
    )
    warmth = course(config, config.steps, 0.0)
    began, losses = time.monotonic(), []
    step = 0
    while True:
        done = max(step / config.steps, (time.monotonic() - began) / seconds)
        if done >= 1:
            save(averaged.module.state_dict(), step)
            return
        if step and step % SAVED == 0:
            save(averaged.module.state_dict(), step)
        inputs, targets, weights = specimens.examples(config.batch_size * USUAL_PATCH**3, random)
        optimizer.param_groups[0]["lr"] = (
            config.learning_rate * warmth(step) * (FIRST_RATE + done * (LAST_RATE - FIRST_RATE))
        )
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
            print(
                (
                    f"step {step}, loss {torch.stack(losses).mean():.4f}, {specimens.count} "
                    f"tomograms, {time.monotonic() - began:.0f} s"
                ),
                flush=True,
            )
            losses.clear()
            specimens.take_in_what_came()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", metavar="FILE")
    parser.add_argument("--steps", type=int, default=27000)
    parser.add_argument("--minutes", type=float, default=60.0, help="learn no longer than this")
    parser.add_argument("--initial-model", default="", help="weights to go on from")
    parser.add_argument("--batch-size", type=int, default=64, help="of patches of 48")
    parser.add_argument("--specimens", type=int, default=1200)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 144, 144))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    prepare_cpu(options.threads)
    (device,) = choose_devices(options.device)
    config = TrainConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        patch_size=USUAL_PATCH,
        seed=options.seed,
        start="random",
        initial_model=options.initial_model,
        precision=options.precision,
    )
    shape = tuple(options.shape)
    with concurrent.futures.ProcessPoolExecutor(
        max(1, cpu_threads() - 1),
        multiprocessing.get_context("spawn"),
        initializer=prepare_cpu,
        initargs=(1,),
    ) as processes:
        futures = [
            processes.submit(simulated, 1000 * options.seed + number, shape)
            for number in range(options.specimens)
        ]
        try:
            learn(
                config,
                Specimens(futures, shape, device),
                device,
                60 * options.minutes,
                lambda weights, step: checkpoint.save(
                    options.output,
                    weights,
                    dataclasses.replace(config, initial_model=""),
                    step,
                    10.0,
                ),
            )
        finally:
            for future in futures:
                future.cancel()


if __name__ == "__main__":
    main()
