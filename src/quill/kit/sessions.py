"""Sessions that hand statements to the driver directly where they can; all else is SQLAlchemy's ``AsyncSession``."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.util import greenlet_spawn

from quill.kit.direct import Changed, Direct, Executable, Params, Pooled, Ready

Change: TypeAlias = tuple[sa.Update, Params]
"""An update, made once, and the values it is executed with."""


class WritingSession(AsyncSession):
    """A session in whose transaction some statements go straight to the driver, in order with all others."""

    def __init__(self, engine: AsyncEngine, direct: Direct, **options: Any) -> None:
        super().__init__(engine, expire_on_commit=False, **options)
        self._direct = direct
        self._transaction: SessionTransaction | None = None
        self._in_transaction: Pooled | None = None

    async def execute(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Return the result of a statement, as ``AsyncSession.execute`` does."""
        sets = [params or {}] if params is None or isinstance(params, Mapping) else list(params)
        known = self._known(statement, sets) if sets and not options else None
        if known is None:
            return await self._execute_by_mapper(statement, params, **options)
        return await self._execute_directly(*known)

    def _known(self, statement: Any, sets: Sequence[Params]) -> tuple[Ready, list[Executable]] | None:
        """Return a statement as the driver takes it with each set of values; ``None`` when it goes the usual way."""
        ready = self._direct.ready(statement, sets[0])
        executables = _executables(ready, sets) if ready is not None else None
        return None if ready is None or executables is None else (ready, executables)

    async def scalar(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Return the first column of the first row; ``None`` without one."""
        return (await self.execute(statement, params, **options)).scalar()

    async def scalars(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Return the first column of each row."""
        return (await self.execute(statement, params, **options)).scalars()

    async def _execute_by_mapper(self, statement: Any, params: Any, **options: Any) -> Any:
        return await super().execute(statement, params, **options)

    async def _execute_directly(self, ready: Ready, executables: list[Executable]) -> Any:
        try:
            connection = await self._connection_to_use()
            if len(executables) == 1:
                return await self._direct.execute(connection, ready, executables[0])
            await self._direct.execute_many(connection, executables)
        except BaseException:
            if self._in_transaction is not None and not self._in_transaction.is_valid:
                # The transaction is lost with it, and SQLAlchemy is to say so of every statement until the rollback.
                self._in_transaction = None
                await (await self.connection()).invalidate()
            raise
        return Changed(len(executables))

    async def _connection_to_use(self) -> Pooled:
        """Return the connection of the transaction or of the savepoint, which is begun with its first statement."""
        held, transaction = self._in_transaction, self._innermost()
        if held is None or transaction is None or transaction is not self._transaction:
            taken = await greenlet_spawn(self.sync_session.connection)
            held = self._in_transaction = taken.connection
            await self._direct.begin(self._in_transaction)
            self._transaction = self._innermost()
        return held

    def _innermost(self) -> SessionTransaction | None:
        return self.sync_session.get_nested_transaction() or self.sync_session.get_transaction()


class LateSession(WritingSession):
    """A session that is SQLAlchemy's only from the first thing on that takes one, which many never ask for."""

    _autoflush = True

    def __init__(self, engine: AsyncEngine, direct: Direct) -> None:
        # SQLAlchemy's own beginning is in __getattr__.
        self._engine = engine
        self._direct = direct
        self._is_begun = False

    def __getattr__(self, name: str) -> Any:
        """Begin SQLAlchemy's session, of which something is asked for the first time."""
        if self._is_begun:
            raise AttributeError(name)
        self._is_begun = True
        super().__init__(self._engine, self._direct, autoflush=self._autoflush)
        return getattr(self, name)

    async def __aenter__(self) -> Self:
        """Return the session."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give back what it holds."""
        await self.close()

    def get_bind(self, *_: object, **__: object) -> sa.Engine:
        """Return the engine whose connections it takes."""
        return self._engine.sync_engine

    def in_transaction(self) -> bool:
        """Tell whether statements go to a connection that SQLAlchemy holds."""
        return self._is_begun and super().in_transaction()

    async def commit(self) -> None:
        """Commit what was begun, if anything was."""
        if self._is_begun:
            await super().commit()

    async def rollback(self) -> None:
        """Undo what was begun, if anything was."""
        if self._is_begun:
            await super().rollback()

    async def close(self) -> None:
        """End what SQLAlchemy began."""
        if self.in_transaction():
            await super().close()


class OneStatementSession(LateSession):
    """A session for one statement that writes to SQLite: durable when it has been executed, in one step.

    One that does not go directly begins a transaction, which the opener commits.

    Args:
        engine: of the database.
        direct: the way past SQLAlchemy.
        turn: opens the turn of this process's writers.
    """

    _autoflush = False

    def __init__(
        self, engine: AsyncEngine, direct: Direct, turn: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        super().__init__(engine, direct)
        self._turn = turn

    async def _execute_directly(self, ready: Ready, executables: list[Executable]) -> Any:
        if ready.returns_rows or self.in_transaction():
            return await super()._execute_directly(ready, executables)
        return Changed(await self._write([executables]))

    async def change_then(self, change: Change, insert: sa.Insert, rows: Sequence[Params]) -> bool:
        """Make a change and then, if it met any row, add rows: all durable, in one step, or nothing done at all."""
        update, values = change
        known, following = self._known(update, [values]), self._known(insert, rows)
        if known is not None and following is not None:
            return await self._write([known[1], following[1]]) > 0
        is_changed: bool = (await self._execute_by_mapper(update, values)).rowcount > 0
        if is_changed:
            await self._execute_by_mapper(insert, rows)
        return is_changed

    async def _write(self, changes: Sequence[Sequence[Executable]]) -> int:
        connection = await self._direct.connect()
        try:
            async with self._turn():
                return await self._direct.write(connection, changes)
        finally:
            await self._direct.give_back(connection)


class ReadingSession(LateSession):
    """A session for reading in autocommit: every statement sees the newest committed state.

    It holds one connection at most, from its first statement until it is closed.
    """

    _autoflush = False
    _own: Pooled | None = None

    async def connection(self, *args: Any, **options: Any) -> AsyncConnection:
        """Return the connection of those statements that do not go directly."""
        await self._let_go()
        return await super().connection(*args, **options)

    async def get(self, *args: Any, **options: Any) -> Any:
        """Return an object by its key, as ``AsyncSession.get`` does."""
        await self._let_go()
        return await super().get(*args, **options)

    async def stream(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Return the result of a statement row by row, as ``AsyncSession.stream`` does."""
        await self._let_go()
        return await super().stream(statement, params, **options)

    async def close(self) -> None:
        """Give the connection back; the next statement takes another."""
        await self._let_go()
        await super().close()

    async def _execute_by_mapper(self, statement: Any, params: Any, **options: Any) -> Any:
        await self._let_go()
        return await super()._execute_by_mapper(statement, params, **options)

    async def _connection_to_use(self) -> Pooled:
        if self.in_transaction():
            return await super()._connection_to_use()
        if self._own is not None and not self._own.is_valid:
            await self._let_go()
        if self._own is None:
            self._own = await self._direct.connect()
        return self._own

    async def _let_go(self) -> None:
        # Nobody may hold one connection while waiting for another: with all of them held so, all would wait for ever.
        connection, self._own = self._own, None
        if connection is not None:
            await self._direct.give_back(connection)


def _executables(ready: Ready, sets: Sequence[Mapping[str, Any]]) -> list[Executable] | None:
    """Return what the driver gets for each set of values; ``None`` when it is not to get them."""
    if len(sets) == 1:
        only = ready.with_values(sets[0])
        return None if only is None else [only]
    if ready.returns_rows or any(one.keys() != sets[0].keys() for one in sets):
        return None
    executables = []
    for one in sets:
        executable = ready.with_values(one)
        if executable is None:
            return None
        executables.append(executable)
    return executables
