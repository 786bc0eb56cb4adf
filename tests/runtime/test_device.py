import os

import pytest
import torch

from f2fd_core import UserError
from f2fd_core.runtime import device


@pytest.mark.parametrize(
    ("asked", "given", "cores", "used"),
    [
        (0, None, 3, 3),
        (2, None, 3, 2),
        (8, None, 3, 3),
        (0, "2", 3, 2),
        (0, "2,4", 3, 2),
        (0, "8", 3, 3),
        (3, "2", 3, 3),
        (0, "many", 3, 3),
        (0, "²", 3, 3),
        (0, "9" * 5000, 3, 3),
    ],
)
def test_threads_of_the_cpu(monkeypatch, asked, given, cores, used):
    """Asked for, else given by OMP_NUM_THREADS; never more than the cores of the process."""
    set_to = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    device.prepare_cpu(asked)
    assert set_to == [used]


def test_arithmetic_is_what_was_asked_for():
    cpu = torch.device("cpu")
    assert device.choose_dtype("float32", cpu) is torch.float32
    assert device.choose_dtype("bfloat16", cpu) is torch.bfloat16
    layer, values = torch.nn.Linear(4, 4), torch.ones(4)
    for dtype in (torch.float32, torch.bfloat16):
        with device.autocast(dtype, cpu):
            assert layer(values).dtype is dtype


@pytest.mark.parametrize(
    ("fast", "deepest", "chosen"),
    [(True, 3, torch.bfloat16), (True, 2, torch.float32), (False, 3, torch.float32)],
)
def test_automatic_arithmetic_on_cpus(monkeypatch, fast, deepest, chosen):
    """bfloat16 where the hardware has it and the network's deepest level is wide enough for it."""
    monkeypatch.setattr(device, "_fast_bfloat16", lambda place: fast)
    cpu = torch.device("cpu")
    assert device.choose_dtype("auto", cpu, deepest) is chosen
    assert device.choose_dtype("auto", torch.device("cuda"), deepest) is (
        torch.bfloat16 if fast else torch.float32
    )
    assert device.choose_dtype("bfloat16", cpu, deepest) is torch.bfloat16
    assert device.choose_dtype("float32", cpu, deepest) is torch.float32


@pytest.mark.parametrize(
    ("gpus", "wanted", "found"),
    [
        (0, "all", ["cpu"]),
        (1, "all", ["cuda:0"]),
        (3, "all", ["cuda:0", "cuda:1", "cuda:2"]),
        (3, "auto", ["cuda:0"]),
        (3, "2,cuda:0", ["cuda:2", "cuda:0"]),
        (0, "auto", ["cpu"]),
    ],
)
def test_devices_by_name(monkeypatch, gpus, wanted, found):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert [str(one) for one in device.choose_devices(wanted)] == found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_is_the_cpu_where_there_is_no_gpu():
    assert device.choose_devices("auto")[0].type == "cpu"


def test_deterministic_algorithms_while_the_context_lasts():
    state = torch.are_deterministic_algorithms_enabled
    for asked in (False, True):
        with pytest.raises(ValueError), device.reproducible(asked):
            assert state() is asked
            raise ValueError
        assert state() is False


def test_seeds_of_the_caller_are_kept():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with device.reproducible():
        torch.manual_seed(99)
        torch.rand(7)
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


def test_a_machine_without_a_compiler_is_reported(monkeypatch):
    def cannot(function):
        raise RuntimeError("no working C++ compiler found\nin a long text")

    monkeypatch.setattr(torch, "compile", cannot)
    with pytest.raises(UserError, match=r"--compile is given.*\(no working C\+\+ compiler found\)"):
        device.compiled(torch.nn.Identity(), torch.device("cpu"))


@pytest.mark.parametrize("most", [1 << 25, 1 << 40])
def test_the_c_library_keeps_as_much_as_it_is_asked_to(monkeypatch, most):
    """If it refuses a limit and takes the other, every large array is a new one."""
    limits = {}

    class Library:
        gnu_get_libc_version = True

        @staticmethod
        def mallopt(name, value):
            accepted = name != device.M_MMAP_THRESHOLD or value <= most
            limits.update({name: value} if accepted else {})
            return int(accepted)

    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: Library)
    device.prepare_cpu(torch.get_num_threads())
    assert limits[device.M_MMAP_THRESHOLD] == min(most, device.KEPT_FREE)
