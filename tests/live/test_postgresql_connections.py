"""Connections to PostgreSQL that went bad while nobody used them are replaced without anybody noticing."""

import os
from typing import Any

import pytest
import sqlalchemy as sa

from quill.kit import database, pools
from quill.kit.database import Database

pytestmark = [pytest.mark.live("postgresql"), pytest.mark.anyio]


async def backend(connections: Database) -> int:
    async with connections.reading() as session:
        return int((await session.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one())


async def test_connection_the_server_closed_is_replaced() -> None:
    ours, other = Database(os.environ["QUILL_TEST_DATABASE_URL"]), Database(os.environ["QUILL_TEST_DATABASE_URL"])
    first = await backend(ours)
    async with other.writing() as session:
        await session.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
    await backend(other)
    assert await backend(ours) != first
    await ours.dispose()
    await other.dispose()


async def test_idle_connection_is_asked_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "IDLE_SECONDS", -1.0)
    ours = Database(os.environ["QUILL_TEST_DATABASE_URL"])
    first = await backend(ours)
    assert await backend(ours) == first
    async with ours.writing() as session:
        assert (await session.execute(sa.text("SELECT 1"))).scalar_one() == 1
    await ours.dispose()


async def test_connection_that_breaks_before_the_transaction_begins_is_an_outage() -> None:
    ours = Database(os.environ["QUILL_TEST_DATABASE_URL"])
    statement = sa.select(sa.func.pg_backend_pid())

    def break_it(_connection: object, _record: object, proxied: Any) -> None:
        proxied.driver_connection.terminate()

    for _ in range(2):
        async with ours.writing() as session:
            await session.execute(statement)
    async with ours.session() as session:
        sa.event.listen(ours.engine.sync_engine.pool, "checkout", break_it)
        try:
            with pytest.raises(sa.exc.DBAPIError) as error:
                await session.execute(statement)
        finally:
            sa.event.remove(ours.engine.sync_engine.pool, "checkout", break_it)
        assert database.is_outage(error.value)
        with pytest.raises(sa.exc.PendingRollbackError):
            await session.execute(statement)
        await session.rollback()
        assert await session.scalar(statement)
    await ours.dispose()
