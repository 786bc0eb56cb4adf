"""Tests of the plugin: with pytest or unittest anywhere, or with 'scipion3 tests'.

Outside of Scipion the tests bring an environment of their own, with projects in a temporary
folder, in which the engine runs with this very Python.
"""
import atexit
import os
import shutil
import tempfile

from f2fd_scipion import headless

if "SCIPION_HOME" not in os.environ:
    _folder = tempfile.mkdtemp(prefix="f2fd_tests_")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    headless.set_environment(_folder)
    import pyworkflow
    pyworkflow.Config.setDomain("pwem")
