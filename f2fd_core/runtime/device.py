"""Where and how to compute: the device, its arithmetic, and what the machine offers."""

import contextlib
import ctypes
import os
import re

import torch

from f2fd_core.config import UserError, brief

# The first compute capability with bfloat16.
AMPERE = 8
# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
# What the allocator keeps, in bytes; older versions of glibc refuse more than the second.
KEPT_FREE = 1 << 30
KEPT_BY_OLD_GLIBC = 1 << 25
# On CPUs, PyTorch's bfloat16 gradients of 3 x 3 x 3 convolutions over 2 x 2 x 2 voxels are now and
# then NaN (seen with PyTorch 2.13 on AVX-512; never over 3 x 3 x 3 or more).
LEAST_DEEPEST = 3
CPU_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def _whole_number(text):
    """The number that is written in a few plain digits; None for any other text."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _one_device(name, wanted):
    """The torch device of one name out of the ``wanted`` list; raises UserError."""
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if gpus else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    number = {"cuda": "0"}.get(name, name[len("cuda:") :] if name.startswith("cuda:") else name)
    index = _whole_number(number)
    if index is None:
        raise UserError(
            f"--device is {brief(wanted)}; expected auto, all, cpu, cuda, cuda:N or "
            "several such as 0,1"
        )
    if index >= gpus:
        raise UserError(
            f"--device is '{wanted}'; expected one of the {gpus} GPUs that PyTorch "
            "sees here (counted from 0)"
        )
    return torch.device(f"cuda:{index}")


def choose_devices(wanted):
    """The torch devices for a list such as '0,1'; raises UserError for one that isn't there.

    'all' are all GPUs, or the CPU where there is none; 'cpu,cpu' makes two workers on the CPU; a
    GPU can't be named twice.
    """
    if wanted == "all":
        wanted = ",".join(map(str, range(torch.cuda.device_count()))) or "cpu"
    devices = [_one_device(name.strip(), wanted) for name in wanted.split(",")]
    gpus = [device for device in devices if device.type == "cuda"]
    if len(set(gpus)) < len(gpus):
        raise UserError(f"--device is '{wanted}'; expected every GPU once")
    return devices


def to_device(tensor, device):
    """A tensor of the CPU on a device; on a GPU, the caller does not wait for the copy.

    From pageable memory it would be made, and waited for, after all that the GPU has in its queue.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return tensor.to(device)
    with torch.cuda.device(device):
        return tensor.pin_memory().to(device, non_blocking=True)


def to_host_async(tensor):
    """Begin to bring a tensor to the CPU; returns a function that waits for its numpy array.

    Over pinned memory, so that a GPU goes on computing meanwhile.
    """
    if tensor.device.type != "cuda":
        return tensor.numpy
    with torch.cuda.device(tensor.device):
        values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        values.copy_(tensor, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()

    def arrived():
        arrival.synchronize()
        return values.numpy()

    return arrived


def seed_dropout(device, seed):
    """Seed the generator from which dropout on this device draws, and no other."""
    on_gpu = device.type == "cuda"
    generator = torch.cuda.default_generators[device.index] if on_gpu else torch.default_generator
    generator.manual_seed(seed)


def free_memory(device):
    """Bytes of a GPU's memory that this process can still take."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def runs_asynchronously(device):
    """Whether the processor has time for other work while this device computes."""
    return device.type == "cuda"


@contextlib.contextmanager
def reproducible(deterministic=False):
    """Context that seeds random generators at will and leaves the caller's as they were.

    ``deterministic``: only algorithms that give the same bits every time are used.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if deterministic:
        # cuBLAS reads this when it starts; without it PyTorch refuses what uses it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # To switch, PyTorch imports its compiler, which takes as long as PyTorch itself.
    changes = deterministic and not before
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if changes:
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            if changes:
                torch.use_deterministic_algorithms(False)


def cpu_threads(asked=0):
    """CPU threads to use: as many as asked for, never more than this process may use.

    0: as many as the environment variable OMP_NUM_THREADS says (the first of its numbers), which
    job queues, torchrun and whoever runs several programs side by side set; without it, all.
    """
    available = len(os.sched_getaffinity(0))
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(asked or _whole_number(given) or available, available)


def prepare_cpu(threads):
    """Let PyTorch use :func:`cpu_threads`, and keep the memory of one layer for the next."""
    torch.set_num_threads(cpu_threads(threads))
    _keep_freed_memory()


def _keep_freed_memory():
    """Let the C library keep what is freed for the next layer.

    By default glibc gives large arrays back to the system at once and gets them again, zeroed page
    by page, which takes a good part of a layer's time. So it does in threads, whatever the setting:
    they have pools of their own, of 64 MiB each. With one pool for all they share what is kept.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        # Before version 2.34 or so it refuses more than 32 MiB, and by the other setting alone it
        # would get all large arrays again.
        if not library.mallopt(M_MMAP_THRESHOLD, KEPT_FREE):
            library.mallopt(M_MMAP_THRESHOLD, KEPT_BY_OLD_GLIBC)
        library.mallopt(M_TRIM_THRESHOLD, KEPT_FREE)
        library.mallopt(M_ARENA_MAX, 1)


def compiled(network, device):
    """The network through torch.compile, for inputs of few different sizes.

    Raises UserError where PyTorch can't compile, shown on something small.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except RuntimeError as error:
        raise UserError(
            "--compile is given, but PyTorch can't compile here "
            f"({str(error).strip().splitlines()[0]}); expected a C++ compiler and, "
            "for a GPU, Triton"
        )
    return torch.compile(network, dynamic=False)


def _fast_bfloat16(device):
    """Whether the hardware itself multiplies bfloat16 numbers: Ampere or newer, AVX-512 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        flags = set(stream.read().split())
    return bool(flags & CPU_BFLOAT16_FLAGS)


def choose_dtype(precision, device, deepest=LEAST_DEEPEST):
    """The network's number type on this device: torch.bfloat16 or torch.float32.

    ``deepest``: side in voxels of the network's deepest level in training.
    """
    suits = device.type == "cuda" or deepest >= LEAST_DEEPEST
    fast = precision == "bfloat16" or precision == "auto" and suits and _fast_bfloat16(device)
    return torch.bfloat16 if fast else torch.float32


def autocast(dtype, device):
    """Context in which the network computes in ``dtype``."""
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def device_name(device):
    """Name for people, such as 'NVIDIA A100 (cuda:0)' or 'CPU, 8 threads'."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return f"CPU, {torch.get_num_threads()} threads"
