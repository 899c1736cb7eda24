"""Migrations: up, down and up again, agreeing with the models, one after another."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quill.kit.database import Database
from quill.migrations import runner
from quill.migrations.runner import SchemaState
from tests.databases import Databases

pytestmark = pytest.mark.anyio


@pytest.fixture
def empty(tmp_path: Path) -> Database:
    return Database(f"sqlite+aiosqlite:///{tmp_path}/empty.sqlite3")


async def test_up_down_and_up_again_ends_with_the_models(empty: Database) -> None:
    assert await runner.state_of(empty) is SchemaState.EMPTY
    await runner.upgrade(empty)
    assert await runner.state_of(empty) is SchemaState.CURRENT
    await runner.downgrade(empty, "base")
    assert await runner.state_of(empty) is SchemaState.EMPTY
    await runner.upgrade(empty)
    assert await runner.differences(empty) == []
    await empty.dispose()


@pytest.fixture
def empty_url(databases: Databases, tmp_path: Path) -> Iterator[str]:
    url = databases.empty(tmp_path)
    yield url
    databases.drop(url)


@pytest.mark.thorough
async def test_two_processes_migrating_at_once_both_end_well(empty_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"QUILL_DATA_DIR": str(tmp_path), "QUILL_DATABASE_URL": empty_url}
    command = (sys.executable, "-c", "from quill.cli import main; main()", "migrate")
    processes = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]
    database = Database(empty_url)
    assert await runner.state_of(database) is SchemaState.CURRENT
    await database.dispose()
