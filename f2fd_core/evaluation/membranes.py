"""How well membranes stand out in a volume: a ridge filter and its average precision."""

import math

import numpy as np
import torch

from f2fd_core import fourier

RIDGE_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)


def _symmetric_eigenvalues(zz, yy, xx, zy, zx, yx):
    """Eigenvalues, largest first, of symmetric 3 x 3 matrices (Smith's trigonometric formula)."""
    mean = (zz + yy + xx) / 3
    spread = torch.sqrt(
        (((zz - mean) ** 2 + (yy - mean) ** 2 + (xx - mean) ** 2) + 2 * (zy**2 + zx**2 + yx**2)) / 6
    ).clamp(min=1e-20)
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
    axes = [
        2j * math.pi * z[:, None, None],
        2j * math.pi * y[None, :, None],
        2j * math.pi * x[None, None, :],
    ]
    radius = fourier.radial_frequency(volume.shape)
    spectrum = torch.fft.rfftn(volume) * torch.exp(-2 * (math.pi * scale * radius) ** 2)

    def second(one, two):
        return torch.fft.irfftn(spectrum * axes[one] * axes[two], s=volume.shape)

    _, middle, last = _symmetric_eigenvalues(
        second(0, 0), second(1, 1), second(2, 2), second(0, 1), second(0, 2), second(1, 2)
    )
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

    The reference shows whether they are bright or dark, and at which of RIDGE_SCALES (voxels) the
    ridge filter detects them best: at another one a volume could be better for being worse than the
    reference.
    """

    def __init__(self, reference, mask):
        """``reference``: float32; ``mask``: boolean, True in membranes, both (Z, Y, X)."""
        self.mask = mask.flatten().numpy()
        self.sign = torch.sign(reference[mask].mean() - reference[~mask].mean())
        found = {scale: self._precision(reference, scale) for scale in RIDGE_SCALES}
        self.scale = max(found, key=lambda scale: found[scale])

    def _precision(self, volume, scale):
        return average_precision(sheetness(self.sign * volume, scale).flatten().numpy(), self.mask)

    def precision(self, volume):
        """Average precision of the ridge filter's map of a volume's membranes."""
        return self._precision(volume, self.scale)
