"""``f2fd evaluate``: scores of a denoised tomogram against a reference or the other half-map."""

import math
from typing import Any, Dict

import numpy as np
import torch

from f2fd_core.config import EvaluateConfig, UserError
from f2fd_core.data import formats
from f2fd_core.data.half_maps import refuse_copies, refuse_other_files
from f2fd_core.data.source import refuse_other_shape
from f2fd_core.evaluation.membranes import Membranes
from f2fd_core.evaluation.metrics import score, shell_scores


def _read(path, shape=None):
    volume = formats.open_volume(path, voxel_size=1.0)
    if shape:
        refuse_other_shape(path, volume.shape, shape, "the denoised tomogram")
    array = torch.from_numpy(np.array(volume[:], dtype=np.float32))
    if not torch.isfinite(array).all():
        raise UserError(f"{path} holds NaN or infinite voxels; expected finite ones")
    if shape is None and array.max() == array.min():
        raise UserError(f"{path} is constant; expected a tomogram with contrast")
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
        raise UserError(
            f"{membrane} marks no membrane or everything as membrane; expected a mask "
            "with voxels above 0.5 inside and below outside"
        )
    return reference, Membranes(reference, mask)


def evaluate(config: EvaluateConfig) -> Dict[str, Any]:
    """Score a denoised tomogram against a reference, or against the other half-map.

    Parameters
    ----------
    config : EvaluateConfig

    Returns
    -------
    dict
        {"denoised": scores} and, if it was given, {"noisy": scores}; with the other half-map
        {"half_maps": scores}.

    Raises
    ------
    UserError
        For unreadable volumes, for volumes of different shapes, and for half-maps that are one.
    """
    denoised = _read(config.denoised)
    shape = tuple(denoised.shape)
    if config.half_map:
        paths = config.denoised, config.half_map
        scores = shell_scores(denoised, _read(config.half_map, shape))
        # A voxel size that is not known differs from none.
        odd, even = (formats.open_volume(path, math.nan) for path in paths)
        refuse_other_files(odd, even, (odd.voxel_size[0], even.voxel_size[0]))
        refuse_copies(odd.path, even.path, scores["fsc"]["correlation"])
        return {"half_maps": scores}
    reference, membranes = read_reference(config.reference, config.membrane, shape)
    results = {"denoised": score(denoised, reference, membranes)}
    if config.noisy:
        results["noisy"] = score(_read(config.noisy, shape), reference, membranes)
    return results
