"""Connections that readers take: few are opened, none is lost, and a bad one is replaced before anybody has it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit import clock
from quill.kit import database as kit_database
from quill.kit.database import Database, is_outage
from quill.kit.pools import Pool
from quill.kit.sessions import ReadingSession

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("connections_end")]

ONE = sa.select(sa.literal(1).label("one"))


@pytest.fixture
async def database(empty: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Return a database of which two connections may be open, and one is open and free."""
    monkeypatch.setattr(kit_database, "WAIT_SECONDS", 0.1)
    database = Database(empty, pool_size=1)
    for _ in range(2):
        await ask(database)
    yield database
    await database.dispose()


async def ask(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(ONE) or 0


def pool_of(database: Database) -> Pool:
    pool = database.engine.sync_engine.pool
    assert isinstance(pool, Pool)
    return pool


async def driver_of(database: Database) -> Any:
    """Return the free connection, as the driver knows it."""
    async with database.engine.connect() as connection:
        return (await connection.get_raw_connection()).driver_connection


def held_by(session: AsyncSession) -> Any:
    assert isinstance(session, ReadingSession)
    assert session._own is not None
    return session._own.driver_connection


@pytest.fixture
def taken(database: Database) -> Iterator[list[Any]]:
    """Return a list that grows with every connection that anybody takes."""
    found: list[Any] = []

    def note(_connection: object, _record: object, proxied: Any) -> None:
        found.append(proxied.driver_connection)

    sa.event.listen(database.engine.sync_engine, "checkout", note)
    yield found
    sa.event.remove(database.engine.sync_engine, "checkout", note)


async def test_readers_take_the_connection_that_is_there(database: Database, taken: list[Any]) -> None:
    for _ in range(3):
        assert await ask(database) == 1
    async with database.writing() as session:
        assert await session.scalar(ONE) == 1
    assert len(taken) == 4
    assert len(set(taken)) == 1
    assert pool_of(database).checkedout() == 0


async def test_whoever_finds_none_free_waits_and_is_refused(database: Database) -> None:
    async with database.reading() as first, database.reading() as second, database.reading() as third:
        assert [await session.scalar(ONE) for session in (first, second)] == [1, 1]
        with pytest.raises(sa.exc.TimeoutError) as error:
            await third.scalar(ONE)
        assert is_outage(error.value)
        waiting = asyncio.create_task(ask(database))
        await asyncio.sleep(0)
        await second.close()
        assert await waiting == 1
        assert await third.scalar(ONE) == 1


async def test_who_waits_is_served_before_those_who_come_later(database: Database) -> None:
    served: list[str] = []

    async def be_served(name: str) -> None:
        async with database.reading() as session:
            await session.scalar(ONE)
            served.append(name)

    async with database.reading() as first, database.reading() as second:
        assert [await session.scalar(ONE) for session in (first, second)] == [1, 1]
        waiting = [asyncio.create_task(be_served(name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        await second.close()
        await be_served("later")
        await asyncio.gather(*waiting)
    assert served == ["a", "b", "later"]


async def test_who_goes_away_with_a_connection_just_got_leaves_it(database: Database) -> None:
    async with database.reading() as first, database.reading() as second:
        assert [await session.scalar(ONE) for session in (first, second)] == [1, 1]
        waiting = asyncio.create_task(ask(database))
        await asyncio.sleep(0)
        await second.close()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert pool_of(database).checkedout() == 1
        assert await ask(database) == 1
    assert pool_of(database).checkedout() == 0


async def test_connections_of_a_burst_are_kept_and_the_next_burst_makes_none(
    database: Database, taken: list[Any]
) -> None:
    """Above the usual number of connections, each reader used to open one and close it again."""
    for _ in range(3):
        async with database.reading() as first, database.reading() as second:
            for session in (first, second):
                assert await session.scalar(ONE) == 1
            assert pool_of(database).checkedout() == 2
        assert (pool_of(database).checkedin(), pool_of(database).checkedout()) == (2, 0)
    assert len(taken) == 6
    assert len(set(map(id, taken))) == 2


async def test_connection_that_was_closed_is_replaced_before_it_is_used(database: Database, taken: list[Any]) -> None:
    closed = await driver_of(database)
    await closed.close()
    if database.is_sqlite:
        # Nobody closes a file from elsewhere; the first to use it hears of it, as from SQLAlchemy.
        with pytest.raises(sa.exc.DBAPIError):
            await ask(database)
    assert [await ask(database), await ask(database)] == [1, 1]
    assert closed not in taken[-2:]
    assert pool_of(database).checkedout() == 0


async def test_connections_made_before_one_broke_are_not_taken(empty: str) -> None:
    database = Database(empty, pool_size=2)
    for _ in range(2):
        await ask(database)
    async with database.reading() as first, database.reading() as second:
        for session in (first, second):
            assert await session.scalar(ONE) == 1
        other = held_by(second)
        await second.close()
        await held_by(first).close()
        with pytest.raises(sa.exc.DBAPIError) as error:
            await first.scalar(ONE)
        assert is_outage(error.value)
        assert await second.scalar(ONE) == 1
        assert held_by(second) is not other
        assert await first.scalar(ONE) == 1
    assert pool_of(database).checkedout() == 0
    await database.dispose()


async def test_idle_connection_is_asked_first(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    later = clock.monotonic_seconds() + 3600
    monkeypatch.setattr(clock, "monotonic_seconds", lambda: later)
    connection = pool_of(database).take()
    if connection is not None:
        # A file forgets nobody.
        assert database.is_sqlite
        connection.close()
    before = await driver_of(database)
    assert await ask(database) == 1
    connection = pool_of(database).take()
    assert connection is not None
    assert connection.driver_connection is before
    connection.close()
    connection.close()
    assert pool_of(database).checkedin() == 1


async def test_listener_that_wants_another_connection_gets_one(database: Database, taken: list[Any]) -> None:
    first = await driver_of(database)
    refused: list[object] = []

    def refuse_once(connection: Any, _record: object, _proxied: object) -> None:
        if not refused or connection is refused[0]:
            refused.append(connection)
            raise sa.exc.DisconnectionError

    sa.event.listen(database.engine.sync_engine, "checkout", refuse_once)
    try:
        assert await ask(database) == 1
    finally:
        sa.event.remove(database.engine.sync_engine, "checkout", refuse_once)
    # Once when it was to be taken quickly, and once more on the usual way.
    assert len(refused) == 2
    assert await driver_of(database) is not first
    assert taken[-1] is not first


async def test_abandoned_reader_leaves_its_place(database: Database) -> None:
    for _ in range(5):
        asking = asyncio.create_task(ask(database))
        for _ in range(2):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        assert pool_of(database).checkedout() == 0
    assert await ask(database) == 1


async def test_connection_in_use_survives_that_all_others_are_closed(database: Database) -> None:
    async with database.reading() as session:
        assert await session.scalar(ONE) == 1
        await database.dispose()
        assert await session.scalar(ONE) == 1
        held = held_by(session)
    assert await ask(database) == 1
    assert await driver_of(database) is not held
    await held.close()
