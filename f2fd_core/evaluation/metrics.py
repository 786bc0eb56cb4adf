"""Scores of a denoised volume against a reference; all volumes (Z, Y, X).

Least-squares match: gain and offset of the denoised volume that fit the reference best, since a
reconstruction's intensity scale is arbitrary. "Published": both volumes min-max scaled to 0..1.
"""

import math

import torch
from pytorch_msssim import ssim

from f2fd_core import fourier

SSIM_WINDOW = 11


def correlation(first, second):
    """Pearson's correlation coefficient over all voxels."""
    first, second = first - first.mean(), second - second.mean()
    product, *squares = (
        torch.sum(one * two, dtype=torch.float64)
        for one, two in ((first, second), (first, first), (second, second))
    )
    return float(product / (squares[0] * squares[1]).sqrt())


def matched(volume, reference):
    """``volume`` times a gain plus an offset, the least-squares fit to ``reference``.

    A constant volume gets gain 0.
    """
    centred = volume - volume.mean()
    power = centred.square().sum().clamp(min=1e-30)
    gain = (centred * (reference - reference.mean())).sum() / power
    return gain * centred + reference.mean()


def min_max(volume):
    """Scaled so that the smallest value is 0 and the largest 1."""
    return (volume - volume.min()) / (volume.max() - volume.min())


def psnr(volume, reference, data_range):
    """Peak signal-to-noise ratio in dB: 10 log10(range² / mean squared difference)."""
    return float(
        20 * math.log10(data_range) - 10 * torch.log10((volume - reference).square().mean())
    )


def structural_similarity(volume, reference, data_range):
    """SSIM of pytorch-msssim (Wang et al., 2004) in 3D, Gaussian window of up to 11 voxels."""
    window = min(SSIM_WINDOW, min(volume.shape[-3:]))
    window -= 1 - window % 2
    shape = (-1, 1) + tuple(volume.shape[-3:])
    return float(
        ssim(
            volume.reshape(shape), reference.reshape(shape), data_range=data_range, win_size=window
        )
    )


def value_range(volume):
    """The largest value less the smallest."""
    return float(volume.max() - volume.min())


def training_scores(prediction, inputs, truth):
    """SSIM and PSNR of a batch's predictions and inputs after the least-squares match."""
    span = value_range(truth)
    scores = {}
    for prefix, volume in (("", prediction), ("input_", inputs)):
        fitted = matched(volume, truth)
        scores[prefix + "ssim"] = structural_similarity(fitted, truth, span)
        scores[prefix + "psnr"] = psnr(fitted, truth, span)
    return scores


def fourier_shell_correlation(first, second):
    """Fourier shell correlation (Harauz & van Heel, 1986) up to Nyquist.

    Returns (frequencies in cycles per voxel, correlations), one per shell of one Fourier voxel of
    the shortest axis. The first shell of a cube holds only the mean, which is subtracted: 1.
    """
    shape = first.shape
    one, two = (torch.fft.rfftn(volume - volume.mean()) for volume in (first, second))
    frequency, cross = fourier.shell_means((one * two.conj()).real, shape)
    powers = [fourier.shell_means(values.abs() ** 2, shape)[1] for values in (one, two)]
    curve = cross / (powers[0] * powers[1]).sqrt().clamp(min=1e-30)
    if (fourier.shell_index(shape, len(curve)) == 0).sum() == 1:
        curve[0] = 1.0
    return frequency, curve


def crossing(frequency, curve, threshold):
    """Frequency at which a curve first falls below a threshold (linear), None if it never does."""
    for index in range(len(curve)):
        if curve[index] < threshold:
            if index == 0:
                return float(frequency[0])
            share = (curve[index - 1] - threshold) / (curve[index - 1] - curve[index])
            return float(frequency[index - 1] + share * (frequency[index] - frequency[index - 1]))
    return None


def shell_scores(volume, reference):
    """Fourier shell correlation of two volumes (float32 tensors), as a dictionary.

    ``fsc`` holds the curve up to Nyquist, ``fsc_mean`` its mean; its crossings are in cycles per
    voxel, None where it stays above.
    """
    frequency, curve = fourier_shell_correlation(volume, reference)
    return {
        "fsc_mean": float(curve.mean()),
        "fsc_0.5": crossing(frequency, curve, 0.5),
        "fsc_0.143": crossing(frequency, curve, 0.143),
        "fsc": {
            "frequency": [round(float(value), 5) for value in frequency],
            "correlation": [round(float(value), 5) for value in curve],
        },
    }


def score(volume, reference, membranes=None):
    """All scores of a volume against a reference (float32 tensors), as a dictionary.

    Those of :func:`shell_scores` are among them; with :class:`Membranes`, how well these stand out.
    """
    fitted, span = matched(volume, reference), value_range(reference)
    scaled, truth = min_max(volume), min_max(reference)
    scores = {
        "correlation": correlation(volume, reference),
        "psnr": psnr(fitted, reference, span),
        "ssim": structural_similarity(fitted, reference, span),
        "published_psnr": psnr(scaled, truth, 1.0),
        "published_ssim": structural_similarity(scaled, truth, 1.0),
        **shell_scores(volume, reference),
    }
    if membranes:
        scores["membrane_average_precision"] = membranes.precision(volume)
    return scores
