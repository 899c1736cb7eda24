"""Connections to PostgreSQL that went bad while nobody used them are replaced without anybody noticing."""

import os

import pytest
import sqlalchemy as sa

from quill.kit import database
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
    monkeypatch.setattr(database, "IDLE_SECONDS", -1.0)
    ours = Database(os.environ["QUILL_TEST_DATABASE_URL"])
    first = await backend(ours)
    assert await backend(ours) == first
    async with ours.writing() as session:
        assert (await session.execute(sa.text("SELECT 1"))).scalar_one() == 1
    await ours.dispose()
