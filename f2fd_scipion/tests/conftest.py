"""Tests that share a project run in one process, so that it is made once."""
import pytest

from f2fd_scipion.tests.project import ProjectTests


def pytest_collection_modifyitems(items):
    for item in items:
        if item.cls and issubclass(item.cls, ProjectTests):
            item.add_marker(pytest.mark.xdist_group("project"))
