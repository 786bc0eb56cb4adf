"""Scores of a denoised volume against a reference; all volumes (Z, Y, X).

Least-squares match: gain and offset of the denoised volume that fit the reference best, since a
reconstruction's intensity scale is arbitrary. "Published": both volumes min-max scaled to 0..1.
"""
import math

import numpy as np
import torch
from pytorch_msssim import ssim

from f2fd_core import fourier, half_maps, mrc
from f2fd_core.config import UserError

RIDGE_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
SSIM_WINDOW = 11


def correlation(first, second):
    """Pearson's correlation coefficient over all voxels."""
    first, second = first - first.mean(), second - second.mean()
    product, *squares = (torch.sum(one * two, dtype=torch.float64) for one, two in (
        (first, second), (first, first), (second, second)))
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
    return float(20 * math.log10(data_range)
                 - 10 * torch.log10((volume - reference).square().mean()))


def structural_similarity(volume, reference, data_range):
    """SSIM of pytorch-msssim (Wang et al., 2004) in 3D, Gaussian window of up to 11 voxels."""
    window = min(SSIM_WINDOW, min(volume.shape[-3:]))
    window -= 1 - window % 2
    shape = (-1, 1) + tuple(volume.shape[-3:])
    return float(ssim(volume.reshape(shape), reference.reshape(shape), data_range=data_range,
                      win_size=window))


