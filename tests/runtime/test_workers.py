import gc
import threading
import time
import weakref

import pytest

from f2fd_core.runtime import workers


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order_whoever_is_faster(count):
    def slow_first(worker, item):
        time.sleep(0.05 if item == 0 else 0.0)
        return item**2

    assert list(workers.map_ordered(slow_first, range(20), range(count))) == [
        number**2 for number in range(20)
    ]


def test_workers_compute_side_by_side_and_one_item_at_a_time():
    busy, together = {}, threading.Barrier(2, timeout=20)

    def work(worker, item):
        assert not busy.get(worker)
        busy[worker] = True
        together.wait()  # passed only if two are here at once
        busy[worker] = False
        return worker

    assert set(workers.map_ordered(work, range(8), "ab")) == {"a", "b"}


def test_no_more_is_computed_ahead_than_a_few_items():
    done = []

    def work(worker, item):
        done.append(item)
        return item

    results = workers.map_ordered(work, range(100), [0])
    next(results)
    time.sleep(0.1)
    assert len(done) <= workers.WAITING_RESULTS + 1
    results.close()
    assert len(done) <= workers.WAITING_RESULTS + 1


def test_what_nobody_waits_for_ends_early():
    """Ctrl-C reaches the one who asks for the results; the others learn it from abandon()."""
    cancelled = threading.Event()

    def endless(worker, item):
        assert item == 0 or cancelled.wait(60)
        return item

    results = workers.map_ordered(endless, range(9), [0, 1], cancelled.set)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert cancelled.is_set()


def test_the_first_error_counts_and_ends_what_came_before_it():
    cancelled = threading.Event()

    def work(worker, item):
        if item == 1:
            raise ValueError("item 1")
        assert cancelled.wait(60)
        raise RuntimeError("nobody waits any more")

    with pytest.raises(ValueError, match="item 1"):
        list(workers.map_ordered(work, range(2), [0, 1], cancelled.set))


def test_an_error_ends_the_work():
    done = []

    def work(worker, item):
        done.append(item)
        if item == 3:
            raise ValueError("item 3")
        return item

    with pytest.raises(ValueError, match="item 3"):
        list(workers.map_ordered(work, range(100), [0, 1]))
    assert len(done) < 20


@pytest.mark.parametrize("enabled", [False, True])
def test_ahead_gives_every_number_once(enabled):
    calls = []

    def work(number):
        calls.append((number, threading.current_thread() is threading.main_thread()))
        return number**2

    ahead = workers.Prefetcher(work, enabled)
    assert ahead.get(3) == 9
    ahead.prefetch(4)
    ahead.join()
    assert calls[1:] == ([(4, False)] if enabled else [])
    assert ahead.get(4) == 16 and ahead.get(5) == 25
    assert [number for number, _ in calls] == [3, 4, 5]


def test_an_error_in_the_background_is_raised_where_the_result_is_taken():
    ahead = workers.Prefetcher(lambda number: 1 / number, True)
    ahead.prefetch(0)
    ahead.join()
    with pytest.raises(ZeroDivisionError):
        ahead.get(0)


class Large:
    """What a worker has made when it fails."""


def test_nothing_that_failed_work_had_made_is_kept():
    """Without waiting for the garbage collector: it may be most of a GPU's memory."""
    made = []

    def fail(worker, item):
        large = Large()
        made.append(weakref.ref(large))
        raise MemoryError

    gc.disable()
    try:
        try:
            list(workers.map_ordered(fail, [1], "a"))
        except MemoryError:
            assert made[0]() is not None
        assert made[0]() is None
    finally:
        gc.enable()
