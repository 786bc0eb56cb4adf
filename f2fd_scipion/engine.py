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


def _reason(log, start, about):
    """The engine's sentence in what was written to the log since ``start`` (bytes).

    Steps may run side by side: sentences that name one of the files ``about`` go first.
    """
    if not os.path.exists(log):
        return ""
    with open(log, "rb") as stream:
        stream.seek(start)
        lines = re.split(r"[\r\n]+", stream.read().decode("utf-8", "replace").strip())
    sentences = [line.split("f2fd: error: ", 1)[1] for line in lines if "f2fd: error: " in line]
    named = [text for text in sentences if any(name in text for name in about)]
    return (named or sentences or lines)[-1]


def run(protocol, arguments, gpu=False, redirection="", about=()):
    """Run the engine through the protocol's runJob.

    ``arguments`` is a list of texts, ``redirection`` shell text after them, ``about`` the files
    by which the engine would speak of this run. Raises EngineError.
    """
    program, quoted = command(arguments, gpu)
    log = protocol.getStderrLog()
    start = os.path.getsize(log) if os.path.exists(log) else 0
    try:
        protocol.runJob(program, quoted + redirection, numberOfMpi=1,
                        env=f2fd_scipion.Plugin.getEnviron())
    except subprocess.CalledProcessError as error:
        raise EngineError(_reason(log, start, about) or str(error)) from error


def describe(protocol, model, folder):
    """What ``f2fd info`` tells about a model file, as a dictionary. Raises EngineError."""
    output = os.path.join(folder, "model_info.json")
    run(protocol, ["info", model], redirection=" > " + shlex.quote(output))
    with open(output, encoding="utf-8") as stream:
        return json.load(stream)


def problem():
    """Why the engine can't be run, in one sentence; empty if it can. Takes a second at most."""
    activate, python = _start()
    place = f2fd_scipion.Plugin.getActivation() or sys.executable
    advice = ("install it with 'scipion3 installb f2fd' or set F2FD_ENV_ACTIVATION in Scipion's "
              "configuration")
    result = subprocess.run("%s%s -c %s" % (activate, python, shlex.quote(CHECK)), shell=True,
                            check=False, env=f2fd_scipion.Plugin.getEnviron(),
                            capture_output=True, text=True)
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
