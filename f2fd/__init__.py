"""The name under which Scipion's installer finds the plugin, f2fd_scipion, in the distribution.

For a plugin's module it takes the first package of a distribution in the order of the alphabet,
which would be f2fd_core.
"""

from f2fd_scipion import Plugin

__all__ = ["Plugin"]
