"""The plugin class: variables, the engine's environment and its installation."""
import os
import shlex
import sys

import pwem
from pyworkflow import TOMO, Config, VarTypes
from pyworkflow.utils import Environ

import f2fd_scipion
from f2fd_scipion.constants import (
    DISTRIBUTION,
    ENVIRONMENT,
    F2FD,
    F2FD_ENV_ACTIVATION,
    F2FD_HOME,
    F2FD_TORCH_INDEX,
    INSTALLED,
)


class Plugin(pwem.Plugin):
    # Scipion takes the plugin's name and folder from the module of this class.
    __module__ = "f2fd_scipion"

    _homeVar = F2FD_HOME
    _pathVars = [F2FD_HOME]
    _supportedVersions = [f2fd_scipion.__version__]
    _url = "https://github.com/Fickincool/F2Fd"
    _processingField = [TOMO]

    @classmethod
    def _defineVariables(cls):
        cls._defineEmVar(F2FD_HOME, ENVIRONMENT, var_type=VarTypes.FOLDER,
                         description="Folder in which the F2Fd engine is installed.")
        cls._defineVar(F2FD_ENV_ACTIVATION, cls._installedActivation(),
                       description="Shell command that activates the environment of the F2Fd "
                       "engine. Empty: the engine runs with Scipion's own Python.")
        cls._defineVar(F2FD_TORCH_INDEX, "", description="Package index from which the "
                       "installation takes PyTorch, for the CUDA version of your driver. Empty: "
                       "pip's own index, with PyTorch's default CUDA version.")

    @classmethod
    def _installedActivation(cls):
        """The command that activates the environment which defineBinaries makes."""
        if Config.CONDA_ACTIVATION_CMD:
            return "conda activate " + ENVIRONMENT
        return ". " + shlex.quote(cls.getHome("venv", "bin", "activate"))

    @classmethod
    def getActivation(cls):
        """The user's or the default activation, with conda made known to the shell before."""
        activation = cls.getVar(F2FD_ENV_ACTIVATION).strip()
        if activation.startswith("conda ") and Config.CONDA_ACTIVATION_CMD:
            return "%s %s" % (cls.getCondaActivationCmd(), activation)
        return activation

    @classmethod
    def getEnviron(cls):
        """The environment variables for the engine.

        Scipion's PYTHONPATH would put its packages before those of another environment.
        """
        environ = Environ(os.environ)
        if cls.getActivation():
            environ.pop("PYTHONPATH", None)
        return environ

    @classmethod
    def validateInstallation(cls):
        """Only the environment of defineBinaries lies at a place that can be looked at."""
        if cls.getVar(F2FD_ENV_ACTIVATION) != cls._installedActivation():
            return []
        return super().validateInstallation()

    @classmethod
    def _requirement(cls):
        """What pip installs the engine from: the checkout that holds this plugin, or the index."""
        checkout = os.path.dirname(os.path.dirname(os.path.abspath(f2fd_scipion.__file__)))
        if os.path.exists(os.path.join(checkout, "setup.py")):
            return "%s[engine]" % checkout
        return "%s[engine]==%s" % (DISTRIBUTION, f2fd_scipion.__version__)

    @classmethod
    def _installation(cls):
        """The shell command, run in the package's folder, that makes the environment."""
        conda = Config.CONDA_ACTIVATION_CMD
        if conda:
            create = "%s conda create -y -n %s python=3.11" % (cls.getCondaActivationCmd(),
                                                              ENVIRONMENT)
            activate = "conda activate " + ENVIRONMENT
        else:
            create = "%s -m venv venv" % shlex.quote(sys.executable)
            activate = ". venv/bin/activate"
        index = cls.getVar(F2FD_TORCH_INDEX).strip()
        torch = ["pip install torch --index-url " + shlex.quote(index)] if index else []
        return " && ".join([create, activate, *torch,
                            "pip install " + shlex.quote(cls._requirement()), "f2fd info",
                            "touch " + INSTALLED])

    @classmethod
    def defineBinaries(cls, env):
        path = os.environ.get("PATH")
        env.addPackage(F2FD, version=f2fd_scipion.__version__, tar="void.tgz",
                       commands=[(cls._installation(), INSTALLED)],
                       vars={"PATH": path} if path else None, default=True)
