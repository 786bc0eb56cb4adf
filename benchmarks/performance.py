"""What F2Fd takes: time against the bare network, growth with size, memory.

    python benchmarks/performance.py rate --help
    python benchmarks/performance.py scaling --help
    python benchmarks/performance.py memory --help

The first may be left out.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from unittest import mock

import harness
import numpy as np
import torch

from f2fd_core import TrainConfig, train
from f2fd_core.commands.inputs import open_as_they_are
from f2fd_core.commands.train import open_for_training
from f2fd_core.config import DenoiseConfig, prediction_defaults, tta_flips
from f2fd_core.data import formats
from f2fd_core.data.source import slabs
from f2fd_core.network import unet
from f2fd_core.perturbation import perturbation_for_prediction, perturbation_for_training
from f2fd_core.prediction.predictor import Predictor, denoised_region, tiling
from f2fd_core.runtime.device import (
    autocast,
    choose_devices,
    choose_dtype,
    device_name,
    prepare_cpu,
    runs_asynchronously,
)
from f2fd_core.runtime.run_folder import prepare_folder
from f2fd_core.training.trainer import train_step

MOST_WARMING = 3
COMPILED, OWN_WAY = "compiled", "as PyTorch chooses for a single tile"


def waited(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(function, device, repeats):
    """Mean time of a call."""
    for _ in range(min(MOST_WARMING, repeats)):
        function()
    began = waited(device)
    for _ in range(repeats):
        function()
    return (waited(device) - began) / repeats


def work_a_voxel(network, shape):
    """(operations, bytes) of the network for each voxel of an input of ``shape``.

    Counted are the multiplications and additions of the convolutions, and what convolutions and
    activations read and write, two bytes a number.
    """
    operations = moved = 0

    def count(module, inputs, output):
        nonlocal operations, moved
        moved += 2 * (inputs[0].numel() + output.numel())
        if isinstance(module, torch.nn.Conv3d):
            operations += 2 * module.weight.numel() * output.numel() // output.shape[1]

    for module in network.modules():
        if isinstance(module, (torch.nn.Conv3d, torch.nn.LeakyReLU)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(shape))
    voxels = torch.Size(shape).numel()
    return operations / voxels, moved / voxels


class Again:
    """One batch for all steps, in the place of :class:`~f2fd_core.runtime.workers.Prefetcher`."""

    def __init__(self, batch):
        self.batch = batch

    def get(self, number):
        return self.batch

    def prefetch(self, number):
        """Nothing to do."""

    def join(self):
        """Nothing to wait for."""


def training_rows(training, repeats):
    """(name, seconds) of a step and of its parts."""
    config, device = training.config, training.device
    batch = training.batch(0)
    inputs = batch.inputs.contiguous(memory_format=torch.channels_last_3d)

    def passes(backward=True):
        with autocast(training.dtype, device):
            prediction = training.network(inputs)
        if backward:
            training.loss_of(prediction.float(), batch.targets, batch.weights).backward()

    def step():
        train_step(training)
        training.step += 1

    numbers = iter(range(10**9))
    training.network.train()
    whole = seconds_of(step, device, repeats)
    yield f"training step of {config.batch_size} patches of {config.patch_size}³", whole
    training.prefetcher.join()
    prefetcher, training.prefetcher = training.prefetcher, Again(batch)
    yield "- the same from one batch again and again", seconds_of(step, device, repeats)
    training.prefetcher = prefetcher
    yield (
        "- its data: perturbation, sampling, augmentation",
        seconds_of(lambda: training.batch(next(numbers)), device, repeats),
    )
    yield "- the network forwards and backwards", seconds_of(passes, device, repeats)
    with torch.no_grad():
        yield "- the network forwards", seconds_of(lambda: passes(False), device, repeats)
    yield "- the optimizer", seconds_of(training.optimizer.step, device, repeats)


def network_seconds(network, dtype, layout, device, shape, repeats):
    network = network.to(device, memory_format=layout).eval()
    values = torch.randn(shape, device=device).contiguous(memory_format=layout)
    with torch.inference_mode(), autocast(dtype, device):
        return seconds_of(lambda: network(values), device, repeats)


def run_rate(argv=None):
    """Where the time of training and of denoising goes, against what the bare network takes.

    On a volume of random numbers, in one run: a training step and its parts; denoising tile by tile
    against the network on one tile again and again; and the network's rate by number type and
    memory layout and, if asked for, compiled. The operations of the network are counted, so that
    the rate can be set against the device's.

        python benchmarks/performance.py rate [--device cuda] [--compile]
    """
    parser = harness.parser(run_rate)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 176, 176))
    parser.add_argument("--patch-size", type=int, default=TrainConfig.patch_size)
    parser.add_argument("--tile-size", type=int, default=96)
    parser.add_argument("--predictions", type=int, default=4)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=0,
        help="predictions at once; 0: as 'f2fd denoise' does, all of them on a GPU "
        "(if its memory has room)",
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(argv)
    prepare_cpu(options.threads)
    (device,) = choose_devices(options.device)
    print(f"{device_name(device)}, PyTorch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/noise.mrc"
        write_noise(path, options.shape)
        config = TrainConfig(
            tomograms=(path,),
            output=folder + "/run",
            steps=10**6,
            patch_size=options.patch_size,
            device=options.device,
        )
        prepare_folder(config)
        training = open_for_training(config)
        harness.heading("part", "seconds", "share of the step")
        whole = None
        for name, seconds in training_rows(training, options.repeats):
            whole = whole or seconds
            harness.show(name, f"{seconds:.4f}", f"{100 * seconds / whole:.0f} %")
        at_once = (
            options.predictions
            if runs_asynchronously(device)
            else prediction_defaults(config)["batch_size"]
        )
        side = tiling(training.volumes[0].shape, options.tile_size, config.network).size
        tile = (options.batch_size or at_once, 1, *side)
        rate_of_denoising(training, tile, options)
        rate_of_network(config, device, tile, options)


def rate_of_denoising(training, tile, options):
    """Print the rate of tiles (batch, 1, Z, Y, X) of the tomogram against that of one again and
    again."""
    config, device, (volume,) = training.config, training.device, training.volumes
    bare = network_seconds(
        training.network,
        choose_dtype("auto", device),
        torch.channels_last_3d,
        device,
        tile,
        options.repeats,
    )
    predictor = Predictor(
        training.network,
        device,
        choose_dtype("auto", device),
        options.predictions,
        tile[0],
        flips=tta_flips(config),
    )
    began = waited(device)
    noisy = perturbation_for_training(volume, config, device)
    first = waited(device) - began
    perturbation = noisy.for_prediction(options.predictions)
    computed = []
    moments = predictor.predict_tile

    def counted(perturbation, start, size):
        computed.append(math.prod(size) * predictor.predictions)
        return moments(perturbation, start, size)

    predictor.predict_tile = counted

    def all_tiles():
        computed.clear()
        denoised_region(
            predictor, perturbation, (0, 0, 0), volume.shape, options.tile_size, config.network
        )

    # A GPU's memory, and the one beside it that it is filled from, are got in the first round.
    seconds = seconds_of(all_tiles, device, 1)
    rate, least = sum(computed) / seconds, math.prod(tile) / bare
    each = sum(computed) / options.predictions / math.prod(volume.shape)
    print()
    harness.heading("denoising", "")
    for name, value in (
        (f"network on {words_of(tile)}, million voxels/s", least / 1e6),
        ("tiles of the tomogram, million voxels/s", rate / 1e6),
        ("ratio", rate / least),
        ("voxels computed for each voxel and prediction", each),
        ("all tiles, seconds", seconds),
        ("the estimate of the noise, for more predictions than positions, seconds", first),
    ):
        harness.show(name, f"{value:.2f}")


def words_of(tile):
    """(batch, 1, Z, Y, X) in words."""
    return f"{tile[0]} of one tile of {' x '.join(map(str, tile[2:]))}"


def rate_of_network(config, device, tile, options):
    """Print the network's rate by number type and memory layout, and the work of a voxel."""
    print()
    harness.heading(f"network forwards, {words_of(tile)}", "seconds", "ratio", "10⁹ operations/s")
    operations, moved = work_a_voxel(unet.build(config), (1, *tile[1:]))
    count = operations * math.prod(tile)
    plain = None
    # Where bfloat16 is not fast it is emulated, in minutes a tile.
    dtype = choose_dtype("auto", device)
    variants = [
        (number_type, layout, "")
        for number_type in dict.fromkeys((torch.float32, dtype))
        for layout in (torch.contiguous_format, torch.channels_last_3d)
    ]
    if device.type == "cpu":
        variants.append((torch.float32, torch.channels_last_3d, OWN_WAY))
    if options.compile:
        variants.append((dtype, torch.channels_last_3d, COMPILED))
    for number_type, layout, how in variants:
        own = unet.build(config)
        own = torch.compile(own) if how == COMPILED else own
        with mock.patch.object(unet, "ONEDNN", unet.ONEDNN and how != OWN_WAY):
            seconds = network_seconds(own, number_type, layout, device, tile, options.repeats)
        plain = plain or seconds
        name = ", ".join(
            [
                str(number_type).replace("torch.", ""),
                "channels last" if layout is torch.channels_last_3d else "default layout",
                *([how] if how else []),
            ]
        )
        harness.show(
            name, f"{seconds:.4f}", f"{plain / seconds:.2f}", f"{count / seconds / 1e9:.0f}"
        )
    print(
        f"\nfor each voxel: {operations / 1e3:.1f} thousand operations, {moved:.0f} "
        "bytes read and written (bfloat16)"
    )


