"""Tests that need real servers name them, ``@pytest.mark.live("redis")``; without those they are left out."""

import os

import pytest

from tests.live.control import URL_VARIABLES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose servers are not there; the launcher has said which, and why."""
    left_out = [item for item in items if not _may_run(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _may_run(item: pytest.Item) -> bool:
    return all(os.environ.get(URL_VARIABLES[name]) for marker in item.iter_markers("live") for name in marker.args)
