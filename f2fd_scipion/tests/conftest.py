"""Tests of which most share what takes long to make run in one process, and begin first."""

import pytest

TOGETHER = {
    "f2fd_scipion/": "a project",
    "tests/runs/test_faults.py": "a training and what it denoised",
    "tests/runtime/test_distributed.py": "trainings by one process and by two",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((start for start in TOGETHER if nodeid.startswith(start)), nodeid)

    return Together(config, log)


def pytest_itemcollected(item):
    row = getattr(item.obj, "reliability", None)
    if row:
        item.add_marker(pytest.mark.reliability(*row))
