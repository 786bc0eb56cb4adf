"""The environment of Scipion without its launcher, for tests, the demo and the project window.

Nothing of Scipion may be imported here: pyworkflow reads the environment when it is imported.
"""

import os
import sys

HOSTS = """[localhost]
PARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d --map-by node %_(COMMAND)s
"""


def set_environment(folder):
    """Let Scipion live in ``folder`` (created): its projects go to ``folder``/projects.

    The engine runs with this very Python. Raises RuntimeError if pyworkflow is imported already.
    """
    if "pyworkflow" in sys.modules:
        raise RuntimeError("pyworkflow is imported already; set the environment before")
    folder = os.path.abspath(folder)
    hosts = os.path.join(folder, "config", "hosts.conf")
    os.makedirs(os.path.dirname(hosts), exist_ok=True)
    with open(hosts, "w") as stream:
        stream.write(HOSTS)
    os.environ.update(
        {
            "SCIPION_HOME": folder,
            "SCIPION_USER_DATA": folder,
            "SCIPION_HOSTS": hosts,
            "SCIPION_DOMAIN": "pwem",
            "SCIPION_PYTHON": sys.executable,
            "SCIPION_PRIORITY_PACKAGE_LIST": "pwem tomo",
            "SCIPION_NOTIFY": "False",
            "SCIPION_TEST_NOSYNC": "True",
            "F2FD_ENV_ACTIVATION": "",
        }
    )
