"""Statements that are executed again and again, handed to the driver without the work that is the same each time.

Between a statement and its rows SQLAlchemy checks, looks up, builds contexts and passes through greenlets; for a
statement of a tenth of a millisecond that is more than the database takes. A statement that is executed a second time,
the very same object, is made ready once: its text, the order of its values, and what its types do to values and rows.
From then on the driver gets it as it is. Types, the pool, the errors and what becomes of a broken or an abandoned
connection stay SQLAlchemy's.

Whatever is not known here to be safe goes the usual way: objects of the mapper, values made by Python for a column, a
missing value. So does everything while somebody listens to statements, as traces do: who listens hears all of them.
"""

import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

import sqlalchemy as sa
from sqlalchemy.engine import Dialect, IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from quill.kit.pools import Pool, Taken

Processor = Callable[[Any], Any]
Params: TypeAlias = Mapping[str, Any]
Executable: TypeAlias = tuple[str, list[Any]]
"""A text with the driver's own marks, and the values in the order of the marks."""
Pooled: TypeAlias = Taken | PoolProxiedConnection
"""A connection of the pool, taken by ourselves or by SQLAlchemy."""

_KINDS = (sa.SelectBase, sa.UpdateBase)
_DEPENDING = (sa.Numeric, sa.Float)
"""Types that do something to a value only for some of the types the database may give it."""

MOST_TEXTS = 100
"""How many texts one statement is kept with, each for lists of other lengths; further ones go the usual way."""


