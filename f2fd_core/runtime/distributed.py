"""One training in several processes: who this one is, how they start, what they share.

Processes are started here (``--device 0,1``), by torchrun or by Slurm's srun, one a device. Without
any of these a training is a group of one, and nothing of torch.distributed is touched.
"""

import contextlib
import datetime
import gc
import os
import re
import signal
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from f2fd_core.config import UserError
from f2fd_core.runtime import memory
from f2fd_core.runtime.device import cpu_threads

# The ports through which processes find each other: from this one on, so many.
FIRST_PORT = 20000
PORTS = 20000
# How long one process may be busy while the others wait for it, with a new estimate of the noise
# for example. That one died is known sooner, by who started them.
PATIENCE = datetime.timedelta(minutes=30)
# How processes start; a forked one could not use a GPU that this one has used.
START_METHOD = "spawn"


class Group:
    """The processes that train together; ``rank`` is this one's number, 0 the one that writes."""

    def __init__(self, rank=0, size=1, local_rank=0):
        self.rank, self.size, self.local_rank = rank, size, local_rank

    def device(self, devices, wanted):
        """This process's own out of the ``devices``; ``wanted``: the option that they came from."""
        own = devices[self.local_rank % len(devices)]
        if own.type == "cuda":
            if wanted == "auto":
                own = torch.device(f"cuda:{self.local_rank % torch.cuda.device_count()}")
            torch.cuda.set_device(own)
        return own

    def shard(self, items):
        """This process's part of a list, as [(index, item)]."""
        return list(enumerate(items))[self.rank :: self.size]

    def broadcast(self, value):
        """Process 0's value of something that can be pickled, in all processes."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def agreed(self, function):
        """What ``function()`` returns in process 0, in all processes; they also raise the UserError
        or OSError that it raises there."""
        found = None
        if self.rank == 0:
            try:
                found = function()
            except (UserError, OSError) as error:
                found = error
        found = self.broadcast(found)
        if isinstance(found, Exception):
            raise found
        return found

    def all_reduce_sum(self, value, device):
        """Sum of a number over the processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return tensor.item()

    def parallel(self, network, device):
        """The network, or what averages its gradients over the processes."""
        if self.size == 1:
            return network
        ids = [device.index] if device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(network, device_ids=ids)


SINGLE_PROCESS = Group()


def first_host(nodes):
    """The first host of a Slurm node list such as ``gpu[03-07,11],login``."""
    name, bracket, numbers = nodes.split(",")[0].partition("[")
    return name + re.split(r"\W", numbers)[0] if bracket else name


def from_environment(environment):
    """(:class:`Group`, address of process 0 as 'host:port') from torchrun's or srun's variables."""
    if int(environment.get("WORLD_SIZE", 1)) > 1:
        group = Group(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
        return group, f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
    # Only srun sets this; in a batch script without srun there is one process, whatever was asked.
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        group = Group(
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_STEP_NUM_TASKS"]),
            int(environment["SLURM_LOCALID"]),
        )
        # Steps of one job may run side by side.
        number = f"{environment['SLURM_JOB_ID']}{environment.get('SLURM_STEP_ID', '')}"
        port = FIRST_PORT + int(number) % PORTS
        return group, f"{first_host(environment['SLURM_STEP_NODELIST'])}:{port}"
    return SINGLE_PROCESS, ""


@contextlib.contextmanager
def joined(on_gpu):
    """The :class:`Group` that this process belongs to, connected while the context lasts.

    After an error the connection is left as it is: to end it, NCCL would wait for the others, who
    wait for this process. They are ended when it ends. Within another such context, that one's.
    """
    group, address = from_environment(os.environ)
    if group.size == 1 or dist.is_initialized():
        yield group
        return
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        "tcp://" + address,
        rank=group.rank,
        world_size=group.size,
        timeout=PATIENCE,
    )
    yield group
    # A training refers to itself, and to the connection: if it was left to Python's end, gloo's
    # threads would now and then abort the process.
    gc.collect()
    dist.destroy_process_group()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _process(rank, function, argument, size, threads, port, sentences):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS=threads,
    )
    try:
        with memory.reported(argument):
            function(argument)
    except (UserError, OSError) as error:
        sentences.put(error)
        raise SystemExit(1)


def start(function, argument, size):
    """Run ``function(argument)`` in ``size`` new processes that form a group.

    They share the CPU's threads, unless OMP_NUM_THREADS says how many each has. If one ends by an
    error or dies, the others are ended. Raises what a process was refused by (a UserError or an
    OSError), or a UserError that says which died.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cpu_threads() // size))
    # A terminal or a queue sends these to all processes: it is this one that ends the others, and
    # what Python starts beside them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    try:
        sentences = processes.get_context(START_METHOD).SimpleQueue()
        group = processes.start_processes(
            _process,
            (function, argument, size, threads, _free_port(), sentences),
            nprocs=size,
            start_method=START_METHOD,
            join=False,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        while not group.join():
            pass
    except (processes.ProcessExitedException, processes.ProcessRaisedException) as error:
        if not sentences.empty():
            raise sentences.get()
        if isinstance(error, processes.ProcessRaisedException):
            raise
        cause = (
            f"signal {signal.Signals(-error.exit_code).name}"
            if error.exit_code < 0
            else f"exit code {error.exit_code}"
        )
        raise UserError(
            f"process {error.error_index + 1} of {size} ended with {cause}, and with "
            "it the training; expected all to go on: --resume continues from the "
            "newest checkpoint"
        )
    except KeyboardInterrupt:
        for process in group.processes:
            process.terminate()
        raise
