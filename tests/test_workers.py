import threading
import time

import pytest

from f2fd_core import workers


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order_whoever_is_faster(count):
    def slow_first(worker, item):
        time.sleep(0.05 if item == 0 else 0.0)
        return item ** 2

    assert list(workers.in_order(slow_first, range(20), range(count))) == [
        number ** 2 for number in range(20)]


def test_workers_compute_side_by_side_and_one_item_at_a_time():
    busy, together = {}, threading.Barrier(2, timeout=20)

    def work(worker, item):
        assert not busy.get(worker)
        busy[worker] = True
        together.wait()  # passed only if two are here at once
        busy[worker] = False
        return worker

    assert set(workers.in_order(work, range(8), "ab")) == {"a", "b"}


def test_no_more_is_computed_ahead_than_a_few_items():
    done = []

    def work(worker, item):
        done.append(item)
        return item

    results = workers.in_order(work, range(100), [0])
    next(results)
    time.sleep(0.1)
    assert len(done) <= workers.WAITING_RESULTS + 1
    results.close()
    assert len(done) <= workers.WAITING_RESULTS + 1


def test_an_error_ends_the_work():
    done = []

    def work(worker, item):
        done.append(item)
        if item == 3:
            raise ValueError("item 3")
        return item

    with pytest.raises(ValueError, match="item 3"):
        list(workers.in_order(work, range(100), [0, 1]))
    assert len(done) < 20
