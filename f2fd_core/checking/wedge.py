"""How far to believe what a model predicts in the missing wedge.

What lies there was never measured. But there are other directions: hide as many of those that were
measured from the network, the ones across, and see how much its prediction has in common with what
the tomogram has there, whose noise it can't know. Since the true wedge is missing at the same time,
it has less to go by than it has for the wedge.
"""

import math

import numpy as np
import torch

from f2fd_core import fourier
from f2fd_core.checking.parts import MOST_VOXELS
from f2fd_core.checking.planted import membrane, recovered, sphere
from f2fd_core.data.orientation import back, turned
from f2fd_core.filters import wedge
from f2fd_core.perturbation.missing_wedge import middle
from f2fd_core.runtime.randomness import Randomness, Stream

# Shells with less signal than this share of the power say nothing.
LEAST_SIGNAL = 0.1
# What is planted: {name: (diameter in Å, density of the offsets)}. Of a membrane that is parallel
# to the specimen, tilts hardly show anything.
WEDGE_SHAPES = {
    "sphere of 250 Å, as a ribosome": (250, sphere(125)),
    "membrane parallel to the specimen, 250 Å wide": (250, membrane(125)),
}
# At so many places.
WEDGE_PLACES = 4
# In standard deviations of the tomogram.
CONTRAST = 1.0
# From this mean correlation on, most of what is predicted is right.
BELIEVED = 0.5
# Below this one, hardly anything is.
DOUBTED = 0.3


def predictions(volume):
    """How many predictions :func:`examine_wedge` makes."""
    return 4 + 2 * WEDGE_PLACES * len(_fitting(volume))


def _fitting(volume):
    sides = {
        name: math.ceil(diameter / volume.voxel_size) + 4
        for name, (diameter, _) in WEDGE_SHAPES.items()
    }
    return {name: side for name, side in sides.items() if 2 * side <= min(volume.shape)}


def examine_wedge(filler, denoiser, noise, tilt_range, sign, seed, step):
    """What is to be said of a model's missing wedge, a dictionary of plain values.

    ``filler``, ``denoiser``: a Denoiser of the network that fills the wedge, and of the model;
    ``noise``: the NoiseModel; ``tilt_range``: the first and the last tilt, degrees; ``sign`` of
    matter in the tomogram, 1 or -1; ``step()`` is called after each prediction.

    Returns ``tilt_range``; ``frequency`` (1/Å) and ``fsc``, None where there is too little signal:
    the Fourier shell correlation of the prediction with the signal in directions that were hidden;
    ``mean`` of those; ``contrast`` of what is filled in over the denoised tomogram's; ``invented``,
    what noise alone makes over what is filled in; ``planted``, {structure: share of what the wedge
    lacks of it that comes out}; and the central planes (depth, across) of the "tomogram", the
    "denoised" one and the "filled" one.
    """
    volume, device = filler.perturbation.volume, filler.perturbation.device
    part = _Middle(volume, step)
    tomogram = part.planes(volume.region(*part.box))
    random = Randomness.of(device, seed, Stream.WEDGE_TEST)
    alone = noise.sample(*part.box, 1, random, device)[0].cpu().numpy()
    depth, count, width = tomogram.shape
    seen = wedge.measured(depth, width, tilt_range)
    kept = wedge.measured(depth, width, tilt_range, turned=True)
    rest = turned(wedge.part(tomogram, kept), back(volume.axes)).numpy()
    found = part.predicted(filler, rest, False)
    frequency, fsc = _hidden(found, tomogram, part.planes(alone), seen & ~kept, volume.voxel_size)
    known = [value for value in fsc if value is not None]
    null = wedge.part(part.predicted(filler, alone, False), ~seen).std()
    denoised = part.predicted(denoiser)
    filled = wedge.filled(denoised, part.predicted(filler), tilt_range)
    contrast = wedge.part(filled, ~seen).std()
    planes = {"tomogram": tomogram, "denoised": denoised, "filled": filled}
    return {
        "tilt_range": list(tilt_range),
        "frequency": frequency,
        "fsc": fsc,
        "mean": float(np.mean(known)) if known else 0.0,
        "contrast": float(contrast / denoised.std().clamp(min=fourier.TINY)),
        "invented": float(null / contrast.clamp(min=fourier.TINY)),
        "planted": _plant(filler, tilt_range, sign, seed, step),
    }, {name: values[:, count // 2].numpy() for name, values in planes.items()}


class _Middle:
    """The middle of a volume, as planes (depth, tilt axis, across)."""

    def __init__(self, volume, step):
        self.box, self.axes, self.step = middle(volume.shape, MOST_VOXELS), volume.axes, step

    def planes(self, values):
        """An array (Z, Y, X) as planes."""
        return turned(torch.from_numpy(np.ascontiguousarray(values, np.float32)), self.axes)

    def predicted(self, denoiser, *added):
        """What is made of it, see :meth:`Denoiser.without_context`."""
        values = denoiser.without_context(self.box, *added)
        self.step()
        return self.planes(values)


def _hidden(predicted, tomogram, noise, hidden, voxel_size):
    """Frequencies (1/Å) of the Fourier shells and, by shell, the correlation of what is
    ``predicted`` with the signal of the ``tomogram``, in the coefficients that were ``hidden``,
    booleans on the rfft2 grid; planes (depth, tilt axis, across)."""
    grid = fourier.grid_of(tuple(tomogram.shape))
    spectra = [torch.fft.rfftn(values - values.mean()) for values in (predicted, tomogram, noise)]
    made, total, false = (
        grid.sums(hidden[:, None] * values)
        for values in (spectra[0].abs() ** 2, spectra[1].abs() ** 2, spectra[2].abs() ** 2)
    )
    common = grid.sums(hidden[:, None] * (spectra[0] * spectra[1].conj()).real)
    signal = total - false
    inside = grid.frequencies < 0.5
    values = (
        common / (made * signal.clamp(min=fourier.TINY)).clamp(min=fourier.TINY).sqrt()
    ).clamp(-1, 1)
    some = signal > LEAST_SIGNAL * total
    return (
        (grid.frequencies[inside] / voxel_size).tolist(),
        [float(value) if yes else None for value, yes in zip(values[inside], some[inside])],
    )


def _plant(filler, tilt_range, sign, seed, step):
    """{structure: share of what the wedge lacks of it that comes out}, the mean over the places."""
    filler, volume = filler.once(), filler.perturbation.volume
    random = np.random.default_rng(seed)
    found = {}
    for name, side in _fitting(volume).items():
        axis = (np.arange(2 * side) - side + 0.5) * volume.voxel_size
        offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
        whole = torch.from_numpy(
            WEDGE_SHAPES[name][1](offsets, volume.voxel_size).astype(np.float32)
        )
        chosen = wedge.measured(2 * side, 2 * side, tilt_range)
        lacking = wedge.part(whole, ~chosen).numpy()
        shown = turned(wedge.part(whole, chosen), back(volume.axes)).numpy()
        shares = []
        for _ in range(WEDGE_PLACES):
            start = [int(random.integers(length - 2 * side + 1)) for length in volume.shape]
            box = (tuple(start), (2 * side,) * 3)
            results = []
            for strength in (0, sign * CONTRAST):
                results.append(filler.without_context(box, strength * shown))
                step()
            change = turned(torch.from_numpy(results[1] - results[0]), volume.axes)
            change = wedge.part(change, ~chosen).numpy()
            shares.append(recovered(change, sign * CONTRAST * lacking)[0])
        found[name] = float(np.mean(shares))
    return found
