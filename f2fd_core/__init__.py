"""F2Fd: denoise a cryo-electron tomogram from one reconstructed volume.

The public names are loaded on first use, so that ``f2fd_core.config`` (all that the Scipion
plugin needs) imports without torch, numpy or mrcfile.
"""

import importlib

__version__ = "1.2.0"

_PUBLIC = {
    "RunConfig": "config",
    "TrainConfig": "config",
    "DenoiseConfig": "config",
    "DeconvolveConfig": "config",
    "SimulateConfig": "config",
    "EvaluateConfig": "config",
    "BenchmarkConfig": "config",
    "CheckConfig": "config",
    "UserError": "config",
    "run": "pipeline.run",
    "train": "commands.train",
    "denoise": "commands.denoise",
    "deconvolve": "commands.deconvolve",
    "simulate": "commands.simulate",
    "evaluate": "commands.evaluate",
    "benchmark": "benchmarking.compare",
    "check": "checking.run",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'f2fd_core' has no attribute '{name}'")
    return getattr(importlib.import_module("f2fd_core." + _PUBLIC[name]), name)
