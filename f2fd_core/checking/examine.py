"""What is measured on one tomogram: numbers for the report, and maps."""

from typing import NamedTuple

import numpy as np

from f2fd_core.checking import invention, planted
from f2fd_core.checking.error import UNEXPLAINED, Estimate, resolution
from f2fd_core.checking.parts import parts_of
from f2fd_core.checking.places import Places, cell_means, smoothed
from f2fd_core.checking.shells import DIFFERENCE, PROBE, TOMOGRAM, Whole, Windowed
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.fourier import TINY
from f2fd_core.prediction.predictor import inner_of
from f2fd_core.runtime import console
from f2fd_core.runtime.randomness import Randomness, Stream

# The probes' part of the noise: small, as a response is a derivative; with 0.3 it is up to 7 % too
# large.
PROBE_PART = 0.1
# Standard deviations to the ends of an interval by half-maps.
OFF = 2.0
# The results: the model's, the pretrained weights', and those of a short training of one's own.
DENOISED = "denoised"
START = "start"
REFERENCE = "reference"
GAUSSIAN = "gaussian"


class Examined(NamedTuple):
    """``numbers``: plain values for JSON; ``maps``: {name: Places}; ``sections``: central XY
    sections (Y, X) of the first part: the "result", "noise" alone, and "null", what is made of it.
    """

    numbers: dict
    maps: dict
    sections: dict


def count_of(volume, results):
    """How many predictions :func:`examine` makes with so many results."""
    return len(parts_of(volume.shape)) * (3 * results + 2) + planted.predictions(volume)


def shells_of(denoisers, noise, seed, step, parts, each=None):
    """{class: Shells} of a tomogram and of what is made of it, Whole and Windowed.

    ``denoisers``: {result: Denoiser}; ``parts``: see :func:`parts_of`. ``step()`` is called after
    each prediction, and ``each(part, arrays)`` with the {name: array} of each part.
    """
    first = next(iter(denoisers.values()))
    volume, device = first.perturbation.volume, first.perturbation.device
    found = {kind: kind(parts[0][1], volume.nyquist) for kind in (Whole, Windowed)}
    pairs = [(TOMOGRAM, TOMOGRAM), (PROBE, PROBE)]
    if isinstance(volume, HalfMaps):
        pairs.append((DIFFERENCE, DIFFERENCE))
    for name in denoisers:
        pairs += [(name, name), (name, TOMOGRAM), (name + " response", PROBE)]
    for number, part in enumerate(parts):
        start, size = first.context(part)
        random = Randomness.of(device, seed, Stream.PROBE, number)
        probe = noise.sample(start, size, 1, random, device)[0].cpu().numpy()
        arrays = {TOMOGRAM: volume.region(*part), PROBE: probe[inner_of(part, start)]}
        if isinstance(volume, HalfMaps):
            arrays[DIFFERENCE] = volume.difference(*part)
        for name, denoiser in denoisers.items():
            arrays[name] = denoiser(part)
            step()
            made = []
            for strength in (PROBE_PART, -PROBE_PART):
                # What several predictions respond on average, one does.
                made.append(denoiser.once()(part, strength * probe))
                step()
            arrays[name + " response"] = (made[0] - made[1]) / (2 * PROBE_PART)
        for shells in found.values():
            shells.add(arrays, pairs)
        if each:
            each(part, arrays)
    return found


def unfit_half_maps(volume, by_half_maps):
    """Whether a tomogram has half-maps by which its noise is not known, which is said."""
    unfit = isinstance(volume, HalfMaps) and not by_half_maps
    if unfit:
        console.warn(
            f"{volume.source.path}: its half-maps differ by more than noise, as those of every "
            "other tilt of a thick specimen do; it is checked without them"
        )
    return unfit


