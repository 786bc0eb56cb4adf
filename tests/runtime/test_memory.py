import errno

import pytest

from f2fd_core import DeconvolveConfig, DenoiseConfig, TrainConfig, UserError
from f2fd_core.runtime import memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't "
            "allocate memory: you tried to allocate 8 bytes."
        ),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        ImportError("_lsprof.so: failed to map segment from shared object"),
    ],
)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (TrainConfig(), "more, or a smaller --patch-size or --batch-size$"),
        (DenoiseConfig(), "more, or a smaller --tile-size or --batch-size$"),
        (DeconvolveConfig(defocus=3), "expected more$"),
    ],
)
def test_used_up_memory_is_one_sentence(settings, words, error):
    with pytest.raises(UserError, match="does not suffice; .*" + words), memory.reported(settings):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space"),
        UserError("a.mrc: can't allocate memory"),
    ],
)
def test_other_errors_are_reported_as_they_are(error):
    with pytest.raises(type(error)) as raised, memory.reported(TrainConfig()):
        raise error
    assert raised.value is error
