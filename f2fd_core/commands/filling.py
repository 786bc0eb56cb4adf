"""A denoised tomogram with its missing wedge filled."""

import numpy as np
import torch

from f2fd_core.data import formats
from f2fd_core.data.source import SLAB_VOXELS
from f2fd_core.filters import wedge
from f2fd_core.prediction.tomogram import predicted_box
from f2fd_core.runtime import console, files

# What the header of a filled tomogram says of it.
LABEL = "denoised, and filled with predictions beyond tilts of {:.0f} and {:.0f} degrees"


def fill_tomogram(
    box, perturbation, denoised, path, predictors, config, trained, made_of, tilt_range
):
    """Write a ``denoised`` tomogram once more, with what the networks of ``predictors`` predict in
    the directions that no tilt has measured; what was measured stays as it is.

    ``denoised``: its voxels (Z, Y, X), float32, in the file ``path``; ``box``, ``config`` and
    ``made_of``: see :func:`~f2fd_core.prediction.tomogram.denoise_tomogram`; ``tilt_range``:
    (first, last), degrees.
    """
    volume = perturbation.volume
    predicted = predicted_box(box, perturbation, predictors, config, trained)
    result = files.companion(path, files.FILLED)
    with formats.new_volume(
        result,
        **volume.source.header(*box),
        labels=volume.source.labels,
        done=LABEL.format(*tilt_range),
        made_of=made_of,
        dtype=config.dtype,
    ) as output:
        one, other, both = (
            np.transpose(values, volume.axes) for values in (denoised, predicted, output)
        )
        depth, count, width = both.shape
        step = max(SLAB_VOXELS // (depth * width), 1)
        for first in range(0, count, step):
            part = slice(first, first + step)
            planes, new = (torch.from_numpy(np.array(values[:, part])) for values in (one, other))
            both[:, part] = wedge.filled(planes, new, tilt_range).numpy()
    console.say(f"written to {result}: what lies in the missing wedge is predicted, not measured")
