"""Model and checkpoint files: plain data, versioned, checked when loaded, written atomically.

A file holds one dictionary: format, version, config (a TrainConfig's fields), step, voxel_size (Å)
and model (state_dict); a checkpoint also has what resuming needs (see ``training.py``).
"""
import glob
import os
import pickle
import warnings
import zipfile

import torch

from f2fd_core import unet
from f2fd_core.config import TrainConfig, UserError

FORMAT = "f2fd"
VERSION = 2
# Fields of version 1 that are gone, and what they became: of either, denoising needs only whether
# the noise spectrum is refined.
REFINE_AT, QUANTILE, REFINE_STEPS = "refine_at", "spectrum_quantile", 200


def save(path, weights, config, step, voxel_size, **training):
    """Write a model file (or, with ``training`` entries, a checkpoint) to a temporary name, then
    rename it. Raises UserError if it can't be written."""
    state = dict(format=FORMAT, version=VERSION, config=config.to_dict(), step=step,
                 voxel_size=voxel_size, model=weights, **training)
    partial = path + ".part"
    try:
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise UserError("cannot write %s: %s" % (path, error))


def load(path):
    """Read a model file or checkpoint onto the CPU; raises UserError when it is none.

    Only tensors and plain values are read (``weights_only=True``): a file can't run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about the file is said below, once
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError("%s does not exist; expected a model file from 'f2fd train'" % path)
    except IsADirectoryError:
        raise UserError("%s is a folder; expected a model file from 'f2fd train'" % path)
    except OSError as error:
        raise UserError("cannot read %s: %s" % (path, error.strerror or error))
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError,
            zipfile.BadZipFile):
        raise UserError("%s is no F2Fd model; expected a file from 'f2fd train'" % path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError("%s is no F2Fd model; expected a file from 'f2fd train'" % path)
    if state.get("version") == 1 and isinstance(state.get("config"), dict):
        return _from_version_1(state)
    if state.get("version") != VERSION:
        raise UserError("%s has format version %s; expected 1 to %d (this is a newer F2Fd's)"
                        % (path, state.get("version"), VERSION))
    return state


def _from_version_1(state):
    """A model of version 1 in today's words: usable, but not resumable."""
    config = dict(state["config"])
    config.pop(QUANTILE, None)
    config["refine_every"] = REFINE_STEPS if config.pop(REFINE_AT, 0) else 0
    return dict(state, config=config)


def restore(state, path):
    """Return (network, TrainConfig) of a loaded file; raises UserError if they don't agree."""
    try:
        config = TrainConfig.create(state["config"])
        network = unet.build(config)
        network.load_state_dict(state["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError, UserError) as error:
        raise UserError("%s is damaged: its weights and settings don't belong together (%s)"
                        % (path, str(error).splitlines()[0]))
    for name, weight in network.state_dict().items():
        if not torch.isfinite(weight).all():
            raise UserError("%s is damaged: %s holds NaN or infinite weights" % (path, name))
    return network, config


def path_of(folder, step):
    """File name of the checkpoint of a step; names sort by step."""
    return os.path.join(folder, "step_%08d.pt" % step)


def newest(folder, warn):
    """The newest loadable checkpoint of a folder as (path, state), (None, None) if it has none.

    One that can't be loaded is reported through ``warn`` and passed over; raises UserError when
    that leaves none, since starting anew would replace them.
    """
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "step_*.pt")), reverse=True)
    for path in paths:
        try:
            return path, load(path)
        except UserError as error:
            warn("%s; trying the one before" % error)
    if paths:
        raise UserError("none of the %d checkpoints in %s can be loaded; expected one to resume "
                        "from, or --overwrite to start anew" % (len(paths), folder))
    return None, None