def denoising_seconds(training, path, predictions):
    """(seconds of the noise's estimate, seconds of all tiles) of a tomogram."""
    (volume,) = open_as_they_are(DenoiseConfig(tomograms=(path,)), training.config)
    began = time.monotonic()
    config = training.config
    perturbation = perturbation_for_prediction(volume, config, training.device, predictions, 4)
    estimated = time.monotonic()
    predictor = Predictor(
        training.model(),
        training.device,
        training.dtype,
        predictions,
        prediction_defaults(config)["batch_size"],
        flips=tta_flips(config),
    )
    denoised_region(predictor, perturbation, (0, 0, 0), volume.shape, 96, config.network)
    return estimated - began, time.monotonic() - estimated


def run_scaling(argv=None):
    """How the time of denoising grows with voxels and predictions, and of training with steps.

    Three sizes of each, with the seconds per unit beside them: constant where time grows linearly.
    The noise's estimate, which more than four predictions need, takes about the same for any large
    tomogram and is shown apart.

        python benchmarks/performance.py scaling --threads 1
    """
    parser = harness.parser(run_scaling)
    parser.add_argument(
        "--shapes",
        type=sides,
        nargs="+",
        metavar="Z,Y,X",
        default=[(96, 176, 176), (96, 256, 256), (96, 336, 336)],
    )
    parser.add_argument("--steps", type=int, nargs="+", default=(25, 50, 100))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    prepare_cpu(options.threads)
    harness.heading("what", "size", "seconds", "per unit", "the noise's estimates, s")
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            shape: f"{folder}/noise{number}.mrc" for number, shape in enumerate(options.shapes)
        }
        for shape, path in paths.items():
            write_noise(path, shape)
        first = options.shapes[0]
        settings = dict(tomograms=(paths[first],), device=options.device, threads=options.threads)
        config = TrainConfig(output=folder + "/run", steps=10, **settings)
        prepare_folder(config)
        training = open_for_training(config)
        cases = [(shape, 4) for shape in paths] + [(first, count) for count in (8, 16)]
        for shape, predictions in cases:
            estimates, seconds = denoising_seconds(training, paths[shape], predictions)
            million = math.prod(shape) / 1e6
            harness.show(
                f"denoising, {predictions} predictions",
                f"{million:.1f} million voxels",
                f"{seconds:.1f}",
                f"{seconds / million / predictions:.3f} for a million voxels and a prediction",
                f"{estimates:.1f}",
            )
        for steps in options.steps:
            began = time.monotonic()
            output = f"{folder}/steps{steps}"
            train(TrainConfig(output=output, steps=steps, checkpoint_every=10**6, **settings))
            seconds = time.monotonic() - began
            harness.show(
                "training", f"{steps} steps", f"{seconds:.1f}", f"{seconds / steps:.3f} a step", ""
            )


