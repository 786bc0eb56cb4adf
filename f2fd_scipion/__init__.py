"""Scipion plugin of F2Fd: train, denoise, deconvolve, evaluate, import and export models.

``Plugin`` is loaded on first use, so that :mod:`f2fd_scipion.headless` can set the environment
before pyworkflow, which reads it on import, is there.
"""

from f2fd_core import __version__

__all__ = ["Plugin", "__version__"]

_logo = "logo.png"
_references = ["F2Fd"]


def __getattr__(name):
    if name != "Plugin":
        raise AttributeError(f"module 'f2fd_scipion' has no attribute '{name}'")
    from f2fd_scipion.plugin import Plugin

    globals()[name] = Plugin
    return Plugin
