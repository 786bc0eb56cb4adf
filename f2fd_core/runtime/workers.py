"""Work done in the background: tiles by several workers, the next batch while a device computes."""

import collections
import queue
from concurrent.futures import ThreadPoolExecutor

import torch

WAITING_RESULTS = 2


def _pool(workers):
    """Threads that share out their work as the caller does: the last bits of a Fourier transform
    depend on among how many, and a new thread would take the system's number at first."""
    return ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    )


def map_ordered(function, items, workers, cancel=lambda: None):
    """Yield ``function(worker, item)`` for every item, in the items' order.

    The workers compute side by side, each one item at a time in a thread of its own, and go on
    while the caller handles a result; no more than WAITING_RESULTS a worker are under way or wait.
    The first error, or Ctrl-C, ends it all and is raised here, when what is under way has ended;
    ``cancel()`` is called at once and may hasten that.
    """
    free, errors = queue.SimpleQueue(), []
    for worker in workers:
        free.put(worker)

    def one(item):
        worker = free.get()
        try:
            return function(worker, item)
        except BaseException as error:
            errors.append(error)  # whatever this makes the others raise comes after it
            cancel()
            raise
        finally:
            free.put(worker)

    pending = collections.deque()
    with _pool(len(workers)) as pool:
        try:
            for item in items:
                pending.append(pool.submit(one, item))
                if len(pending) >= WAITING_RESULTS * len(workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException as error:
            cancel()
            if error in errors:
                raise errors[0]
            raise
        finally:
            for future in pending:
                future.cancel()
            errors.clear()  # an error's traceback holds this list, and what the worker had made


class Prefetcher:
    """``function(number)`` for one number after the other, the next one's begun in the background.

    For work that the processor can do while a GPU is busy. ``enabled``: False does all of it when
    it is asked for.
    """

    def __init__(self, function, enabled):
        self.function = function
        self.pool = _pool(1) if enabled else None
        self.begun = {}

    def get(self, number):
        """The result for a number, whether it was begun or not."""
        begun = self.begun.pop(number, None)
        return begun.result() if begun else self.function(number)

    def prefetch(self, number):
        """Start on a number."""
        if self.pool:
            self.begun[number] = self.pool.submit(self.function, number)

    def join(self):
        """Come back when nothing is under way."""
        for begun in self.begun.values():
            begun.exception()
