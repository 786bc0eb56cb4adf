"""Running the engine, ``python -m f2fd_core``, as a program in its own environment."""

import glob
import json
import os
import re
import shlex
import subprocess
import sys

from pyworkflow.exceptions import PyworkflowException

import f2fd_scipion

CHECK = (
    "import importlib.util as util, json; found = util.find_spec('f2fd_core'); "
    "version = found and __import__('f2fd_core').__version__; "
    "print(json.dumps([version, util.find_spec('torch') is not None]))"
)
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


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
        return f"{activate}{python} -m f2fd_core", quoted
    activate, python, quoted = (text.replace("%", "%%") for text in (activate, python, quoted))
    return f"{activate}{GPU_VARIABLE}=%(GPU)s {python} -m f2fd_core", quoted


def _sentence(texts, about=()):
    """The engine's sentence in what it wrote, or "".

    Steps may run side by side: sentences that name one of the files ``about`` go first.
    """
    sentences = [
        sentence for text in texts for sentence in re.findall(r"f2fd: error: ([^\r\n]+)", text)
    ]
    named = [sentence for sentence in sentences if any(name in sentence for name in about)]
    return (named or sentences or [""])[-1]


def _last_line(text):
    return re.split(r"[\r\n]+", text.strip())[-1]


def _sizes(protocol):
    """{log of the protocol, or of one of its jobs in a queue: bytes}."""
    paths = glob.glob(glob.escape(protocol._getLogsPath()) + "/*")
    # Scipion's record of the steps is among them, beside which a journal comes and goes.
    return {
        path: os.path.getsize(path) for path in paths if ".sqlite" not in os.path.basename(path)
    }


def _written(protocol, before):
    """{log: what was written to it} since the logs had the sizes ``before``."""
    texts = {}
    for path in _sizes(protocol):
        with open(path, "rb") as stream:
            stream.seek(before.get(path, 0))
            texts[path] = stream.read().decode("utf-8", "replace")
    return texts


def _state(path):
    """What changes when a file is written; None if there is none."""
    try:
        # Opening it asks a network's file server again, to which another node may have written.
        with open(path, "rb") as stream:
            found = os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def run(protocol, arguments, result, gpu=False, about=()):
    """Run the engine through the protocol's runJob; what it says goes to the log of the output,
    which Scipion opens first.

    ``arguments`` is a list of texts, ``result`` a file that this writes, ``about`` the files by
    which the engine would speak of this run. Raises EngineError.
    """
    program, quoted = command(arguments, gpu)
    sizes, state = _sizes(protocol), _state(result)
    try:
        protocol.runJob(
            program, quoted + " 2>&1", numberOfMpi=1, env=f2fd_scipion.Plugin.getEnviron()
        )
    except subprocess.CalledProcessError as error:
        written = _written(protocol, sizes)
        raise EngineError(
            _sentence(written.values(), about)
            or _last_line(written.get(protocol.getStdoutLog(), ""))
            or str(error)
        ) from error
    if _state(result) == state:  # runJob doesn't say when a job in a queue fails
        raise EngineError(
            _sentence(_written(protocol, sizes).values(), about)
            or f"the engine ended without writing {result}"
        )


def _shell(text):
    """Run shell text in the engine's environment variables and keep what it prints."""
    return subprocess.run(
        text,
        shell=True,
        check=False,
        capture_output=True,
        text=True,
        env=f2fd_scipion.Plugin.getEnviron(),
    )


def _listed(numbers):
    return ",".join(map(str, numbers))


def call(arguments, gpus=()):
    """Run the engine apart from a protocol's steps; returns what it printed. Raises EngineError.

    ``gpus``: numbers of those that it sees, as the step of a protocol would.
    """
    text = " ".join(command(arguments, gpu=bool(gpus)))
    result = _shell(text % {"GPU": _listed(gpus)} if gpus else text)
    if result.returncode:
        raise EngineError(
            _sentence([result.stderr])
            or _last_line(result.stderr)
            or f"the engine ended with {result.returncode}"
        )
    return result.stdout


def ask(arguments):
    """The dictionary that the engine prints as JSON. Raises EngineError."""
    printed = call(arguments)
    return json.loads(printed[printed.index("{") :])  # an activation may print something before


def describe(model):
    """What ``f2fd info`` says about a model file, as a dictionary. Raises EngineError."""
    return ask(["info", model])


def gpus():
    """How many NVIDIA GPUs this machine has, by its driver; None if there is no driver to ask."""
    try:
        result = subprocess.run(["nvidia-smi", "-L"], check=False, capture_output=True, text=True)
    except OSError:
        return None
    # Parts of a GPU (MIG) have lines of their own below it.
    return (
        None
        if result.returncode
        else sum(line.startswith("GPU ") for line in result.stdout.splitlines())
    )


def usable_gpus(numbers):
    """How many of these GPUs PyTorch sees in the engine's environment. Takes some seconds."""
    activate, python = _start()
    result = _shell(
        f"{activate}{GPU_VARIABLE}={_listed(numbers)} {python} -c {shlex.quote(COUNT_GPUS)}"
    )
    return 0 if result.returncode else int(result.stdout.splitlines()[-1])


def problem():
    """Why the engine can't be run, in one sentence; empty if it can. Takes a second at most."""
    activate, python = _start()
    place = f2fd_scipion.Plugin.getActivation() or sys.executable
    advice = (
        "install it with 'scipion3 installb f2fd' or set F2FD_ENV_ACTIVATION in Scipion's "
        "configuration"
    )
    result = _shell(f"{activate}{python} -c {shlex.quote(CHECK)}")
    if result.returncode:
        said = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return f"The engine's environment ({place}) can't be used: {said}; {advice}."
    version, torch = json.loads(result.stdout.splitlines()[-1])
    if version is None or not torch:
        return (
            f"The engine's environment ({place}) has no "
            f"{('f2fd_core' if version is None else 'torch')}; {advice}."
        )
    if version != f2fd_scipion.__version__:
        return (
            f"The engine's environment ({place}) has F2Fd {version}, but this plugin is "
            f"{f2fd_scipion.__version__}; {advice}."
        )
    return ""
