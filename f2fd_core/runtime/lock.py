"""One run at a time: a lock file beside what is written says which process writes it.

The lock is the system's (flock), which drops it with the process, however that ends: a file that a
killed run left behind locks nothing.
"""

import contextlib
import fcntl
import os
import re
import socket
import time

from f2fd_core.config import UserError
from f2fd_core.runtime import console
from f2fd_core.runtime.files import cannot_write, refuse_links

LOCK = ".lock"
HOLDER = re.compile(r"process \d{1,9} on [!-~]{1,64}, started at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def _holder(stream):
    """What a lock file, whoever wrote it, says of its process; empty if that is nothing."""
    stream.seek(0)
    found = HOLDER.match(stream.read(200))
    return found[0] if found else ""


def _acquired(path, target, wait=False):
    """The locked file at ``path``, open; with ``wait`` once the other run has ended."""
    while True:
        try:
            stream = open(path, "a+", encoding="utf-8", errors="replace", opener=refuse_links)
        except OSError as error:
            raise cannot_write(target, error)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            with stream:
                raise UserError(
                    f"{target} is being written by "
                    f"{_holder(stream) or 'another process'}; expected no other run "
                    "there: wait for its end, or choose another output folder"
                )
        except OSError as error:
            console.warn(
                f"{target} can't be locked ({error.strerror}): no other run may write there"
            )
            return stream
        # Whoever held it may have removed it between our opening and our locking.
        if os.path.exists(path) and os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
            return stream
        stream.close()


@contextlib.contextmanager
def held(target, wait=False):
    """Let no other run write ``target`` while the context lasts.

    Raises UserError, naming the process and the time of its start, if another run does; with
    ``wait``, for what takes a moment only, that is waited for.
    """
    path = target + LOCK
    with _acquired(path, target, wait) as stream:
        left = _holder(stream)
        if left:
            console.say(f"{target} was being written by {left}, which ended too early")
        stream.truncate(0)
        stream.write(
            f"process {os.getpid()} on {socket.gethostname()}, started at "
            f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        )
        stream.flush()
        try:
            yield
        finally:
            # Where it can't be removed, in a folder that became read-only, it locks nothing.
            with contextlib.suppress(OSError):
                os.remove(path)


def refuse_held(targets):
    """Raise UserError if another run writes one of the ``targets``."""
    for target in targets:
        if os.path.exists(target + LOCK):
            _acquired(target + LOCK, target).close()
