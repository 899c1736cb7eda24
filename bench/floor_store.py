"""The floor's databases: asyncpg's own pool, or a few aiosqlite connections, and nothing in between."""

import asyncio
import datetime
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiosqlite
import asyncpg

CONNECTIONS = 10
"""As many as Quill keeps open by default."""

Rows = Sequence[Any]


class Session(Protocol):
    """Runs statements on one connection."""

    async def fetch(self, sql: str, *values: Any) -> Rows:
        """Return the rows of a statement."""
        ...


class Store(Protocol):
    """A database."""

    dialect: str

    async def fetch(self, sql: str, *values: Any) -> Rows:
        """Return the rows of a statement that stands by itself."""
        ...

    def writing(self) -> Any:
        """Open a session whose statements are committed together."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class PostgresStore:
    """PostgreSQL by asyncpg."""

    dialect = "postgresql"

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str) -> "PostgresStore":
        """Connect."""
        plain = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        return cls(await asyncpg.create_pool(plain, min_size=CONNECTIONS, max_size=2 * CONNECTIONS))

    async def fetch(self, sql: str, *values: Any) -> Rows:
        """Return the rows of a statement that stands by itself."""
        rows: Rows = await self._pool.fetch(sql, *values)
        return rows

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Session]:
        """Open a session whose statements are committed together."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()


class SqliteStore:
    """SQLite by aiosqlite, with the durability Quill asks of it; writers queue, as SQLite has one at a time."""

    dialect = "sqlite"

    def __init__(self, connections: Sequence[aiosqlite.Connection]) -> None:
        self._writer, *readers = connections
        self._all = connections
        self._free: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        for reader in readers:
            self._free.put_nowait(reader)
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, file: str) -> "SqliteStore":
        """Connect."""
        connections = []
        for _ in range(CONNECTIONS):
            connection = await aiosqlite.connect(file, isolation_level=None, timeout=30)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
                await connection.execute(f"PRAGMA {pragma}")
            connections.append(connection)
        return cls(connections)

    async def fetch(self, sql: str, *values: Any) -> Rows:
        """Return the rows of a statement that stands by itself."""
        connection = await self._free.get()
        try:
            return await _SqliteSession(connection).fetch(sql, *values)
        finally:
            self._free.put_nowait(connection)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Session]:
        """Open a session whose statements are committed together."""
        async with self._turn:
            await self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteSession(self._writer)
            except BaseException:
                await self._writer.execute("ROLLBACK")
                raise
            await self._writer.execute("COMMIT")

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._all:
            await connection.close()


class _SqliteSession:
    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *values: Any) -> Rows:
        """Return the rows of a statement."""
        rows = await self._connection.execute_fetchall(_in_sqlite(sql), [_kept(value) for value in values])
        return list(rows)


_PARAMETER = re.compile(r"\$(\d)")


def _in_sqlite(sql: str) -> str:
    return _PARAMETER.sub(r"?\1", sql).replace("string_agg(", "group_concat(")


def _kept(value: Any) -> Any:
    """Return a value as Quill's tables hold it in SQLite."""
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return value


async def open_store(url: str) -> Store:
    """Connect to the database that Quill's settings name."""
    if url.startswith("sqlite"):
        return await SqliteStore.open(url.partition(":///")[2])
    return await PostgresStore.open(url)
