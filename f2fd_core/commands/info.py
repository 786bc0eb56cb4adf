"""What this installation, this machine and a model file are, as plain dictionaries.

PyTorch is imported only where it is asked, so that an installation without it can be described.
"""

import importlib.util
import os
import platform

from f2fd_core import __version__


def describe(config):
    """What an InfoConfig asks for."""
    if config.model:
        return describe_model(config.model)
    if not config.benchmark:
        return describe_machine()
    from f2fd_core.commands import measure

    return dict(describe_machine(), benchmark=measure.measure(config))


def describe_machine():
    """Versions, devices and memory (GiB); without PyTorch only what is known without it."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "f2fd": __version__,
        "python": platform.python_version(),
        **(_describe_torch() if importlib.util.find_spec("torch") else {"torch": None}),
        "memory_gib": round(pages / 2**30, 1),
    }


def _describe_torch():
    import torch

    from f2fd_core.runtime import device

    (auto,) = device.choose_devices("auto")
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": str(auto),
        "precision": str(device.choose_dtype("auto", auto)).split(".")[-1],
        "cpu_threads": device.cpu_threads(),
        "gpus": [
            {"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in gpus
        ],
    }


def describe_model(path):
    """Settings, training step, voxel size (Å) and parameter count of a model file, and whether it
    has learned to fill the missing wedge."""
    from f2fd_core.network import checkpoint

    state = checkpoint.load(path)
    network, config = checkpoint.restore(state, path)
    return {
        "format_version": state["version"],
        "step": state["step"],
        "voxel_size": state["voxel_size"],
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "fills_wedge": checkpoint.FILLER in state,
        "config": config.to_dict(),
    }