def value_range(volume):
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
    the shortest axis.
    """
    shape = first.shape
    one, two = (torch.fft.rfftn(volume - volume.mean()) for volume in (first, second))
    frequency, cross = fourier.shell_means((one * two.conj()).real, shape)
    powers = [fourier.shell_means(values.abs() ** 2, shape)[1] for values in (one, two)]
    return frequency, cross / (powers[0] * powers[1]).sqrt().clamp(min=1e-30)


def crossing(frequency, curve, threshold):
    """Frequency at which a curve first falls below a threshold (linear), None if it never does."""
    for index in range(len(curve)):
        if curve[index] < threshold:
            if index == 0:
                return float(frequency[0])
            share = (curve[index - 1] - threshold) / (curve[index - 1] - curve[index])
            return float(frequency[index - 1]
                         + share * (frequency[index] - frequency[index - 1]))
    return None


def _symmetric_eigenvalues(zz, yy, xx, zy, zx, yx):
    """Eigenvalues, largest first, of symmetric 3 x 3 matrices (Smith's trigonometric formula)."""
    mean = (zz + yy + xx) / 3
    spread = torch.sqrt((((zz - mean) ** 2 + (yy - mean) ** 2 + (xx - mean) ** 2)
                         + 2 * (zy ** 2 + zx ** 2 + yx ** 2)) / 6).clamp(min=1e-20)
    a, b, c = (zz - mean) / spread, (yy - mean) / spread, (xx - mean) / spread
    d, e, f = zy / spread, zx / spread, yx / spread
    determinant = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    angle = torch.acos((determinant / 2).clamp(-1, 1)) / 3
    first = mean + 2 * spread * torch.cos(angle)
    last = mean + 2 * spread * torch.cos(angle + 2 * math.pi / 3)
    return first, 3 * mean - first - last, last


def sheetness(volume, scale):
    """Ridge filter for bright sheets: strength of the most negative curvature, 0 elsewhere.

    Second derivatives of the volume blurred by a Gaussian of ``scale`` voxels; the response is
    -l3 - |l2| of the Hessian's eigenvalues l1 >= l2 >= l3 where positive: high where one
    direction alone is strongly curved (after Sato et al., 1998).
    """
    z, y, x = fourier.axis_frequencies(volume.shape)
    axes = [2j * math.pi * z[:, None, None], 2j * math.pi * y[None, :, None],
            2j * math.pi * x[None, None, :]]
    radius = fourier.radial_frequency(volume.shape)
    spectrum = torch.fft.rfftn(volume) * torch.exp(-2 * (math.pi * scale * radius) ** 2)

    def second(one, two):
        return torch.fft.irfftn(spectrum * axes[one] * axes[two], s=volume.shape)

    _, middle, last = _symmetric_eigenvalues(second(0, 0), second(1, 1), second(2, 2),
                                             second(0, 1), second(0, 2), second(1, 2))
    return (-last - middle.abs()).clamp(min=0)


def average_precision(scores, truth):
    """Area under the precision-recall curve, sum over thresholds of (R_n - R_n-1) P_n.

    ``scores`` floats, ``truth`` booleans, both 1D.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision = hits[last] / (last + 1)
    recall = hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


class Membranes:
    """The membranes of a reference, by which those in other volumes are judged.

    The reference tells whether they are bright or dark, and at which of RIDGE_SCALES (voxels) the
    ridge filter tells them best: at another one a volume could be better for being worse than the
    reference.
    """

    def __init__(self, reference, mask):
        """``reference``: float32; ``mask``: boolean, True in membranes, both (Z, Y, X)."""
        self.mask = mask.flatten().numpy()
        self.sign = torch.sign(reference[mask].mean() - reference[~mask].mean())
        found = {scale: self._precision(reference, scale) for scale in RIDGE_SCALES}
        self.scale = max(found, key=found.get)

    def _precision(self, volume, scale):
        return average_precision(sheetness(self.sign * volume, scale).flatten().numpy(), self.mask)

    def precision(self, volume):
        """Average precision of the ridge filter's map of a volume's membranes."""
        return self._precision(volume, self.scale)


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
        "fsc": {"frequency": [round(float(value), 5) for value in frequency],
                "correlation": [round(float(value), 5) for value in curve]},
    }


def score(volume, reference, membranes=None):
    """All scores of a volume against a reference (float32 tensors), as a dictionary.

    Those of :func:`shell_scores` are among them; with :class:`Membranes`, how well these are told.
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


def _read(path, shape=None):
    volume = mrc.open_volume(path, voxel_size=1.0)
    if shape and volume.shape != shape:
        raise UserError("%s has shape %s; expected %s (Z, Y, X) as the denoised tomogram"
                        % (path, volume.shape, shape))
    array = torch.from_numpy(np.array(volume[:], dtype=np.float32))
    if not torch.isfinite(array).all():
        raise UserError("%s holds NaN or infinite voxels; expected finite ones" % path)
    if shape is None and array.max() == array.min():
        raise UserError("%s is constant; expected a tomogram with contrast" % path)
    return array


def read_reference(path, membrane, shape):
    """A reference, a float32 tensor of ``shape``, and the :class:`Membranes` that the mask with the
    path ``membrane`` marks; None without one.

    Raises UserError for unreadable files, for other shapes and for masks without any membrane.
    """
    reference = _read(path, shape)
    if not membrane:
        return reference, None
    mask = _read(membrane, shape) > 0.5
    if not mask.any() or mask.all():
        raise UserError("%s marks no membrane or everything as membrane; expected a mask with "
                        "voxels above 0.5 inside and below outside" % membrane)
    return reference, Membranes(reference, mask)


def evaluate(config):
    """Scores of an EvaluateConfig: {"denoised": scores} and, if it was given, {"noisy": scores};
    with the other half-map {"half_maps": scores}.

    Raises UserError for unreadable volumes, for volumes of different shapes, and for half-maps that
    are one.
    """
    denoised = _read(config.denoised)
    shape = tuple(denoised.shape)
    if config.half_map:
        paths = config.denoised, config.half_map
        scores = shell_scores(denoised, _read(config.half_map, shape))
        # A voxel size that is not known differs from none.
        files = [mrc.open_volume(path, math.nan) for path in paths]
        half_maps.refuse_other_files(*files, [file.voxel_size[0] for file in files])
        half_maps.refuse_copies(*paths, scores["fsc"]["correlation"])
        return {"half_maps": scores}
    reference, membranes = read_reference(config.reference, config.membrane, shape)
    results = {"denoised": score(denoised, reference, membranes)}
    if config.noisy:
        results["noisy"] = score(_read(config.noisy, shape), reference, membranes)
    return results
