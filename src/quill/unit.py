"""What every service function is handed: the database, the clinical stores, and the promise to commit.

A ``Reader`` sees committed state and writes nothing. A ``Unit`` is one transaction, begun at its first statement and
committed by whoever opened it before the answer leaves. Below that nobody commits.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.database import Database
from quill.kit.inserting import Insertion, insert_together
from quill.kit.sessions import Change
from quill.kit.signals import InProcessSignals, Signals
from quill.ports.fhir import FhirStore
from quill.ports.openehr import OpenEhrStore
from quill.ports.shared import Shared
from quill.settings import Settings

AuditRow = Mapping[str, Any]

Session = AsyncSession
"""A database session, for signatures at the edge, which knows no SQL."""


class AuditRecorder(Protocol):
    """Writes audit rows, inside a unit's transaction or in a group of their own."""

    async def insert(
        self, session: AsyncSession, rows: Sequence[AuditRow], *, along_with: Sequence[Insertion] = ()
    ) -> None:
        """Add the rows to the session's transaction, together with rows of others."""
        ...

    async def record(self, rows: Sequence[AuditRow]) -> None:
        """Return when the rows are durable.

        Raises:
            AuditUnavailable: 503, they could not be written.
        """
        ...

    async def record_with(self, change: Change, rows: Sequence[AuditRow]) -> bool:
        """Make a change and the rows durable together; without a row that it meets, nothing is written.

        Raises:
            AuditUnavailable: 503, neither was written.
        """
        ...

    async def stop(self) -> None:
        """Return when everything given so far is durable; takes nothing more."""
        ...


RefuseMoved = Callable[[AsyncSession], Awaitable[None]]
"""Raises ``RecordsMoving`` for a clinical write by a process whose records are moved elsewhere, or have been."""


async def nothing_moves(_session: AsyncSession) -> None:
    """Refuse nothing."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the assembly put together once per process."""

    settings: Settings
    database: Database
    recorder: AuditRecorder
    fhir_for: Callable[[AsyncSession], FhirStore]
    openehr_for: Callable[[AsyncSession], OpenEhrStore]
    refuse_moved: RefuseMoved = nothing_moves
    signals: Signals = field(default_factory=InProcessSignals)
    shared: Shared | None = None
    closers: Sequence[Callable[[], Awaitable[None]]] = ()

    async def close(self) -> None:
        """Close what was opened: connections to services elsewhere, then the database."""
        for close in self.closers:
            await close()
        await self.database.dispose()


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Where a request came from, for the audit trail and the throttles.

    Attributes:
        request_id: sent back as ``X-Request-ID``.
        source: the caller's address as far as trusted proxies let it be known.
    """

    request_id: str
    source: str


class Reader:
    """A read-only unit: statements in autocommit, audit rows gathered and made durable before the answer leaves.

    ``audit_rows`` tell what was done; a unit writes them in its own transaction. ``refusal_rows`` tell what was refused
    and are kept whatever becomes of the transaction. Both are filled by ``audit.service``.
    """

    def __init__(self, services: Services, session: AsyncSession, facts: RequestFacts) -> None:
        self.services = services
        self.session = session
        self.facts = facts
        self.audit_rows: list[AuditRow] = []
        self.refusal_rows: list[AuditRow] = []
        self._fhir: FhirStore | None = None
        self._openehr: OpenEhrStore | None = None

    @property
    def settings(self) -> Settings:
        """Return the settings the program runs with."""
        return self.services.settings

    @property
    def fhir(self) -> FhirStore:
        """Return the FHIR store; the embedded one shares this unit's session."""
        if self._fhir is None:
            self._fhir = self.services.fhir_for(self.session)
        return self._fhir

    @property
    def openehr(self) -> OpenEhrStore:
        """Return the openEHR store; the embedded one shares this unit's session."""
        if self._openehr is None:
            self._openehr = self.services.openehr_for(self.session)
        return self._openehr


