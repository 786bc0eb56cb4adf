"""Model and checkpoint files: plain data, versioned, checked when loaded, written atomically.

A file holds one dictionary: format, version, config (a TrainConfig's fields), step, voxel_size (Å)
and model (state_dict); a checkpoint also has what resuming needs (see ``training.py``). PyTorch
makes it a zip archive, whose comment is a digest of all that is in it.
"""

import dataclasses
import glob
import hashlib
import io
import math
import os
import pickletools
import re
import sys
import warnings
import zipfile

import torch

from f2fd_core.config import TrainConfig, UserError, brief, migrate
from f2fd_core.network import unet
from f2fd_core.runtime.files import replaced

FORMAT = "f2fd"
VERSION = 2
# Where a model has the weights of the network that fills the missing wedge, if it has some.
FILLER = "filler"
# The callables in a pickle of ours. PyTorch would call others, too, that are safe but may take any
# amount of memory (bytearray) or make tensors of other kinds (nested, sparse, without content).
CALLABLES = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage")


def save(path, weights, config, step, voxel_size, **training):
    """Write a model file (or, with ``training`` entries, a checkpoint) to a temporary name, then
    rename it. Raises OSError, one sentence, if it can't be written."""
    state = dict(
        format=FORMAT,
        version=VERSION,
        config=config.to_dict(),
        step=step,
        voxel_size=voxel_size,
        model=weights,
        **training,
    )
    with replaced(path) as partial:
        # PyTorch, writing by itself, does not say why the system refuses.
        content = io.BytesIO()
        torch.save(state, content)
        with zipfile.ZipFile(content, "a") as archive:
            archive.comment = _digest(archive)
        with open(partial, "wb") as stream:
            stream.write(content.getbuffer())


def add_filler(path, filler):
    """Add the network of the model file ``filler``, which fills the missing wedge, to that of
    ``path``."""
    known = ("format", "version", "config", "step", "voxel_size", "model", FILLER)
    state = load(path)
    more = {name: value for name, value in state.items() if name not in known}
    config = TrainConfig.create(state["config"])
    more[FILLER] = load(filler)["model"]
    save(path, state["model"], config, state["step"], state["voxel_size"], **more)


def restore_filler(state, path):
    """The network of a loaded file that fills the missing wedge; raises UserError without one."""
    if FILLER not in state:
        raise UserError(
            f"{path} has not learned to fill the missing wedge; expected a model that was trained "
            "with --fill-wedge"
        )
    return restore(dict(state, model=state[FILLER]), path)[0]


def fillers(state, path):
    """A list of that network, empty if the file has none."""
    return [restore_filler(state, path)] if FILLER in state else []


class _Unreadable(Exception):
    """Why a file's content is not that of a model."""


def _digest(archive):
    """What the names and contents of an archive's entries are known by."""
    found = hashlib.sha256()
    for entry in archive.infolist():
        found.update(b"%s %d " % (entry.filename.encode(), entry.file_size))
        found.update(archive.read(entry))
    return b"F2Fd sha256 %s" % found.hexdigest().encode()


def _content(stream, size, path):
    """What a file of ``size`` bytes holds. Raises UserError if it is not as it was written, and
    whatever a file that is no model, or a crafted one, makes it."""
    # PyTorch gets an archive of our own: it may find another directory, with other entries, in one
    # that was crafted.
    copied = io.BytesIO()
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(copied, "w") as copy:
        entries = archive.infolist()
        # PyTorch compresses nothing: who does, or lets entries overlap, wants it to unpack more
        # than the file has.
        if (
            any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            or sum(entry.file_size for entry in entries) > size
        ):
            raise _Unreadable("compressed or overlapping entries")
        # Files of version 1.1 and before have checksums only.
        if archive.testzip() or archive.comment not in (b"", _digest(archive)):
            raise UserError(
                f"{path} is damaged: its content is not what was written; expected an "
                "undamaged copy"
            )
        for entry in entries:
            content = archive.read(entry)
            copy.writestr(entry.filename, content)
            if entry.filename.lower().endswith("data.pkl") and not all(
                CALLABLES.fullmatch(str(argument))
                for code, argument, _ in pickletools.genops(content)
                if code.name == "GLOBAL"
            ):
                raise _Unreadable("callables that are not ours")
    # PyTorch's older form, which is no zip archive, never gets here: weights_only was not safe
    # with it before PyTorch 2.6.
    copied.seek(0)
    return torch.load(copied, map_location="cpu", weights_only=True)


