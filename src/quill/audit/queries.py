"""Every SELECT of the audit trail: what the sealer looks for and what the verification walks through.

Instants come back as :class:`StoredInstant`, so that a value somebody wrote by hand is shown instead of raising.
"""

import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Dialect, Row
from sqlalchemy.ext.asyncio import AsyncSession

from quill.audit.chain import EVENT_COLUMNS
from quill.audit.models import AuditEvent, AuditSeal, AuditSealEntry

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of any columns, which each query names."""

BATCH_ROWS = 1000
"""Rows a walk through a table holds at a time."""


class StoredInstant(sa.types.TypeDecorator[object]):
    """An instant as aware UTC; on SQLite whatever else is found in its place, untouched."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Read SQLite's text as it is, for its usual reading accepts more than the one form we write."""
        kind: sa.types.TypeEngine[Any] = sa.String() if dialect.name == "sqlite" else sa.DateTime(timezone=True)
        return dialect.type_descriptor(kind)

    def process_result_value(self, value: object, dialect: Dialect) -> object:
        """Return the instant, or the very value when it is not written as we write instants."""
        del dialect
        if not isinstance(value, str):
            return value
        try:
            instant = datetime.datetime.fromisoformat(value)
        except ValueError:
            return value
        if instant.tzinfo is not None or instant.isoformat(sep=" ", timespec="microseconds") != value:
            return value
        return instant.replace(tzinfo=datetime.UTC)


