"""The pool of connections, from which a free one can be taken without SQLAlchemy's work for each taking.

A reader takes a connection, asks three short questions and gives it back. Greenlets, a finaliser and a rollback of what
was never begun made that a good part of its time. What is taken here needs none of them: it is in autocommit, and its
taker gives it back whatever happens. Connecting, waiting for a free connection, asking an idle one whether it works and
replacing a broken one stay SQLAlchemy's.
"""

import asyncio
from collections import deque
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from quill.kit import clock

IDLE_SECONDS = 30.0
"""After so long without use a connection to PostgreSQL is asked whether it still works: what lies between may have
forgotten it without a word."""

_USED_AT = "quill_used_at"


class Taken:
    """A connection for statements in autocommit, to be given back by whoever took it.

    Attributes:
        dbapi_connection: as SQLAlchemy adapted it; ``None`` once it was given back or is no good any more.
        driver_connection: the driver's own.
    """

    __slots__ = ("_connection_record", "_pool", "dbapi_connection", "driver_connection")

    def __init__(self, pool: "Pool", record: Any) -> None:
        self._pool = pool
        self._connection_record = record
        self.dbapi_connection = record.dbapi_connection
        self.driver_connection = record.driver_connection

    @property
    def is_valid(self) -> bool:
        """Tell whether it can be used."""
        return self.dbapi_connection is not None

    def close(self) -> None:
        """Give it back."""
        if self.is_valid:
            self.dbapi_connection = None
            self._connection_record.checkin(_fairy_was_created=False)

    def invalidate(self, error: BaseException | None = None) -> None:
        """Have it replaced by a new one, and give its place back."""
        try:
            self._connection_record.invalidate(error)
        finally:
            self.close()


class Pool(AsyncAdaptedQueuePool):
    """A pool that hands out what was given back last, which the database still has everything at hand for.

    It keeps every connection it has made, and must be given no overflow. Whoever waits for a connection gets the next
    that is given back, before anybody who comes later.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # In place of SQLAlchemy's queue, whose locks and wake-up calls one event loop has no use for.
        self._free: list[ConnectionPoolEntry] = []
        self._waiting: deque[asyncio.Future[ConnectionPoolEntry]] = deque()

    def take(self) -> Taken | None:
        """Return a free connection that is known to work; ``None`` when one has to be made, asked or waited for."""
        if not self._free:
            return None
        record: Any = self._free.pop()
        try:
            if not record._is_hard_or_soft_invalidated() and not _is_idle(record):
                taken = Taken(self, record)
                self.dispatch.checkout(taken.dbapi_connection, record, taken)
                return taken
        except sa.exc.DisconnectionError:
            pass
        # The next to take one the usual way gets this one, and has it replaced.
        self._do_return_conn(record)
        return None

    def checkedin(self) -> int:
        """Return how many connections are free."""
        return len(self._free)

    def checkedout(self) -> int:
        """Return how many connections are in use."""
        return self.size() + self.overflow() - len(self._free)

    def dispose(self) -> None:
        """Close the connections that are free."""
        free, self._free = self._free, []
        for record in free:
            self._pool.put_nowait(record)
        super().dispose()

    def _do_get(self) -> ConnectionPoolEntry:
        if self._free:
            return self._free.pop()
        if self._overflow < self._max_overflow:
            return super()._do_get()
        waiting: asyncio.Future[ConnectionPoolEntry] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await_only(asyncio.wait({waiting}, timeout=self._timeout))
        except BaseException:
            if not waiting.cancel():
                self._do_return_conn(waiting.result())
            raise
        if waiting.cancel():
            raise sa.exc.TimeoutError("Every connection to the database is in use.")
        return waiting.result()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(record)
                return
        self._free.append(record)

    def lost(self, connection: Taken | PoolProxiedConnection, error: BaseException) -> None:
        """Have a connection replaced that broke, and those made before it: what broke it broke them as well."""
        self._invalidate(cast("PoolProxiedConnection", connection), error)


def look_at(connection: Any, record: ConnectionPoolEntry, _taken: object) -> None:
    """Have a connection to PostgreSQL that is broken replaced by a new one before it is used.

    One that the server closed is known to be closed, because the event loop has heard of it, and costs no question.
    """
    is_idle = _is_idle(record)
    record.info[_USED_AT] = clock.monotonic_seconds()
    if connection.driver_connection.is_closed():
        raise sa.exc.InvalidatePoolError
    if is_idle:
        try:
            connection.ping()
        except connection.dbapi.Error as error:
            raise sa.exc.InvalidatePoolError from error


def _is_idle(record: ConnectionPoolEntry) -> bool:
    now = clock.monotonic_seconds()
    used_at: float = record.info.get(_USED_AT, now)
    return now - used_at > IDLE_SECONDS
