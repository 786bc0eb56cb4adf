"""The plugin's tests run in one process: most share a project, whose making takes long."""

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class OnePlugin(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "plugin" if nodeid.startswith("f2fd_scipion/") else nodeid

    return OnePlugin(config, log)


def pytest_itemcollected(item):
    row = getattr(item.obj, "reliability", None)
    if row:
        item.add_marker(pytest.mark.reliability(*row))