def examine(denoisers, noise, seed, step):
    """All that a report says of a tomogram, an :class:`Examined`; see :func:`shells_of`."""
    denoiser = denoisers[DENOISED]
    volume, device = denoiser.perturbation.volume, denoiser.perturbation.device
    unexplained, explained, removed = (Places(volume.shape) for _ in range(3))
    found, null, seams, skew, sections = [], [], [], [], {}

    def each(part, arrays):
        result = arrays[DENOISED]
        residual = arrays[TOMOGRAM] - result
        found.append(result)
        skew.append((result**3).mean())
        response = arrays[DENOISED + " response"]
        unexplained.put(part[0], smoothed(cell_means(arrays[PROBE] * response)))
        explained.put(part[0], smoothed(cell_means(result**2)))
        length = np.sqrt(smoothed(cell_means(residual**2)) * smoothed(cell_means(result**2)))
        removed.put(part[0], smoothed(cell_means(residual * result)) / np.maximum(length, TINY))
        # The same voxels in other tiles.
        other = denoiser.in_other_tiles(part)
        seams.append(float((other - result).var() / max(result.var(), TINY)))
        step()
        start, size = denoiser.context(part)
        random = Randomness.of(device, seed, Stream.NULL_TEST, len(null))
        alone = noise.sample(start, size, 1, random, device)[0].cpu().numpy()
        null.append(denoiser(part, alone, tomogram=False))
        step()
        if not sections:
            middle = part[1][0] // 2
            sections.update(
                result=result[middle],
                noise=alone[inner_of(part, start)][middle],
                null=null[0][middle],
            )

    shells = shells_of(denoisers, noise, seed, step, parts_of(volume.shape), each)
    error = np.maximum(unexplained.cells, 0)
    unexplained.cells = np.sqrt(error / np.maximum(error + explained.cells, TINY))
    sign = float(np.sign(sum(skew)) or -1)
    numbers = {
        "sign": sign,
        "half_maps": Estimate(shells[Whole], list(denoisers)).by_half_maps,
        "correlation": correlations(shells[Whole], list(denoisers)),
        "shells": curves(shells[Windowed], list(denoisers), volume.voxel_size),
        "invention": invention.invention(found, null),
        "planted": planted.plant(denoiser, noise, sign, seed, step),
        "seams": float(np.sqrt(np.mean(seams))),
    }
    return Examined(numbers, {"error": unexplained, "removed": removed}, sections)


def correlations(shells, results):
    """{result: {"estimate", "low", "high"}} of the correlation with the truth."""
    likely = Estimate(shells, results)
    if likely.by_half_maps:
        ends = [Estimate(shells, results, off=off) for off in (-OFF, OFF)]
    else:
        ends = [Estimate(shells, results, factor) for factor in UNEXPLAINED]

    def estimated(estimate):
        return {
            **{name: estimate.correlation(name) for name in results},
            TOMOGRAM: estimate.of_tomogram(),
            GAUSSIAN: estimate.of_gaussian(),
        }

    values, ranges = estimated(likely), [estimated(end) for end in ends]
    return {
        name: {
            "estimate": value,
            "low": min(end[name] for end in ranges),
            "high": max(end[name] for end in ranges),
        }
        for name, value in values.items()
    }


def curves(shells, results, voxel_size):
    """What the Fourier shells show of the first of the results, lists by shell, and the resolution
    (Å) that follows."""
    name, total = results[0], shells[TOMOGRAM, TOMOGRAM]
    estimate = Estimate(shells, results)
    curve, power = estimate.shell_correlation(name), estimate.powers[name]
    removed = estimate.left_by(name)
    coherence = (shells[name, TOMOGRAM] - power) / np.sqrt(np.maximum(removed * power, TINY))
    return {
        "frequency": (shells.frequencies / voxel_size).tolist(),
        "fsc": curve.tolist(),
        "fsc_of_tomogram": estimate.shell_correlation_of_tomogram().tolist(),
        "fsc_of_reference": estimate.shell_correlation(results[-1]).tolist(),
        "resolution": resolution(shells.frequencies, curve, voxel_size),
        "response": estimate.responses[name].tolist(),
        "coherence": coherence.tolist(),
        "removed_over_noise": (removed / np.maximum(estimate.noise, TINY)).tolist(),
        "noise_share": (estimate.noise / np.maximum(total, TINY)).tolist(),
    }
