"""Restarting one instance after the other: nobody who talks to them through a proxy notices."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Databases
from tests.live.instances import has
from tests.live.rolling_restart import run

pytestmark = [pytest.mark.live("postgresql", "redis"), pytest.mark.timeout(240)]


@pytest.fixture
def empty_url(databases: Databases, tmp_path: Path) -> Iterator[str]:
    if not has("nginx"):
        pytest.skip("nginx is not installed")
    url = databases.empty(tmp_path)
    yield url
    databases.drop(url)


@pytest.mark.parametrize("keeps_alive", [False, True], ids=["fresh-connections", "kept-connections"])
def test_no_request_fails(empty_url: str, tmp_path: Path, keeps_alive: bool) -> None:
    trial = run(empty_url, os.environ.get("QUILL_TEST_REDIS_URL"), tmp_path, keeps_alive=keeps_alive)
    assert len(trial.restarting.milliseconds) > 100
    assert not trial.restarting.failures, str(trial)
    assert trial.restarting.acknowledged
    assert not trial.missing
