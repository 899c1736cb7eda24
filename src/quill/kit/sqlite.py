"""SQLite for asyncio with one change of threads for a statement.

The driver's own cursors hand each step to the connection's thread by itself: making the cursor, executing, fetching,
closing. Each is a wait for two threads to meet, and four of them cost more than most statements. Here the steps go
over together, with the first rows on the way back.
"""

import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self, cast

import aiosqlite
from aiosqlite.context import contextmanager

from quill.kit import clock

FIRST_ROWS = 200
"""Rows that come back with the execution; a statement with fewer needs no second step, one with more stays a stream."""

RETRY_SECONDS = 0.01
"""Between two tries to change a file that another process holds."""

PRAGMAS = ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY")


def connect(database: str, **options: Any) -> aiosqlite.Connection:
    """Return a connection to be awaited; it begins no transaction by itself.

    Args:
        database: path of the file.
        options: as for :func:`sqlite3.connect`.
    """

    def open_file() -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(database, isolation_level=None, **options)
        try:
            _keep_a_log(connection, options.get("timeout", 0.0))
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection

    made: aiosqlite.Connection = Connection(open_file, FIRST_ROWS)
    # A program that ends in the middle of something must not wait for ever for this thread.
    made._thread.daemon = True
    return made


def _keep_a_log(connection: sqlite3.Connection, patience_seconds: float) -> None:
    """Have the file written by way of a write-ahead log, which outlasts this connection.

    SQLite does not wait by itself for another process that does the same at this moment, or closes the file as its
    last.
    """
    deadline = clock.monotonic_seconds() + patience_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            # The low byte is the primary code (SQLite, Result and Error Codes).
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or clock.monotonic_seconds() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


class Connection(aiosqlite.Connection):
    """A connection whose cursors work in one step, and which does not end transactions that were never begun."""

    _steps_under_way = 0

    async def fetch(self, statement: str, *parameters: Any) -> list[Any]:
        """Return every row of a statement, in one step."""
        return cast("list[Any]", await self._execute(self._fetch, statement, parameters))

    async def change(self, statement: str, *parameters: Any) -> int:
        """Execute a statement that returns no rows, and return how many it changed."""
        return cast("int", await self._execute(self._change, statement, parameters))

    async def change_many(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Execute a statement that returns no rows for each set of parameters."""
        await self._execute(self._change_many, statement, parameters)

    async def write(self, changes: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> int:
        """Execute statements, each for its sets of parameters, in a transaction of their own, in one step.

        Those after the first are executed only when the first has changed something.

        Returns:
            How many rows the first has changed; all are durable.
        """
        return cast("int", await self._execute(self._write, changes))

    # These run in the connection's thread, while the caller waits.

    def _fetch(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        with contextlib.closing(self._conn.execute(statement, parameters)) as cursor:
            return cursor.fetchall()

    def _change(self, statement: str, parameters: Sequence[Any]) -> int:
        with contextlib.closing(self._conn.execute(statement, parameters)) as cursor:
            return cursor.rowcount

    def _change_many(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        self._conn.executemany(statement, parameters).close()

    def _write(self, changes: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> int:
        self._conn.execute("BEGIN IMMEDIATE").close()
        try:
            first, *others = changes
            with contextlib.closing(self._conn.executemany(*first)) as cursor:
                changed = cursor.rowcount
            for statement, parameters in others if changed else ():
                self._conn.executemany(statement, parameters).close()
            self._conn.execute("COMMIT").close()
        except BaseException:
            # Some errors, a full disk for one, have SQLite do so by itself.
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK").close()
            raise
        return changed

    @contextmanager
    async def cursor(self) -> aiosqlite.Cursor:
        """Return a cursor; nothing reaches the thread before it executes something."""
        return cast("aiosqlite.Cursor", Cursor(self))

    async def commit(self) -> None:
        """Commit what was begun, if anything was."""
        if self._may_be_in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        """Roll back what was begun, if anything was."""
        if self._may_be_in_transaction:
            await super().rollback()

    @property
    def _may_be_in_transaction(self) -> bool:
        # A step whose caller was cancelled may still begin one.
        return self._steps_under_way > 0 or self.in_transaction

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._steps_under_way += 1
        try:
            result = await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        except Exception:
            self._steps_under_way -= 1
            raise
        self._steps_under_way -= 1
        return result


class Cursor:
    """What SQLAlchemy uses of a cursor of the driver; good for one statement after another."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: sqlite3.Cursor | None = None
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        """Execute a statement and take its first rows."""
        await self._connection._execute(self._run, False, statement, parameters)
        return self

    async def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> Self:
        """Execute a statement for each set of parameters."""
        await self._connection._execute(self._run, True, statement, parameters)
        return self

    async def fetchone(self) -> Any:
        """Return the next row; ``None`` after the last."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return as many rows; fewer at the end."""
        wanted = self.arraysize if size is None else size
        if self._open is not None and len(self._rows) < wanted:
            await self._connection._execute(self._take, self._open, wanted - len(self._rows))
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    async def fetchall(self) -> list[Any]:
        """Return every row that is left."""
        if self._open is not None:
            await self._connection._execute(self._take, self._open, None)
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the rows that are left."""
        while rows := await self.fetchmany(FIRST_ROWS):
            for row in rows:
                yield row

    async def close(self) -> None:
        """Give up the rows that are left."""
        self._rows.clear()
        if self._open is not None:
            await self._connection._execute(self._end, self._open)

    # What follows runs in the connection's thread, while the caller waits.

    def _run(self, is_many: bool, statement: str, parameters: Sequence[Any]) -> None:
        if self._open is not None:
            self._end(self._open)
        cursor = self._connection._conn.cursor()
        self._rows.clear()
        (cursor.executemany if is_many else cursor.execute)(statement, parameters)
        self._open = cursor
        self.description, self.lastrowid = cursor.description, cursor.lastrowid
        self._take(cursor, FIRST_ROWS)

    def _take(self, cursor: sqlite3.Cursor, size: int | None) -> None:
        rows: list[Any] = []
        if self.description is not None:
            rows = cursor.fetchall() if size is None else cursor.fetchmany(size)
        self._rows.extend(rows)
        self.rowcount = cursor.rowcount
        if size is None or len(rows) < size:
            self._end(cursor)

    def _end(self, cursor: sqlite3.Cursor) -> None:
        cursor.close()
        self._open = None