class Unit(Reader):
    """One transaction. Its clinical stores, when embedded, take part in it."""

    def __init__(self, services: Services, session: AsyncSession, facts: RequestFacts) -> None:
        super().__init__(services, session, facts)
        self._last_rows: list[Insertion] = []
        self._locked: set[str] = set()
        self._after_commit: list[Callable[[], Awaitable[None]]] = []
        self._even_if_refused: list[Callable[[AsyncSession], Awaitable[None]]] = []

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Open a short autocommit session, for what must be read before the transaction begins (guards, sign-in)."""
        async with self.services.database.reading() as session:
            yield session

    def add_last(self, statement: sa.Insert, row: Mapping[str, Any]) -> None:
        """Add a row as the last of the transaction, whatever becomes of a savepoint that is open now.

        For what nobody looks for before the commit, or must hold no lock while other work goes on: such rows go into
        one statement with the audit trail's.
        """
        self._last_rows.append(Insertion(statement, row))

    def after_commit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run something once the transaction is durable. If losing it would matter, write an outbox row instead."""
        self._after_commit.append(callback)

    def even_if_refused(self, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Do something in a short transaction of its own should this unit be rolled back.

        For facts that must survive a refusal, such as a stolen login that is ended by the very call that is refused.
        """
        self._even_if_refused.append(work)

    def note_lock(self, name: str) -> None:
        """Note what an earlier statement of this transaction has locked, such as ``conversation:7``.

        Not within a savepoint, whose rolling back would release it.
        """
        self._locked.add(name)

    def has_locked(self, name: str) -> bool:
        """Tell whether the transaction is known to hold a lock; it may hold one that was not noted."""
        return name in self._locked

    async def commit_with(self, change: Change) -> bool:
        """Commit at once, if a change meets any row: the change and the audit rows, and nothing else but them.

        For a unit whose whole work is one conditional change: it costs one statement and no transaction. Nothing may
        have been written before.

        Args:
            change: an update whose condition holds as long as nobody else was faster.

        Returns:
            Whether it met any row; if not, nothing was written, and the audit rows noted so far are forgotten.

        Raises:
            AuditUnavailable: 503, nothing was written.
        """
        if self.session.in_transaction() or self._last_rows:
            raise RuntimeError("A unit that has begun its transaction commits as a whole.")
        rows, self.audit_rows = self.audit_rows, []
        return await self.services.recorder.record_with(change, rows)

    async def checkpoint(self) -> None:
        """Make durable what the unit has written so far and end the transaction; the next statement begins another.

        For ``intents`` alone: a remote record store must not be called with a transaction open.
        """
        await insert_together(self.session, self._take_last_rows())
        await self.session.commit()
        self._locked.clear()

    async def _commit(self) -> None:
        rows = [*self.audit_rows, *self.refusal_rows]
        if self._last_rows or self.session.in_transaction():
            await self.services.recorder.insert(self.session, rows, along_with=self._take_last_rows())
            await self.session.commit()
        else:
            # Nothing was to be done: there is no transaction, and the rows go with those of others.
            await self.services.recorder.record(rows)
        # They are durable; should a callback fail, they must not be written again.
        self.refusal_rows.clear()
        callbacks, self._after_commit = self._after_commit, []
        for callback in callbacks:
            await callback()

    def _take_last_rows(self) -> list[Insertion]:
        rows, self._last_rows = self._last_rows, []
        return rows

    async def _keep_what_survives(self) -> None:
        if self._even_if_refused:
            async with self.services.database.writing() as session:
                for work in self._even_if_refused:
                    await work(session)
        if self.refusal_rows:
            await self.services.recorder.record(self.refusal_rows)


class open_reader:  # noqa: N801 - read as a verb, as ``open_unit``; made for nearly every request, so no generator
    """Opens a reader; what it read is in the audit trail before the block ends, or its end raises.

    Raises:
        AuditUnavailable: 503, the audit rows could not be written, so nothing may be shown.
    """

    __slots__ = ("_reader",)

    def __init__(self, services: Services, facts: RequestFacts) -> None:
        self._reader = Reader(services, services.database.reading(), facts)

    async def __aenter__(self) -> Reader:
        return self._reader

    async def __aexit__(self, *_: object) -> None:
        reader = self._reader
        # The connection goes back first: holding one while waiting for another can starve the pool.
        await reader.session.close()
        rows = [*reader.audit_rows, *reader.refusal_rows]
        if rows:
            await reader.services.recorder.record(rows)


@asynccontextmanager
async def open_unit(services: Services, facts: RequestFacts) -> AsyncIterator[Unit]:
    """Open a unit; it is committed when the block ends well, and leaves only its refusals when it does not."""
    async with services.database.session() as session:
        unit = Unit(services, session, facts)
        try:
            yield unit
            await unit._commit()
        except BaseException:
            await session.rollback()
            await unit._keep_what_survives()
            raise
