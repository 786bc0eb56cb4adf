"""The plugin class: variables, the engine's environment and its installation."""

import os
import shlex
import sys

import pwem
from pyworkflow import TOMO, Config, VarTypes
from pyworkflow.utils import Environ

import f2fd_core
import f2fd_scipion
from f2fd_scipion.constants import (
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
    _url = "https://github.com/scipion-em/scipion-em-f2fd"
    _processingField = [TOMO]

    def getName(self):
        """The plugin's name in the tree of protocols and in their labels."""
        return "F2Fd"

    @classmethod
    def _defineVariables(cls):
        cls._defineEmVar(
            F2FD_HOME,
            ENVIRONMENT,
            var_type=VarTypes.FOLDER,
            description="Folder that holds the environment of the F2Fd engine.",
        )
        cls._defineVar(
            F2FD_ENV_ACTIVATION,
            cls._installedActivation(),
            description="Shell command that activates the environment of the F2Fd "
            "engine. Empty: the engine runs with Scipion's own Python.",
        )
        cls._defineVar(
            F2FD_TORCH_INDEX,
            "",
            description="Package index from which the "
            "installation takes PyTorch, for the CUDA version of your driver. Empty: "
            "pip's own index, with PyTorch's default CUDA version.",
        )

    @classmethod
    def _installedActivation(cls):
        """The command that activates the environment which defineBinaries makes."""
        return cls._activation(cls.getHome("env"))

    @classmethod
    def _activation(cls, environment):
        """The shell command that activates the environment in a folder."""
        if Config.CONDA_ACTIVATION_CMD:
            return "conda activate " + shlex.quote(environment)
        return ". " + shlex.quote(os.path.join(environment, "bin", "activate"))

    @classmethod
    def getActivation(cls):
        """The user's or the default activation, with conda made known to the shell before."""
        activation = cls.getVar(F2FD_ENV_ACTIVATION).strip()
        if activation.startswith("conda ") and Config.CONDA_ACTIVATION_CMD:
            return f"{cls.getCondaActivationCmd()} {activation}"
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
    def _installation(cls):
        """The shell command, run in the package's folder, that makes the environment.

        All of it lies in that folder, since Scipion removes no more when it uninstalls the plugin;
        the engine is that of this plugin, whatever an index has.
        """
        if Config.CONDA_ACTIVATION_CMD:
            create = cls.getCondaActivationCmd() + " conda create -y -p env python=3.11"
        else:
            create = shlex.quote(sys.executable) + " -m venv env"
        index = cls.getVar(F2FD_TORCH_INDEX).strip()
        torch = ["pip install torch --index-url " + shlex.quote(index)] if index else []
        engine = shlex.quote(os.path.dirname(f2fd_core.__file__))
        return " && ".join(
            [
                create,
                cls._activation("./env"),
                *torch,
                # a copy, since pip builds where the source is
                f"cp -R {engine} .",
                "pip install ./f2fd_core",
                "f2fd info",
                "touch " + INSTALLED,
            ]
        )

    @classmethod
    def defineBinaries(cls, env):
        # Scipion's PYTHONPATH would put its packages before those of the engine's environment.
        variables = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        env.addPackage(
            F2FD,
            version=f2fd_scipion.__version__,
            tar="void.tgz",
            commands=[(cls._installation(), INSTALLED)],
            vars=variables,
            default=True,
        )
