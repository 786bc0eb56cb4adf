"""Running the engine, ``python -m f2fd_core``, as a program in its own environment."""
import json
import os
import re
import shlex
import subprocess
import sys

from pyworkflow.exceptions import PyworkflowException

import f2fd_scipion

CHECK = ("import importlib.util as util, json; found = util.find_spec('f2fd_core'); "
         "version = found and __import__('f2fd_core').__version__; "
         "print(json.dumps([version, util.find_spec('torch') is not None]))")


class EngineError(PyworkflowException):
    """A run of the engine failed; the text is the engine's own sentence."""


def _start():
    """Shell texts: what activates the engine's environment (may be empty), and its Python."""
    activation = f2fd_scipion.Plugin.getActivation()
    return (activation + " && ", "python") if activation else ("", shlex.quote(sys.executable))


def command(arguments, gpu):
    """The two texts that runJob puts together: the program and its quoted arguments.

    ``arguments`` is a list of texts. With ``gpu`` the engine sees the step's GPUs: Scipion puts
    them in place of %(GPU)s, and takes every other % of both texts for its own, so it is doubled.
    """
    activate, python = _start()
    quoted = " ".join(shlex.quote(text) for text in arguments)
    if not gpu:
        return "%s%s -m f2fd_core" % (activate, python), quoted
    activate, python, quoted = (text.replace("%", "%%") for text in (activate, python, quoted))
    return "%sCUDA_VISIBLE_DEVICES=%%(GPU)s %s -m f2fd_core" % (activate, python), quoted


def _reason(text, about=()):
    """The engine's sentence in what it wrote.

    Steps may run side by side: sentences that name one of the files ``about`` go first.
    """
    lines = re.split(r"[\r\n]+", text.strip())
    sentences = [line.split("f2fd: error: ", 1)[1] for line in lines if "f2fd: error: " in line]
    named = [text for text in sentences if any(name in text for name in about)]
    return (named or sentences or lines)[-1]


def _written(log, start):
    """What was written to a log since ``start`` (bytes)."""
    if not os.path.exists(log):
        return ""
    with open(log, "rb") as stream:
        stream.seek(start)
        return stream.read().decode("utf-8", "replace")


def run(protocol, arguments, gpu=False, about=()):
    """Run the engine through the protocol's runJob.

    ``arguments`` is a list of texts, ``about`` the files by which the engine would speak of this
    run. Raises EngineError.
    """
    program, quoted = command(arguments, gpu)
    log = protocol.getStderrLog()
    start = os.path.getsize(log) if os.path.exists(log) else 0
    try:
        protocol.runJob(program, quoted, numberOfMpi=1, env=f2fd_scipion.Plugin.getEnviron())
    except subprocess.CalledProcessError as error:
        raise EngineError(_reason(_written(log, start), about) or str(error)) from error


def _shell(text):
    """Run shell text in the engine's environment variables and keep what it prints."""
    return subprocess.run(text, shell=True, check=False, capture_output=True, text=True,
                          env=f2fd_scipion.Plugin.getEnviron())


def call(arguments):
    """Run the engine apart from a protocol's steps; returns what it printed. Raises EngineError."""
    result = _shell(" ".join(command(arguments, gpu=False)))
    if result.returncode:
        raise EngineError(_reason(result.stderr) or "the engine ended with %d" % result.returncode)
    return result.stdout


def ask(arguments):
    """The dictionary that the engine prints as JSON. Raises EngineError."""
    printed = call(arguments)
    return json.loads(printed[printed.index("{"):])  # an activation may print something before


def describe(model):
    """What ``f2fd info`` tells about a model file, as a dictionary. Raises EngineError."""
    return ask(["info", model])


def gpus():
    """How many NVIDIA GPUs this machine has, by its driver; None if there is no driver to ask."""
    try:
        result = subprocess.run(["nvidia-smi", "-L"], check=False, capture_output=True, text=True)
    except OSError:
        return None
    return None if result.returncode else len(result.stdout.splitlines())


def problem():
    """Why the engine can't be run, in one sentence; empty if it can. Takes a second at most."""
    activate, python = _start()
    place = f2fd_scipion.Plugin.getActivation() or sys.executable
    advice = ("install it with 'scipion3 installb f2fd' or set F2FD_ENV_ACTIVATION in Scipion's "
              "configuration")
    result = _shell("%s%s -c %s" % (activate, python, shlex.quote(CHECK)))
    if result.returncode:
        said = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return "The engine's environment (%s) can't be used: %s; %s." % (place, said, advice)
    version, torch = json.loads(result.stdout.splitlines()[-1])
    if version is None or not torch:
        return ("The engine's environment (%s) has no %s; %s."
                % (place, "f2fd_core" if version is None else "torch", advice))
    if version != f2fd_scipion.__version__:
        return ("The engine's environment (%s) has F2Fd %s, but this plugin is %s; %s."
                % (place, version, f2fd_scipion.__version__, advice))
    return ""