class Changed(IteratorResult[*tuple[Any, ...]]):
    """The result of a statement that returns no rows."""

    def __init__(self, rowcount: int) -> None:
        super().__init__(SimpleResultMetaData([]), iter(()))
        self.rowcount = rowcount


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement's text for lists of certain lengths.

    Attributes:
        marks: the name of the value for each mark, and which of its elements if it is a list.
        processors: what their types do to some of them, by the number of the mark.
    """

    text: str
    marks: tuple[tuple[str, int | None], ...]
    processors: tuple[tuple[int, Processor], ...]

    def filled(self, params: Params) -> Executable:
        """Return the text and the values for the driver; raises ``KeyError`` for a missing one."""
        values = [params[name] if place is None else params[name][place] for name, place in self.marks]
        for number, process in self.processors:
            values[number] = process(values[number])
        return self.text, values


class Ready:
    """A statement as the driver takes it, whatever values it is executed with.

    Args:
        compiled: the statement, by SQLAlchemy.
        columns: of the rows it returns, if it does.
    """

    def __init__(self, compiled: Any, columns: Sequence[sa.ColumnElement[Any]]) -> None:
        self._compiled = compiled
        self._required = frozenset(bound.key for bound in compiled.binds.values() if bound.required)
        self._defaults = {bound.key: bound.effective_value for bound in compiled.binds.values() if not bound.required}
        self._lists = tuple(bound.key for bound in compiled.post_compile_params)
        self._texts: dict[tuple[int, ...], _Text] = {}
        self.returns_rows = bool(columns)
        self._keys = SimpleResultMetaData([str(column.key) for column in columns])
        processors = [_implementation(column, compiled).result_processor(compiled.dialect, None) for column in columns]
        self._processors = tuple((place, process) for place, process in enumerate(processors) if process is not None)

    def with_values(self, params: Params) -> Executable | None:
        """Return the text and the values for the driver; ``None`` when SQLAlchemy has to see to it.

        Such as when a value is missing, which it tells best.
        """
        if self._defaults:
            params = {**self._defaults, **params}
        try:
            lengths = tuple([len(params[name]) for name in self._lists]) if self._lists else ()
            text = self._texts.get(lengths) or self._new_text(lengths, params)
            return None if text is None else text.filled(params)
        except KeyError:
            return None

    def _new_text(self, lengths: tuple[int, ...], params: Params) -> _Text | None:
        if len(self._texts) >= MOST_TEXTS or not self._required <= params.keys():
            return None
        compiled = self._compiled
        expanded = compiled.construct_expanded_state(params)
        elements = {
            element: (name, place)
            for name, found in expanded.parameter_expansion.items()
            for place, element in enumerate(found)
        }
        marks = []
        processors = []
        for number, mark in enumerate(expanded.positiontup):
            name, place = elements.get(mark, (mark, None))
            bound = compiled.binds[name]
            marks.append((bound.key, place))
            process = _implementation(bound, compiled).bind_processor(compiled.dialect)
            if process is not None:
                processors.append((number, process))
        self._texts[lengths] = _Text(expanded.statement, tuple(marks), tuple(processors))
        return self._texts[lengths]

    def result(self, records: Iterable[Sequence[Any]]) -> sa.Result[*tuple[Any, ...]]:
        """Return what the driver returned as every other result is."""
        rows = map(self._processed, records) if self._processors else map(tuple, records)
        return IteratorResult(self._keys, iter(list(rows)))

    def _processed(self, record: Sequence[Any]) -> tuple[Any, ...]:
        row = list(record)
        for place, process in self._processors:
            row[place] = process(row[place])
        return tuple(row)


def _implementation(typed: Any, compiled: Any) -> Any:
    return typed.type.dialect_impl(compiled.dialect)


class Direct:
    """The way past SQLAlchemy's execution to one database.

    Args:
        engine: of the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._dialect = engine.sync_engine.dialect
        self._is_sqlite = self._dialect.name == "sqlite"
        # By the statement itself, which is never changed: SQLAlchemy makes a new one for every addition.
        self._known: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], Ready | None]] = weakref.WeakKeyDictionary()

    def ready(self, statement: Any, params: Params) -> Ready | None:
        """Return a statement as the driver takes it; ``None`` for one that is new or goes the usual way."""
        if self._engine.sync_engine.dispatch.before_cursor_execute or not isinstance(statement, _KINDS):
            return None
        known = self._known.get(statement)
        if known is None:
            self._known[statement] = {}
            return None
        # What columns an insert or an update sets depends on the names it is executed with.
        names = tuple(params) if isinstance(statement, sa.ValuesBase) else ()
        if names not in known:
            known[names] = _made_ready(statement, names, self._dialect) if len(known) < MOST_TEXTS else None
        return known[names]

    async def connect(self) -> Pooled:
        """Return a connection of the pool that is in no transaction, to be handed to ``give_back``.

        Raises:
            SQLAlchemyError: as SQLAlchemy would raise it; none is free, or the database lets nobody in.
            OSError: it cannot be reached.
        """
        taken = self._pool.take()
        if taken is not None:
            return taken
        dbapi: Any = self._dialect.loaded_dbapi
        try:
            return await self._engine.raw_connection()
        except dbapi.Error as error:
            raise self._told(None, error, is_broken=self._dialect.is_disconnect(error, None, None)) from error

    async def give_back(self, connection: Pooled) -> None:
        """Give a connection back that is in no transaction."""
        if isinstance(connection, Taken):
            connection.close()
        else:
            await greenlet_spawn(connection.close)

    @property
    def _pool(self) -> Pool:
        # Another one after each time that every connection was closed.
        return cast("Pool", self._engine.sync_engine.pool)

    async def begin(self, connection: Pooled) -> None:
        """Have the transaction begun that SQLAlchemy begins with its first statement; in autocommit there is none.

        Raises:
            DBAPIError: as ``execute``.
        """
        adapted: Any = connection.dbapi_connection
        if not self._is_sqlite and adapted._transaction is None:
            await self._done(connection, "BEGIN", adapted._start_transaction())

    async def execute(self, connection: Pooled, ready: Ready, executable: Executable) -> sa.Result[*tuple[Any, ...]]:
        """Execute a statement and return its rows, or how many it changed.

        Raises:
            DBAPIError: as SQLAlchemy would raise it; a connection that is no good any more is invalidated.
        """
        text, values = executable
        driver: Any = connection.driver_connection
        if ready.returns_rows:
            return ready.result(await self._done(connection, text, driver.fetch(text, *values)))
        if self._is_sqlite:
            return Changed(await self._done(connection, text, driver.change(text, *values)))
        # ``UPDATE 3``, ``INSERT 0 3`` (PostgreSQL, 54.7 Message Formats, CommandComplete).
        status: str = await self._done(connection, text, driver.execute(text, *values))
        return Changed(int(status.rpartition(" ")[2]))

    async def execute_many(self, connection: Pooled, executables: Sequence[Executable]) -> None:
        """Execute one statement with several sets of values, all or none of them.

        Raises:
            DBAPIError: as ``execute``.
        """
        text = executables[0][0]
        driver: Any = connection.driver_connection
        change_many = driver.change_many if self._is_sqlite else driver.executemany
        await self._done(connection, text, change_many(text, [values for _, values in executables]))

    async def write(self, connection: Pooled, changes: Sequence[Sequence[Executable]]) -> int:
        """Execute statements on SQLite, each with one or several sets of values, in a transaction of their own.

        Those after the first are executed only when the first has changed something.

        Returns:
            How many rows the first has changed.

        Raises:
            DBAPIError: as ``execute``; nothing was changed.
        """
        driver: Any = connection.driver_connection
        texts = [(executables[0][0], [values for _, values in executables]) for executables in changes]
        changed: int = await self._done(connection, texts[0][0], driver.write(texts))
        return changed

    async def _done(self, connection: Pooled, text: str, work: Awaitable[Any]) -> Any:
        """Return what the driver returns, or raise what SQLAlchemy would."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - translated and raised
            await self._fail(connection, text, error)
        except BaseException as error:
            # The caller was cancelled, and what the connection is in the middle of nobody knows.
            await greenlet_spawn(connection.invalidate, error)
            raise

    async def _fail(self, connection: Pooled, text: str, error: Exception) -> NoReturn:
        dbapi: Any = self._dialect.loaded_dbapi
        adapted: Any = connection.dbapi_connection
        try:
            adapted._handle_exception(error)
        except dbapi.Error as translated:
            is_broken = self._dialect.is_disconnect(translated, adapted, None)
            if is_broken:
                await greenlet_spawn(self._pool.lost, connection, translated)
            raise self._told(text, translated, is_broken=is_broken) from translated
        raise error

    def _told(self, text: str | None, error: Exception, *, is_broken: bool) -> BaseException:
        """Return an error of the driver as SQLAlchemy tells it."""
        dbapi: Any = self._dialect.loaded_dbapi
        return sa.exc.DBAPIError.instance(
            text,
            None,
            error,
            dbapi.Error,
            hide_parameters=True,
            connection_invalidated=is_broken,
            dialect=self._dialect,
        )


def _made_ready(statement: Any, names: tuple[str, ...], dialect: Dialect) -> Ready | None:
    """Return a statement as the driver takes it; ``None`` when more has to be done than handing it over."""
    if statement._propagate_attrs:
        # The mapper has a part in it.
        return None
    columns = list(statement.exported_columns)
    if any(isinstance(column.type, _DEPENDING) for column in columns):
        return None
    options: dict[str, Any] = {}
    if isinstance(statement, sa.ValuesBase):
        # For many rows, since for one SQLAlchemy would ask for the key that the database has given.
        options = {"column_keys": list(names), "for_executemany": not columns}
    compiled: Any = statement.compile(dialect=dialect, **options)
    is_plain = (
        not compiled.insert_prefetch
        and not compiled.update_prefetch
        and len(compiled._result_columns) == len(columns)
        and not any(isinstance(bound.type, sa.types.TupleType) for bound in compiled.post_compile_params)
    )
    return Ready(compiled, columns) if is_plain else None
