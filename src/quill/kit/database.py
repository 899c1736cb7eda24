"""The application database: one engine, sessions for reading and for writing, on SQLite or PostgreSQL.

Reads run in autocommit, so a read costs no transaction. Writes begin by themselves at the first statement and are
committed by whoever opened the session. SQLite has one writer at a time: writers of this process queue in order on a
lock (SQLite's own waiting is a lottery), writers of other processes on the busy timeout. All waiting is bounded: who
cannot be served is told so, and the next one is not kept waiting by those before.
"""

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.util import await_only

from quill.kit import clock, pools, sqlite
from quill.kit.direct import Direct
from quill.kit.observing import WriterWaited, tell
from quill.kit.sessions import LateSession, OneStatementSession, ReadingSession

WAIT_SECONDS = 5.0
"""How long a caller waits for a connection; then, on SQLite, for the writers before it and for another program's write.

Each of these by itself, so a caller is refused after three times as long at the latest.
"""
PING_SECONDS = 1.0
"""How long whoever asks how SQLite is waits for another's write."""
STATEMENT_SECONDS = 10.0
"""How long a statement may take on PostgreSQL while somebody waits for an answer; jobs have no such bound."""

PLANNING = {"random_page_cost": "1.1", "jit": "off"}
"""How PostgreSQL plans for us: rows are on solid-state disks or in memory, where its default of 4 stands for turning
ones, and statements are too short to be worth compiling (PostgreSQL, 20.7 Query Planning)."""

_MISTAKES = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.NotSupportedError)
"""What a database says of a statement that is wrong."""
_OUTAGES = ("08", "28", "3D", "53", "57P", "58")
"""Beginnings of the SQLSTATEs with which PostgreSQL ends or refuses a connection, or cannot work at all.

Source: PostgreSQL, Appendix A: connection exceptions, refused sign-ins, no such database, insufficient resources,
shutdown, crash and start, trouble with its disk.
"""

_HOLDS_WRITER_LOCK = "quill_holds_writer_lock"
_IS_READING = "quill_is_reading"


class UtcDateTime(sa.types.TypeDecorator[datetime.datetime]):
    """An aware UTC instant with microseconds; kept as ``timestamptz`` on PostgreSQL and as sortable text on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Refuse a naive instant, which would silently mean the machine's own time zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("An instant without a time zone reached the database.")
        value = value.astimezone(datetime.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """Leave PostgreSQL's as they are: its driver returns instants in aware UTC."""
        return None if dialect.name == "postgresql" else super().result_processor(dialect, coltype)

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Return the instant as aware UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


