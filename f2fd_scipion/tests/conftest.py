"""Tests of which most share what takes long to make run in one process, and begin first."""

import pytest

SCIPION = "f2fd_scipion/tests/test_"
# What they share, and how their names begin; the first that fits counts.
TOGETHER = {
    "a project": tuple(SCIPION + name for name in ("ctfs", "denoising", "halves", "judging")),
    "another project": (SCIPION,),
    "a training and what it denoised": ("tests/runs/test_faults.py",),
    "trainings by one process and by two": ("tests/runtime/test_distributed.py",),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next(
                (what for what, starts in TOGETHER.items() if nodeid.startswith(starts)), nodeid
            )

    return Together(config, log)


def pytest_itemcollected(item):
    row = getattr(item.obj, "reliability", None)
    if row:
        item.add_marker(pytest.mark.reliability(*row))
