"""Group commit: few transactions, every caller told the truth."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from quill.audit.models import AuditEvent
from quill.audit.recorder import GroupRecorder
from quill.errors import AuditUnavailable
from quill.kit import sqlite
from quill.kit.database import Database
from tests.audit.trail import meddle, number_of, row

pytestmark = pytest.mark.anyio


@pytest.fixture
async def recorder(database: Database) -> AsyncIterator[GroupRecorder]:
    async with GroupRecorder(database) as made:
        yield made


@contextmanager
def counted_commits(database: Database) -> Iterator[list[object]]:
    """Return a list that grows with each transaction, whichever way it goes to the database."""
    commits: list[object] = []
    write = sqlite.Connection.write

    def count(connection: sa.Connection) -> None:
        commits.append(connection)

    async def counted_write(connection: sqlite.Connection, *statement: Any) -> int:
        commits.append(connection)
        return await write(connection, *statement)

    event.listen(database.engine.sync_engine, "commit", count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite.Connection, "write", counted_write)
        yield commits
    event.remove(database.engine.sync_engine, "commit", count)


async def requests_kept(database: Database) -> set[str]:
    async with database.reading() as session:
        return set(await session.scalars(sa.select(AuditEvent.request_id)))


async def test_a_hundred_callers_share_few_transactions(database: Database, recorder: GroupRecorder) -> None:
    missing: list[int] = []

    async def caller(number: int) -> None:
        await recorder.record([row(number)])
        async with database.reading() as session:
            found = sa.select(AuditEvent.id).where(AuditEvent.request_id == f"request-{number}")
            if await session.scalar(found) is None:
                missing.append(number)

    with counted_commits(database) as commits:
        await asyncio.gather(*(caller(number) for number in range(100)))
    assert missing == []
    assert await number_of(database, "audit_event") == 100
    assert 1 <= len(commits) <= 5


async def test_a_lone_caller_is_not_kept_waiting_for_company(database: Database, recorder: GroupRecorder) -> None:
    with counted_commits(database) as commits:
        for number in range(5):
            await recorder.record([row(number)])
    assert len(commits) == 5


async def test_callers_that_come_during_a_commit_form_the_next_group(
    database: Database, recorder: GroupRecorder
) -> None:
    async with database.session() as holder:
        await holder.execute(sa.text("SELECT 1"))  # begins, and so holds the one writer's place
        first = asyncio.create_task(recorder.record([row(0)]))
        await asyncio.sleep(0.02)
        rest = [asyncio.create_task(recorder.record([row(number)])) for number in range(1, 20)]
        await asyncio.sleep(0.02)
        assert not first.done()
        with counted_commits(database) as commits:
            await holder.rollback()
            await asyncio.gather(first, *rest)
    assert len(commits) == 2


async def test_a_group_is_closed_when_it_is_full(database: Database) -> None:
    async with GroupRecorder(database, group_rows=10) as recorder:
        with counted_commits(database) as commits:
            await asyncio.gather(*(recorder.record([row(number)]) for number in range(40)))
    assert len(commits) == 4


async def test_more_rows_than_a_group_takes_are_written_in_one_transaction(database: Database) -> None:
    async with GroupRecorder(database, group_rows=10) as recorder:
        with counted_commits(database) as commits:
            await recorder.record([row(number) for number in range(25)])
    assert len(commits) == 1
    assert await number_of(database, "audit_event") == 25


async def test_failure_reaches_every_caller_of_the_group_and_the_next_group_is_written(
    database: Database, recorder: GroupRecorder
) -> None:
    await meddle(database, "ALTER TABLE audit_event RENAME TO hidden")
    results = await asyncio.gather(*(recorder.record([row(number)]) for number in range(20)), return_exceptions=True)
    assert [type(result) for result in results] == [AuditUnavailable] * 20
    assert len({id(result) for result in results}) == 20

    await meddle(database, "ALTER TABLE hidden RENAME TO audit_event")
    assert await number_of(database, "audit_event") == 0
    await recorder.record([row(21)])
    assert await requests_kept(database) == {"request-21"}


async def test_a_row_that_cannot_be_written_refuses_its_group_only(database: Database) -> None:
    async with GroupRecorder(database, group_rows=2) as recorder:
        rows = [row(0), row(1, act=None), row(2), row(3)]
        results = await asyncio.gather(*(recorder.record([one]) for one in rows), return_exceptions=True)
    assert [type(result) for result in results] == [AuditUnavailable, AuditUnavailable, type(None), type(None)]
    assert await requests_kept(database) == {"request-2", "request-3"}


async def test_a_cancelled_caller_takes_no_rows_away(database: Database, recorder: GroupRecorder) -> None:
    async with database.session() as holder:
        await holder.execute(sa.text("SELECT 1"))
        callers = [asyncio.create_task(recorder.record([row(number)])) for number in range(5)]
        await asyncio.sleep(0.02)
        callers[0].cancel()  # the one that woke the writer
        callers[3].cancel()
        await asyncio.sleep(0)
        await holder.rollback()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False, False, True, False]
    await recorder.stop()
    assert await requests_kept(database) == {f"request-{number}" for number in range(5)}


async def test_stop_writes_what_waits_and_refuses_what_comes_later(database: Database) -> None:
    recorder = GroupRecorder(database, group_rows=3)
    callers = [asyncio.create_task(recorder.record([row(number)])) for number in range(10)]
    await asyncio.sleep(0)
    await recorder.stop()
    assert await number_of(database, "audit_event") == 10
    await asyncio.gather(*callers)
    with pytest.raises(AuditUnavailable):
        await recorder.record([row(11)])


async def test_nothing_to_record_costs_no_transaction(database: Database, recorder: GroupRecorder) -> None:
    with counted_commits(database) as commits:
        await recorder.record([])
        async with database.writing() as session:
            await recorder.insert(session, [])
    assert commits == []


async def test_inserted_rows_share_the_fate_of_their_transaction(database: Database, recorder: GroupRecorder) -> None:
    async with database.session() as session:
        await recorder.insert(session, [row(1)])
        await session.rollback()
    assert await number_of(database, "audit_event") == 0
    async with database.writing() as session:
        await recorder.insert(session, [row(2), row(3)])
    assert await requests_kept(database) == {"request-2", "request-3"}


async def test_a_row_that_cannot_be_inserted_refuses_the_transaction(
    database: Database, recorder: GroupRecorder
) -> None:
    with pytest.raises(AuditUnavailable):
        async with database.writing() as session:
            await recorder.insert(session, [row(1), row(2, act=None)])
    assert await number_of(database, "audit_event") == 0