_event_columns = [
    sa.type_coerce(column, StoredInstant()).label(name) if name == "occurred_at" else column
    for name, column in ((name, AuditEvent.__table__.c[name]) for name in EVENT_COLUMNS)
]
_seal_columns = (
    AuditSeal.number,
    sa.type_coerce(AuditSeal.sealed_at, StoredInstant()).label("sealed_at"),
    AuditSeal.event_count,
    AuditSeal.previous_hash,
    AuditSeal.hash,
)
_EVENT_ID, _ENTRY_EVENT_ID = AuditEvent.__table__.c.id, AuditSealEntry.__table__.c.event_id
_AFTER_ID = sa.bindparam("after_id", type_=sa.BigInteger())
_has_entry = sa.exists().where(_ENTRY_EVENT_ID == _EVENT_ID)
# What the sealer asks every second, made once. Bounding the entries as well follows from the rest, but PostgreSQL does
# not see that and would read them all.
_LAST_EVENT_ID: sa.Select[int] = sa.select(sa.func.max(_EVENT_ID))
_UNSEALED: sa.Select[*tuple[Any, ...]] = (
    sa.select(*_event_columns)
    .where(_EVENT_ID > _AFTER_ID, ~_has_entry.where(_ENTRY_EVENT_ID > _AFTER_ID))
    .order_by(_EVENT_ID)
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
_has_seal = sa.exists().where(AuditSeal.number == AuditSealEntry.seal_number)


async def get_last_event_id(session: AsyncSession) -> int:
    """Return the highest event id there is, 0 without events."""
    return int(await session.scalar(_LAST_EVENT_ID) or 0)


async def list_unsealed_events(session: AsyncSession, after_id: int, limit: int) -> Sequence[AnyRow]:
    """Return the first unsealed events behind an id, by id; values in the order of ``EVENT_COLUMNS``."""
    return (await session.execute(_UNSEALED, {"after_id": after_id, "most": limit})).all()


async def stream_events(
    session: AsyncSession,
    last_id: int,
    *,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    patient_id: str | None,
) -> AsyncIterator[AnyRow]:
    """Walk through the events up to an id, by id, holding a batch at a time; values by the names in ``EVENT_COLUMNS``.

    Args:
        session: where to look.
        last_id: the last one wanted.
        since: no earlier ones than this instant.
        until: only earlier ones than this instant.
        patient_id: only those about this patient.
    """
    walk = sa.select(*_event_columns).where(AuditEvent.id <= last_id).order_by(AuditEvent.id).limit(BATCH_ROWS)
    if since is not None:
        walk = walk.where(AuditEvent.occurred_at >= since)
    if until is not None:
        walk = walk.where(AuditEvent.occurred_at < until)
    if patient_id is not None:
        walk = walk.where(AuditEvent.patient_id == patient_id)
    statement = walk
    while True:
        rows = (await session.execute(statement)).all()
        for row in rows:
            yield row
        if len(rows) < BATCH_ROWS:
            return
        statement = walk.where(AuditEvent.id > rows[-1].id)


async def count_unsealed_events(session: AsyncSession) -> int:
    """Return how many events no seal holds yet."""
    return await session.scalar(sa.select(sa.func.count()).select_from(AuditEvent).where(~_has_entry)) or 0


async def count_unsealed_after(session: AsyncSession, after_id: int) -> int:
    """Return how many events behind an id no seal holds yet."""
    is_sealed = _has_entry.where(AuditSealEntry.event_id > after_id)
    statement = sa.select(sa.func.count()).select_from(AuditEvent).where(AuditEvent.id > after_id, ~is_sealed)
    return await session.scalar(statement) or 0


async def get_last_sealed_event_id(session: AsyncSession) -> int:
    """Return the highest id of an event that a seal holds, 0 without seals."""
    return await session.scalar(sa.select(sa.func.max(AuditSealEntry.event_id))) or 0


async def get_last_sealed_at(session: AsyncSession) -> datetime.datetime | None:
    """Return when the newest seal was made; ``None`` without seals."""
    return await session.scalar(sa.select(AuditSeal.sealed_at).order_by(AuditSeal.number.desc()).limit(1))


async def find_last_seal(session: AsyncSession) -> AnyRow | None:
    """Return the newest seal (``number, sealed_at, event_count, previous_hash, hash``)."""
    return (await session.execute(sa.select(*_seal_columns).order_by(AuditSeal.number.desc()).limit(1))).first()


async def stream_seals(session: AsyncSession, after_number: int | None, last_number: int) -> AsyncIterator[AnyRow]:
    """Walk through the seals behind one number up to another, by number, holding a batch at a time."""
    after = after_number
    while True:
        statement = sa.select(*_seal_columns).where(AuditSeal.number <= last_number)
        if after is not None:
            statement = statement.where(AuditSeal.number > after)
        rows = (await session.execute(statement.order_by(AuditSeal.number).limit(BATCH_ROWS))).all()
        for row in rows:
            yield row
        if len(rows) < BATCH_ROWS:
            return
        after = rows[-1].number


async def stream_entries(session: AsyncSession, last_number: int) -> AsyncIterator[AnyRow]:
    """Walk through the entries of all seals up to a number, by seal and position, holding a batch at a time.

    Yields:
        ``seal_number, position, event_id, leaf_hash``, then the event's values in the order of ``EVENT_COLUMNS``, all
        null when the event is gone.
    """
    place = (AuditSealEntry.seal_number, AuditSealEntry.position)
    walk = (
        sa.select(*place, AuditSealEntry.event_id, AuditSealEntry.leaf_hash, *_event_columns)
        .select_from(AuditSealEntry)
        .outerjoin(AuditEvent, AuditEvent.id == AuditSealEntry.event_id)
        .where(AuditSealEntry.seal_number <= last_number)
        .order_by(*place)
        .limit(BATCH_ROWS)
    )
    statement = walk
    while True:
        rows = (await session.execute(statement)).all()
        for row in rows:
            yield row
        if len(rows) < BATCH_ROWS:
            return
        statement = walk.where(sa.tuple_(*place) > sa.tuple_(rows[-1].seal_number, rows[-1].position))


async def find_entry_without_seal(session: AsyncSession, last_number: int) -> AnyRow | None:
    """Return the first entry (``event_id, seal_number``) behind a seal number whose seal is not there."""
    statement = (
        sa.select(AuditSealEntry.event_id, AuditSealEntry.seal_number)
        .where(AuditSealEntry.seal_number > last_number, ~_has_seal)
        .order_by(AuditSealEntry.seal_number, AuditSealEntry.position)
        .limit(1)
    )
    return (await session.execute(statement)).first()


async def map_seal_hashes(session: AsyncSession, numbers: Sequence[int]) -> dict[int, str]:
    """Return the hashes of the seals with these numbers, by number; the ones not there are left out."""
    rows = await session.execute(sa.select(AuditSeal.number, AuditSeal.hash).where(AuditSeal.number.in_(numbers)))
    return {row.number: row.hash for row in rows}