COMMANDS = {
    "train": ["train", "{tomogram}", "--steps", "3"],
    "train, masks, pool of 20": [
        "train",
        "{tomogram}",
        "--steps",
        "2",
        "--perturbation",
        "fourier_masks",
    ],
    "train, deconvolved": ["train", "{tomogram}", "--steps", "3", "--deconvolve", "--defocus", "3"],
    "denoise": ["denoise", "pretrained", "{tomogram}", "--predictions", "1"],
    "denoise, standard deviation": [
        "denoise",
        "pretrained",
        "{tomogram}",
        "--predictions",
        "2",
        "--std",
    ],
    "deconvolve": ["deconvolve", "{tomogram}", "--defocus", "3"],
}


def peak(arguments):
    """(peak resident GiB, seconds) of a run of the engine."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "f2fd_core", *arguments], stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed: {said[-500:]}")
    return usage.ru_maxrss / 2**20, time.monotonic() - began


def write_noise(path, shape):
    random = np.random.default_rng(0)
    with formats.new_volume(path, shape, (10.0,) * 3) as data:
        for slab in slabs(shape):
            data[slab] = random.standard_normal(data[slab].shape, dtype=np.float32)


def sides(text):
    return tuple(int(side) for side in text.split(","))


def run_memory(argv=None):
    """Peak resident memory of training, denoising and deconvolution, against the tomogram's size.

    Each command runs as a program of its own, on volumes of random numbers; few steps and
    predictions, since their number does not matter to memory. "bound" is 3 times the tomogram's
    float32 size and 1.5 GiB.

        python benchmarks/performance.py memory --shapes 256,256,256 256,512,512
            [--denoise-only 320,1024,1024]
    """
    parser = harness.parser(run_memory)
    parser.add_argument(
        "--shapes", type=sides, nargs="+", default=[(256,) * 3, (256, 512, 512)], metavar="Z,Y,X"
    )
    parser.add_argument("--denoise-only", type=sides, nargs="+", default=[], metavar="Z,Y,X")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--folder", help="where the volumes are written, which may be large")
    options = parser.parse_args(argv)
    harness.heading(
        "shape (Z, Y, X)",
        "tomogram, GiB",
        "command",
        "peak, GiB",
        "bound, GiB",
        "share of the bound",
        "seconds",
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for shape in options.shapes + options.denoise_only:
            tomogram = folder + "/tomogram.mrc"
            write_noise(tomogram, shape)
            size = 4 * math.prod(shape) / 2**30
            names = ["denoise"] if shape in options.denoise_only else options.commands
            for name in names:
                words = [word.format(tomogram=tomogram) for word in COMMANDS[name]]
                found, seconds = peak([*words, "--output", folder + "/out", "--overwrite"])
                bound = 3 * size + 1.5
                harness.show(
                    " x ".join(map(str, shape)),
                    f"{size:.2f}",
                    name,
                    f"{found:.2f}",
                    f"{bound:.2f}",
                    f"{found / bound:.2f}",
                    f"{seconds:.0f}",
                )


def main(argv=None):
    return harness.run({"rate": run_rate, "scaling": run_scaling, "memory": run_memory}, argv)


if __name__ == "__main__":
    sys.exit(main())