def load(path):
    """Read a model file or checkpoint onto the CPU; raises UserError when it is none.

    Only tensors and plain values are read (``weights_only=True``): a file can't run code.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a device or a pipe"
        raise UserError(f"{path} is {kind}; expected a model file from 'f2fd train'")
    try:
        with open(path, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about the file is said below, once
            try:
                size = os.fstat(stream.fileno()).st_size
                state = _content(stream, size, path)
            except (OSError, UserError, MemoryError):
                raise
            except Exception:  # there is no list of what a crafted file can make a parser raise
                state = None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a model file from 'f2fd train'")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not an F2Fd model; expected a file from 'f2fd train'")
    version = state.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise UserError(
            f"{path} has format version {brief(version)}; expected 1 to {VERSION} "
            "(this is a newer F2Fd's)"
        )
    problem = _problem(state, size)
    if problem:
        raise UserError(f"{path} is damaged: {problem}")
    return dict(state, config=migrate(state["config"]))


def _problem(state, size):
    """What is wrong with the values in a file of ``size`` bytes; empty if nothing is."""
    voxel_size, step = state.get("voxel_size"), state.get("step")
    if not isinstance(state.get("config"), dict):
        return "it has no settings"
    if type(step) is not int or not 0 <= step <= sys.maxsize:
        return f"its training step is {brief(step)}; expected a number of steps"
    if type(voxel_size) is not float or not (math.isfinite(voxel_size) and voxel_size > 0):
        return f"its voxel size is {brief(voxel_size)}; expected a positive number"
    return _wrong_weights(state.get("model"), size) or (
        _wrong_weights(state[FILLER], size) if FILLER in state else ""
    )


def _wrong_weights(weights, size):
    """What is wrong with a model's weights, apart from the network; empty if nothing is."""
    if not isinstance(weights, dict):
        return "it has no weights"
    for name, weight in weights.items():
        if (
            type(name) is not str
            or not isinstance(weight, torch.Tensor)
            or not weight.is_floating_point()
        ):
            return f"{brief(name)} is no array of numbers"
    # Strides of 0, or one array under many names, would let a small file claim weights of any size.
    if sum(weight.numel() * weight.element_size() for weight in weights.values()) > size:
        return "its weights are larger than the file"
    return ""


def restore(state, path, precision=""):
    """Return (network, TrainConfig) of a loaded file; raises UserError if they don't agree.

    ``precision``: of a run that uses the model, in place of that of its training, which may have
    been on another machine.
    """
    try:
        config = TrainConfig.create(state["config"])
        config = dataclasses.replace(config, precision=precision or config.precision)
        with torch.device("meta"):  # without memory: the settings may ask for any amount
            expected = {
                name: weight.shape for name, weight in unet.build(config).state_dict().items()
            }
    except (TypeError, RuntimeError, UserError) as error:
        raise UserError(
            f"{path} is damaged: its settings are not those of a training "
            f"({str(error).splitlines()[0]})"
        )
    found = {name: weight.shape for name, weight in state["model"].items()}
    if found != expected:
        different = sorted(
            name for name in {**expected, **found} if expected.get(name) != found.get(name)
        )
        raise UserError(
            f"{path} is damaged: its weights are not those of the network in its "
            f"settings ({len(different)} of {len(expected)} differ, the first of them "
            f"{brief(different[0])})"
        )
    network = unet.build(config)
    network.load_state_dict(state["model"])
    for name, weight in network.state_dict().items():
        if not torch.isfinite(weight).all():
            raise UserError(f"{path} is damaged: {name} holds NaN or infinite weights")
    return network, config


def folder_in(output):
    """Where a training in the folder ``output`` keeps its checkpoints."""
    return os.path.join(output, "checkpoints")


def _paths(folder):
    """All checkpoints of a folder, the newest first."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), "step_*.pt")), reverse=True)


def exists(output):
    """Whether a training in the folder ``output`` has left a checkpoint, good or not."""
    return bool(_paths(folder_in(output)))


def path_of(folder, step):
    """File name of the checkpoint of a step; names sort by step."""
    return os.path.join(folder, f"step_{step:08d}.pt")


def newest(folder, warn):
    """The newest good checkpoint of a folder as (path, state), (None, None) if it has none.

    One that can't be loaded, or has weights that are not finite, is reported through ``warn`` and
    passed over; raises UserError when that leaves none, since starting again would replace them.
    """
    paths = _paths(folder)
    for path in paths:
        try:
            state = load(path)
            restore(state, path)
            return path, state
        except UserError as error:
            warn(f"{error}; trying the one before")
    if paths:
        raise UserError(
            f"none of the {len(paths)} checkpoints in {folder} can be loaded; "
            "expected one to resume from, or --overwrite to start again"
        )
    return None, None
