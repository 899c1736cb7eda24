"""Makes audit rows durable: within a unit's transaction, or many callers' rows in one transaction of their own.

A commit to disk costs the same for one row as for hundreds. While one group is being written, the rows of everybody
who comes meanwhile gather and become the next group; with nobody waiting a row is written at once. So a read pays at
most the rest of a running commit and its own, and under load the number of commits stops growing with the callers.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.audit.models import AuditEvent
from quill.errors import AuditUnavailable
from quill.kit.database import Database
from quill.kit.inserting import Insertion, insert_if_changed, insert_together
from quill.kit.observing import Audited, tell
from quill.kit.sessions import Change
from quill.unit import AuditRow

GROUP_ROWS = 500
"""Rows after which a group is closed, so that no caller waits for a transaction without bound."""


_INSERT = sa.insert(cast("sa.Table", AuditEvent.__table__))
"""Into the core table: through the mapper each row would cost several times as much."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    rows: Sequence[AuditRow]
    is_durable: asyncio.Future[None]


class GroupRecorder:
    """Writes audit rows with group commit; implements :class:`quill.unit.AuditRecorder`.

    There is nothing to start: the first caller wakes the writer, which ends when nobody waits. Use it as a context
    manager, or call ``stop``, so that nothing is under way when the database is closed.
    """

    def __init__(self, database: Database, *, group_rows: int = GROUP_ROWS) -> None:
        self._database = database
        self._group_rows = group_rows
        self._waiting: deque[_Waiting] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def insert(
        self, session: AsyncSession, rows: Sequence[AuditRow], *, along_with: Sequence[Insertion] = ()
    ) -> None:
        """Add the rows to the session's transaction, together with rows of others; they live and die with it.

        Raises:
            AuditUnavailable: 503, they could not be written, so the transaction must not be committed.
        """
        try:
            await insert_together(session, [*along_with, *(Insertion(_INSERT, row) for row in rows)])
        except sa.exc.SQLAlchemyError as error:
            raise AuditUnavailable from error
        for row in rows:
            _tell(row)

    async def record(self, rows: Sequence[AuditRow]) -> None:
        """Return when the rows are durable.

        A caller that is cancelled while waiting takes nothing back: its rows are written all the same.

        Raises:
            AuditUnavailable: 503, the group these rows were in could not be written, or the recorder was stopped.
        """
        if not rows:
            return
        if self._is_stopped:
            raise AuditUnavailable
        waiting = _Waiting(tuple(rows), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writer is None:
            # A task of its own, in a context of its own: the first caller's cancellation must not reach the others'
            # rows, nor its request id their log lines.
            self._writer = asyncio.create_task(self._write_groups(), context=contextvars.Context())
        await waiting.is_durable

    async def record_with(self, change: Change, rows: Sequence[AuditRow]) -> bool:
        """Make a change and the rows durable together; without a row that it meets, nothing is written.

        Raises:
            AuditUnavailable: 503, neither was written.
        """
        try:
            async with self._database.one_statement() as session:
                is_changed = await insert_if_changed(session, change, [Insertion(_INSERT, row) for row in rows])
        except sa.exc.SQLAlchemyError as error:
            raise AuditUnavailable from error
        for row in rows if is_changed else ():
            _tell(row)
        return is_changed

    async def stop(self) -> None:
        """Return when everything handed over so far is durable or refused; afterwards ``record`` refuses."""
        self._is_stopped = True
        if self._writer is not None:
            await asyncio.wait({self._writer})

    async def _write_groups(self) -> None:
        try:
            while self._waiting:
                await self._write(self._take_group())
        finally:
            # Only a writer that was itself cancelled leaves somebody waiting here, and nobody may wait for ever.
            self._writer = None
            left, self._waiting = list(self._waiting), deque()
            _refuse(left, None)

    def _take_group(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        count = len(group[0].rows)
        while self._waiting and count + len(self._waiting[0].rows) <= self._group_rows:
            group.append(self._waiting.popleft())
            count += len(group[-1].rows)
        return group

    async def _write(self, group: list[_Waiting]) -> None:
        try:
            async with self._database.one_statement() as session:
                await self.insert(session, [row for waiting in group for row in waiting.rows])
        except Exception as error:  # noqa: BLE001 - handed to every caller: whatever it is, none of them may show data
            _refuse(group, error)
        except BaseException:
            _refuse(group, None)
            raise
        else:
            for waiting in group:
                if not waiting.is_durable.done():
                    waiting.is_durable.set_result(None)


def _tell(row: AuditRow) -> None:
    tell(Audited(row["act"], row["outcome"], row["reason"]))


def _refuse(group: list[_Waiting], cause: Exception | None) -> None:
    for waiting in group:
        if not waiting.is_durable.done():
            refusal = AuditUnavailable()
            refusal.__cause__ = cause
            waiting.is_durable.set_exception(refusal)
