"""Tests of the plugin, run with pytest anywhere; 'scipion3 tests' and unittest run them, too.

Outside of Scipion the tests bring an environment of their own, with projects in a temporary
folder, in which the engine runs with this very Python. Each worker of pytest-xdist has one: it
inherits the environment of the process that starts it, but must not share its projects.
"""

import atexit
import os
import shutil
import tempfile

from f2fd_scipion import headless

_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if "SCIPION_HOME" not in os.environ or os.environ.get("F2FD_TESTS_WORKER", _worker) != _worker:
    os.environ["F2FD_TESTS_WORKER"] = _worker
    _folder = tempfile.mkdtemp(prefix="f2fd_tests_")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    headless.set_environment(_folder)
    import pyworkflow

    pyworkflow.Config.setDomain("pwem")
