"""Memory that is used up: one sentence, whichever library is the first to notice."""

import contextlib
import errno
import mmap

from f2fd_core.config import UserError, flag

# What libraries say in RuntimeErrors and others, where Python has MemoryError.
WORDS = (
    "can't allocate memory",
    "could not create a primitive",
    "can't start new thread",
    "thread initializer failed",
    "bad_alloc",
    "failed to map segment",
    "error return without",
)
SMALLER = ("patch_size", "tile_size", "batch_size")
BLAS_BYTES = 1 << 27


def used_up(error):
    """Whether an exception means that there is no more memory."""
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or any(words in str(error) for words in WORDS)
    )


def _reserve_for_blas():
    """Let numpy's OpenBLAS take its buffer now: without room for it, it would try for ever."""
    mmap.mmap(-1, BLAS_BYTES).close()
    import numpy as np

    np.linalg.inv(np.eye(2))


@contextlib.contextmanager
def reported(settings):
    """Raise UserError, naming the options of the ``settings`` that ask for less memory, where what
    is done in the context uses it up."""
    try:
        _reserve_for_blas()
        yield
    except Exception as error:
        if isinstance(error, UserError) or not used_up(error):
            raise
        smaller = [flag(name) for name in SMALLER if hasattr(settings, name)]
        raise UserError(
            "the memory that this process can have does not suffice; expected more"
            + (", or a smaller " + " or ".join(smaller) if smaller else "")
        )