class Base(DeclarativeBase):
    """Parent of every table; constraint names follow one convention so that migrations can name them."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime.datetime: UtcDateTime(), str: sa.Text()}


class Database:
    """The application database behind a URL.

    Args:
        url: ``sqlite+aiosqlite:///…`` or ``postgresql+asyncpg://…``.
        pool_size: connections for ordinary times; as many again may be opened for a burst. What is open is kept.
        statement_seconds: how long a statement may take on PostgreSQL; as long as it likes when ``None``.
    """

    def __init__(self, url: str, *, pool_size: int = 10, statement_seconds: float | None = None) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        connect_args: dict[str, Any] = {"timeout": WAIT_SECONDS}
        if self.is_sqlite:
            connect_args["async_creator_fn"] = sqlite.connect
        else:
            connect_args["command_timeout"] = statement_seconds
            connect_args["server_settings"] = PLANNING
        self.engine: AsyncEngine = create_async_engine(
            parsed,
            poolclass=pools.Pool,
            # Those of a burst are kept: opening and closing one for each request would cost more than answering it.
            pool_size=2 * pool_size,
            max_overflow=0,
            pool_timeout=WAIT_SECONDS,
            connect_args=connect_args,
            # A statement's parameters are patient data: they must not appear in exception texts or logs.
            hide_parameters=True,
        )
        if not self.is_sqlite:
            event.listen(self.engine.sync_engine.pool, "checkout", pools.look_at)
        if self.is_sqlite:
            self._writers = _Writers(self.engine)
            self._autocommit = self.engine.execution_options(**{_IS_READING: True})
        else:
            self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT", **{_IS_READING: True})

        self._direct = Direct(self.engine)

    def reading(self) -> AsyncSession:
        """Open a session whose statements see the newest committed state and cost no transaction."""
        return ReadingSession(self._autocommit, self._direct)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session that begins a write transaction at its first statement; the opener commits or rolls back."""
        async with LateSession(self.engine, self._direct) as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Open a session that commits when the block ends well and rolls back when it does not."""
        async with self.session() as session:
            try:
                yield session
                await session.commit()
            except BaseException:
                await session.rollback()
                raise

    def one_statement(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session for one statement that writes: durable when it has been executed, or not done at all.

        PostgreSQL needs no transaction around a single statement, which saves two trips to the server; to SQLite goes
        the whole transaction at once.
        """
        return self._one_statement_on_sqlite() if self.is_sqlite else self.reading()

    @asynccontextmanager
    async def _one_statement_on_sqlite(self) -> AsyncIterator[AsyncSession]:
        async with OneStatementSession(self.engine, self._direct, self._writers.turn) as session:
            yield session
            if session.in_transaction():
                await session.commit()

    def is_reader(self, session: AsyncSession) -> bool:
        """Tell whether a session came from ``reading``."""
        return isinstance(session, ReadingSession)

    async def let_go(self, session: AsyncSession) -> None:
        """Give a reading session's connection back until its next statement; a transaction that was begun is kept.

        For whoever is about to wait for somebody else: connections are few, and without this one service that hangs
        would take them all.
        """
        if self.is_reader(session):
            await session.close()

    async def ping(self) -> None:
        """Return when the database answers and can be written to; raises what the driver raises.

        Nothing can be done without writing, since reading leaves an audit row.
        """
        async with self._autocommit.connect() as connection:
            if self.is_sqlite:
                await connection.run_sync(_write_nothing_new)
            else:
                await connection.execute(sa.text("SELECT 1"))

    async def current_time(self) -> datetime.datetime:
        """Return what time it is for the database; raises what the driver raises."""
        async with self.reading() as session:
            if not self.is_sqlite:
                there: datetime.datetime = (await session.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
                return there
            # julianday counts days, and 1970 began in the middle of one.
            seconds = await session.scalar(sa.text("SELECT (julianday('now') - 2440587.5) * 86400.0"))
            return datetime.datetime.fromtimestamp(float(seconds or 0), datetime.UTC)

    async def dispose(self) -> None:
        """Close every connection; the next use opens new ones."""
        await self.engine.dispose()
        if self.is_sqlite:
            self._writers.start_anew()


def is_outage(error: sa.exc.SQLAlchemyError) -> bool:
    """Tell whether the database did not answer, as against refusing a statement for what it says.

    The driver for PostgreSQL has a plain error for most of what a server says when it goes down or comes up; only the
    SQLSTATE tells it from a statement of ours that makes no sense.
    """
    if not isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.TimeoutError)
    state = getattr(error.orig, "sqlstate", None) or ""
    if error.connection_invalidated or state.startswith(_OUTAGES):
        return True
    # Without a SQLSTATE, whatever is said but that a statement is wrong means that the work cannot be done just now.
    return not isinstance(error, _MISTAKES) and (not state or isinstance(error, sa.exc.OperationalError))


def _write_nothing_new(connection: Connection) -> None:
    """Write a number in the file's head that nobody uses, as it is; a full disk refuses that, and so does a lock."""
    number = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {PING_SECONDS * 1000:.0f}")
    try:
        connection.exec_driver_sql(f"PRAGMA user_version = {int(number)}")
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {WAIT_SECONDS * 1000:.0f}")


class _Writers:
    """The queue of this process's writers of one SQLite file."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._turn = asyncio.Lock()
        event.listen(engine.sync_engine, "begin", self._begin)
        # The turn ends only after the database has really ended the transaction: the commit and rollback events fire
        # before the driver acts, so the release waits for the connection's return to the pool.
        event.listen(engine.sync_engine.pool, "checkin", self._release)
        event.listen(engine.sync_engine.pool, "invalidate", self._release)

    def start_anew(self) -> None:
        """Forget the queue, once nobody is connected any more; the next event loop brings its own."""
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn and keep it to the end of the block."""
        turn = self._turn
        await self._await_turn()
        try:
            yield
        finally:
            turn.release()

    def _begin(self, connection: Connection) -> None:
        if connection.get_execution_options().get(_IS_READING):
            return
        await_only(self._await_turn())
        try:
            # Taking the write lock now, not at the first write, is what makes reading and then writing safe.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except BaseException:
            self._turn.release()
            raise
        connection.info[_HOLDS_WRITER_LOCK] = self._turn

    async def _await_turn(self) -> None:
        began = clock.monotonic_seconds()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise sa.exc.TimeoutError("Too many writers wait already.") from error
        finally:
            tell(WriterWaited(clock.monotonic_seconds() - began))

    def _release(self, _connection: object, record: Any, _error: object = None) -> None:
        turn: asyncio.Lock | None = record.info.pop(_HOLDS_WRITER_LOCK, None)
        if turn is not None:
            turn.release()
