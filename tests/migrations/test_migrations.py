"""Migrations: up, down and up again, agreeing with the models, one after another."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from quill.actor import Actor
from quill.kit import clock
from quill.kit.database import Database, UtcDateTime
from quill.migrations import runner, state
from quill.migrations.state import SchemaState
from quill.patients import naming
from quill.patients.queries import Filters, Way, lists
from tests.databases import Databases
from tests.patients.helpers import INDEX, MEMBER, index_row, member_row

pytestmark = pytest.mark.anyio

ACTOR = Actor.job("test")


@pytest.fixture
def empty(tmp_path: Path) -> Database:
    return Database(f"sqlite+aiosqlite:///{tmp_path}/empty.sqlite3")


async def test_up_down_and_up_again_ends_with_the_models(empty: Database) -> None:
    assert await state.state_of(empty) is SchemaState.EMPTY
    await runner.upgrade(empty)
    assert await state.state_of(empty) is SchemaState.CURRENT
    await runner.downgrade(empty, "base")
    assert await state.state_of(empty) is SchemaState.EMPTY
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


async def test_names_are_kept_for_members_of_before_and_after_and_no_more_below(empty_url: str) -> None:
    database = Database(empty_url)
    await runner.upgrade(database, "0002")
    async with database.writing() as session:
        for organisation_id in (1, 2):
            await session.execute(
                sa.text(
                    "INSERT INTO organisation (id, name, type, created_at, updated_at)"
                    " VALUES (:id, 'Place', 'gp_practice', :now, :now)"
                ).bindparams(sa.bindparam("now", type_=UtcDateTime())),
                {"id": organisation_id, "now": clock.now()},
            )
        await session.execute(sa.insert(INDEX), [index_row("p1", "ash"), index_row("p2", "birch")])
        await session.execute(sa.update(INDEX).where(INDEX.c.patient_id == "p2").values(is_active=False))
        members = [member_row(place, patient) for place in (1, 2) for patient in ("p1", "p2", "unknown")]
        await session.execute(sa.insert(MEMBER), members[:5])
    kept = sa.text("SELECT organisation_id, patient_id, is_active, sort_name FROM organisation_patient_name")
    known = "ash"
    for name in ("cedar", "oak"):
        await runner.upgrade(database)
        assert await runner.differences(database) == []
        async with database.writing() as session:
            rows = {tuple(row) for row in await session.execute(kept)}
            assert rows == {(place, *one) for place in (1, 2) for one in (("p1", True, known), ("p2", False, "birch"))}
            await session.execute(sa.update(INDEX).where(INDEX.c.patient_id == "p1").values(sort_name=name))
            assert {row.sort_name for row in await session.execute(kept)} == {name, "birch"}
            known = name
        await runner.downgrade(database, "0002")
        async with database.writing() as session:
            # Nothing is left that would miss the table.
            await session.execute(sa.update(INDEX).values(is_active=INDEX.c.is_active, sort_name=INDEX.c.sort_name))
            await session.execute(sa.delete(MEMBER).where(MEMBER.c.patient_id == "unknown"))
            await session.execute(sa.insert(MEMBER), [member_row(1, "unknown")])
    await database.dispose()


@pytest.mark.thorough
async def test_two_processes_migrating_at_once_both_end_well(empty_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"QUILL_DATA_DIR": str(tmp_path), "QUILL_DATABASE_URL": empty_url}
    command = (sys.executable, "-c", "from quill.cli import main; main()", "migrate")
    processes = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]
    database = Database(empty_url)
    assert await state.state_of(database) is SchemaState.CURRENT
    await database.dispose()


def test_steps_are_known_by_their_files_as_alembic_knows_them() -> None:
    scripts = ScriptDirectory.from_config(runner.config())
    known = [script.revision for script in scripts.walk_revisions()]
    assert list(state.revisions()) == known[::-1]
    assert scripts.get_heads() == [state.revisions()[-1]]
