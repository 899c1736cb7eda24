"""Statements on SQLite: one change of threads each, and nothing lost or left open by it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from quill.kit import database as kit_database
from quill.kit import sqlite
from quill.kit.database import Database

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("connections_end")]

NUMBERS = sa.Table(
    "number", sa.MetaData(), sa.Column("n", sa.Integer, primary_key=True), sa.Column("text", sa.Text, unique=True)
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'numbers.sqlite3'}", pool_size=1)
    async with database.engine.begin() as connection:
        await connection.run_sync(NUMBERS.metadata.create_all)
    yield database
    await database.dispose()


async def fill(connection: AsyncConnection, count: int) -> None:
    await connection.execute(sa.insert(NUMBERS), [{"n": n, "text": str(n)} for n in range(count)])


async def count(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(sa.select(sa.func.count()).select_from(NUMBERS)) or 0


@pytest.mark.parametrize("size", [0, 1, sqlite.FIRST_ROWS - 1, sqlite.FIRST_ROWS, sqlite.FIRST_ROWS + 1, 1000])
async def test_every_row_comes_once_and_in_order_whatever_the_way(database: Database, size: int) -> None:
    async with database.engine.begin() as connection:
        if size:
            await fill(connection, size)
    statement = sa.select(NUMBERS.c.n).order_by(NUMBERS.c.n)
    async with database.reading() as session:
        assert (await session.scalars(statement)).all() == list(range(size))
        assert [n async for n in await session.stream_scalars(statement)] == list(range(size))
        first = (await session.execute(statement)).first()
        assert first == ((0,) if size else None)


async def test_streams_that_are_left_early_block_nobody(database: Database) -> None:
    async with database.engine.begin() as connection:
        await fill(connection, 1000)
        async with connection.stream(sa.select(NUMBERS.c.n)) as stream:
            assert await stream.first() is not None
    async with database.writing() as session:
        await session.execute(sa.delete(NUMBERS))
    assert await count(database) == 0


async def test_changes_say_how_many_rows_and_which(database: Database) -> None:
    async with database.writing() as session:
        made = await session.scalars(
            sa.insert(NUMBERS).returning(NUMBERS.c.n, sort_by_parameter_order=True),
            [{"n": n, "text": str(n)} for n in range(500)],
        )
        assert made.all() == list(range(500))
        changed = await session.execute(sa.update(NUMBERS).where(NUMBERS.c.n < 300).values(text=None))
        assert changed.rowcount == 300  # type: ignore[attr-defined]
        gone = await session.scalars(sa.delete(NUMBERS).where(NUMBERS.c.n >= 100).returning(NUMBERS.c.n))
        assert len(gone.all()) == 400
    assert await count(database) == 100


async def test_refused_statement_leaves_the_rest_of_the_transaction(database: Database) -> None:
    async with database.writing() as session:
        await session.execute(sa.insert(NUMBERS).values(n=1, text="one"))
        with pytest.raises(sa.exc.IntegrityError):
            async with session.begin_nested():
                await session.execute(sa.insert(NUMBERS).values(n=2, text="one"))
        await session.execute(sa.insert(NUMBERS).values(n=3, text="three"))
    assert await count(database) == 2


async def test_transaction_rolled_back_leaves_nothing(database: Database) -> None:
    async with database.session() as session:
        await session.execute(sa.insert(NUMBERS).values(n=1))
        await session.rollback()
    async with database.session() as session:
        await session.execute(sa.insert(NUMBERS).values(n=2))
    assert await count(database) == 0


INSERT = sa.insert(NUMBERS)


@pytest.mark.parametrize("way", ["writing", "one_statement"])
async def test_caller_cancelled_at_any_moment_leaves_no_transaction_open(database: Database, way: str) -> None:
    async def write(n: int) -> None:
        async with getattr(database, way)() as session:
            await session.execute(INSERT, {"n": n})

    for n in range(30):
        task = asyncio.create_task(write(n))
        for _ in range(n % 15):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    # Another process, so to speak: it would wait for the lock of whoever left one behind.
    other = Database(database.engine.url.render_as_string(), pool_size=1)
    async with asyncio.timeout(5), other.writing() as session:
        await session.execute(sa.insert(NUMBERS).values(n=1000))
    await other.dispose()
    await write(1001)


async def test_one_statement_waits_for_its_turn_and_is_refused_when_that_takes_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(n: int) -> None:
        async with database.one_statement() as session:
            await session.execute(INSERT, {"n": n})

    for n in range(2):
        await write(n)
    async with database.session() as holder:
        await holder.execute(sa.delete(NUMBERS).where(NUMBERS.c.n == 0))
        waiting = asyncio.create_task(write(2))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await holder.rollback()
        await waiting
    monkeypatch.setattr(kit_database, "WAIT_SECONDS", 0.05)
    async with database.session() as holder:
        await holder.execute(sa.delete(NUMBERS).where(NUMBERS.c.n == 0))
        with pytest.raises(sa.exc.TimeoutError):
            await write(3)
        await holder.rollback()
    await write(4)
    assert await count(database) == 4
    assert database.engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_file_is_opened_durable_and_with_foreign_keys(database: Database) -> None:
    async with database.reading() as session:
        found = {name: await session.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys")}
        assert found == {"journal_mode": "wal", "foreign_keys": 1}
        assert await session.scalar(sa.text("PRAGMA synchronous")) == 2


async def test_a_file_that_is_no_database_is_refused_and_closed(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 100)
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'text'}")
    with pytest.raises(sa.exc.DatabaseError):
        await database.ping()
    await database.dispose()


OPENING = """
import asyncio, sys
from quill.kit import sqlite
async def main():
    for turn in range(60):
        connection = await sqlite.connect(sys.argv[1], timeout=5.0)
        await (await connection.execute(f"CREATE TABLE IF NOT EXISTS t{turn % 3} (n)")).close()
        await connection.close()
asyncio.run(main())
"""


@pytest.mark.thorough
async def test_processes_that_open_and_close_a_new_file_at_once_do_not_refuse_each_other(tmp_path: Path) -> None:
    """One in some hundred was told at once that the file was locked, whatever it was ready to wait."""
    for turn in range(4):
        command = (sys.executable, "-c", OPENING, str(tmp_path / f"{turn}.sqlite3"))
        processes = [await asyncio.create_subprocess_exec(*command) for _ in range(4)]
        assert [await process.wait() for process in processes] == [0, 0, 0, 0]
