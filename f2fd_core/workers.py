"""Work shared by workers (devices, mostly) while its results are taken in order."""
import collections
import queue
from concurrent.futures import ThreadPoolExecutor

WAITING_RESULTS = 2


def in_order(function, items, workers):
    """Yield ``function(worker, item)`` for every item, in the items' order.

    The workers compute side by side, each one item at a time in a thread of its own, and go on
    while the caller handles a result; no more than WAITING_RESULTS a worker are under way or wait.
    An error ends it all and is raised here.
    """
    free = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def one(item):
        worker = free.get()
        try:
            return function(worker, item)
        finally:
            free.put(worker)

    pending = collections.deque()
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            for item in items:
                pending.append(pool.submit(one, item))
                if len(pending) >= WAITING_RESULTS * len(workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
