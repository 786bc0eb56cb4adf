"""Real runs of the engine in processes of their own, to be killed and hindered.

They are forked from a server that has imported PyTorch already, so that each starts at once.
"""

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import resource
import signal
import time

import mrcfile
import numpy as np
from PIL import Image

from f2fd_core.cli import ENDING_SIGNALS
from f2fd_core.commands import train as training
from f2fd_core.config import TrainConfig, read_json
from f2fd_core.network import checkpoint
from f2fd_core.runtime import figures, train_log

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "f2fd_core.commands.train",
        "f2fd_core.cli",
        "torch._dynamo",  # which every optimizer imports
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "PIL.PngImagePlugin",
    ]
)
PATIENCE = 120
CAPABILITIES = 0x20080522
"""Version 3 of the capget and capset system calls."""


def _drop_capabilities():
    """Make root subject to the permissions of files, as everybody is."""
    library = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    for call, change in ((library.capget, True), (library.capset, False)):
        if call(ctypes.byref(header), ctypes.byref(sets)):
            raise OSError(ctypes.get_errno(), "capabilities")
        for number in range(3 if change else 0):
            sets[number] &= ~0b1111  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER


def usual_signals():
    """What nohup, a shell that started the tests in the background, or a test that was ended in
    this process has had ignored, is not."""
    for number in ENDING_SIGNALS:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )


def _blank(figure, path):
    Image.new("L", (1, 1)).save(path, format="png")


def leave_pictures_out(replace=setattr):
    """Let runs in this process draw none, or one pixel where a page has a picture: they take most
    of a small run's time.

    ``replace``: what sets an attribute, as ``setattr`` does.
    """
    for name in ("draw", "draw_spectrum"):
        replace(training.Writer, name, lambda writer: None)
    replace(figures, "draw_slices", lambda *_: None)
    replace(figures, "save", _blank)


def _main(arguments, log, bytes_a_file, more_memory, pictures, began):
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    _drop_capabilities()
    usual_signals()  # the server may have been started before any test
    if not pictures:
        leave_pictures_out()
    if bytes_a_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    if more_memory:
        with open("/proc/self/statm", encoding="ascii") as stream:
            size = int(stream.read().split()[0]) * mmap.PAGESIZE + more_memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    from f2fd_core.cli import main

    began.set()
    raise SystemExit(main(arguments))


class Run:
    """A command of the engine under way, or ended."""

    def __init__(self, arguments, folder, bytes_a_file=0, more_memory=0, pictures=True):
        """``bytes_a_file``: the largest size of a file that the system lets it write; 0: any;
        ``more_memory``: the bytes that it may take in addition to what it has; 0: any number;
        ``pictures``: whether it draws them."""
        self.log = os.path.join(str(folder), "messages")
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.log)
        began = CONTEXT.Event()
        self.process = CONTEXT.Process(
            target=_main,
            daemon=True,
            args=(
                [str(word) for word in arguments],
                self.log,
                bytes_a_file,
                more_memory,
                pictures,
                began,
            ),
        )
        self.process.start()
        assert began.wait(PATIENCE)
        self.began = time.monotonic()

    def wait(self):
        """The exit code, or minus the number of the signal that ended it."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "it hangs: " + self.output()
        return self.process.exitcode

    def end(self, number):
        """Send a signal; returns whether it met the run, and not its end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        return self.wait() in (-number, 128 + number)

    def until(self, happened):
        """Wait until something is the case, which must be before the end."""
        limit = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.exitcode is None and time.monotonic() < limit, self.output()
            time.sleep(0.005)

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def sentences(self):
        """What it said beyond progress, warnings and news."""
        return [
            line
            for line in self.output().replace("\r", "\n").splitlines()
            if line.startswith("f2fd: error: ")
        ]

    def refused(self, code, *words):
        """Assert that it ended with an exit code and one sentence that has the words."""
        assert self.wait() == code, self.output()
        (sentence,) = self.sentences()
        assert "Traceback" not in self.output()
        for word in words:
            assert str(word) in sentence, sentence


def finish(arguments, folder, pictures=True):
    """Run a command to its end, which must be a good one."""
    run = Run(arguments, folder, pictures=pictures)
    assert run.wait() == 0, run.output()
    return run


def assert_whole(folder):
    """Everything in a folder that has a final name can be read to its end."""
    for place, _, names in os.walk(str(folder)):
        for path in (os.path.join(place, name) for name in names):
            if path.endswith(".pt"):
                checkpoint.restore(checkpoint.load(path), path)
            elif path.endswith(".mrc"):
                with mrcfile.open(path) as stream:
                    assert np.isfinite(stream.data).all() and stream.data.std() > 0
                    assert stream.voxel_size.x > 0
            elif path.endswith(".png"):
                with Image.open(path) as picture:
                    picture.load()
            elif path.endswith("_check.json"):
                assert {"denoised", "worse"} < set(read_json(path))
            elif path.endswith("chosen.json"):
                assert read_json(path)
            elif path.endswith(".json"):
                TrainConfig.create({}, read_json(path))
            elif path.endswith(".csv"):
                steps = [int(row["step"]) for row in train_log.read_log(path)]
                assert steps == list(range(len(steps)))
