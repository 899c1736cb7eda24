"""Migrations: up, down and up again, agreeing with the models, one after another."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from quill.actor import Actor
from quill.kit import clock
from quill.kit.database import Database, UtcDateTime
from quill.migrations import runner
from quill.migrations.runner import SchemaState
from quill.patients import naming
from quill.patients.queries import Filters, Way, lists
from tests.databases import Databases

pytestmark = pytest.mark.anyio

ACTOR = Actor.job("test")


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


@pytest.mark.parametrize("names", [["anna lee", "lee"], []])
async def test_patients_listed_before_names_were_looked_up_are_found_as_those_after(
    empty_url: str, names: list[str]
) -> None:
    database, before = Database(empty_url), "\n".join(names)
    insert = sa.text(
        "INSERT INTO patient_index (patient_id, version, last_updated, display_name, sort_name, search_text, is_active)"
        " VALUES (:patient_id, 1, :now, '', '', :text, :yes)"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()), sa.bindparam("yes", type_=sa.Boolean()))
    await runner.upgrade(database, "0001")
    for patient_id, text in (("old", before), ("new", naming.searchable(names))):
        async with database.writing() as session:
            given = {"patient_id": patient_id, "now": clock.now(), "text": text, "yes": True}
            await session.execute(insert, given)
        await runner.upgrade(database)
    async with database.reading() as session:
        for word in ("ann", "l"):
            found = await lists.count(session, ACTOR, lists.everybody, Filters(words=[word]), Way.BY_NAME)
            assert found == (2 if names else 0)
    await runner.downgrade(database, "0001")
    async with database.reading() as session:
        assert list(await session.scalars(sa.text("SELECT search_text FROM patient_index"))) == [before, before]
    await database.dispose()


@pytest.mark.thorough
async def test_two_processes_migrating_at_once_both_end_well(empty_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"QUILL_DATA_DIR": str(tmp_path), "QUILL_DATABASE_URL": empty_url}
    command = (sys.executable, "-c", "from quill.cli import main; main()", "migrate")
    processes = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]
    database = Database(empty_url)
    assert await runner.state_of(database) is SchemaState.CURRENT
    await database.dispose()
