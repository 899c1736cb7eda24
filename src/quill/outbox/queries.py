"""Every SELECT about the queue and the live events."""

import datetime
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.outbox.models import LiveEventRow, OutboxEntry

_LIVE_EVENT_LOCK = 0x9E11
"""Key of the PostgreSQL advisory lock that orders live events; any number nothing else of ours uses."""


def _is_due(now: datetime.datetime) -> sa.ColumnElement[bool]:
    return sa.and_(
        OutboxEntry.state == "pending",
        OutboxEntry.next_attempt_at <= now,
        sa.or_(OutboxEntry.lease_until.is_(None), OutboxEntry.lease_until <= now),
    )


async def has_due(session: AsyncSession, now: datetime.datetime) -> bool:
    """Tell whether anything waits to be delivered; asked before a transaction is opened for it."""
    return bool(await session.scalar(sa.select(sa.exists().where(_is_due(now)))))


async def lock_due(session: AsyncSession, now: datetime.datetime, limit: int) -> list[OutboxEntry]:
    """Return entries to deliver, locked: two workers never take the same one."""
    statement = (
        sa.select(OutboxEntry)
        .where(_is_due(now))
        .order_by(OutboxEntry.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(await session.scalars(statement))


async def lock_leased(session: AsyncSession, entry_id: str, attempts: int) -> OutboxEntry | None:
    """Return an entry that is still at this attempt, locked; ``None`` when another worker has taken it since."""
    statement = sa.select(OutboxEntry).where(
        OutboxEntry.id == entry_id, OutboxEntry.state == "pending", OutboxEntry.attempts == attempts
    )
    return (await session.scalars(statement.with_for_update())).first()


async def lock_sealed(session: AsyncSession, channels: Collection[str]) -> list[sa.Row[Any]]:
    """Return number and payload of what waits in some channels, locked: delivering blanks a payload meanwhile."""
    statement = sa.select(OutboxEntry.id, OutboxEntry.payload).where(
        OutboxEntry.state == "pending", OutboxEntry.channel.in_(channels), OutboxEntry.payload.is_not(None)
    )
    return list(await session.execute(statement.order_by(OutboxEntry.id).with_for_update()))


async def backlog(session: AsyncSession) -> list[sa.Row[Any]]:
    """Return per channel and state how many entries wait or were given up (``channel, state, count, oldest_at``)."""
    columns = (OutboxEntry.channel, OutboxEntry.state)
    statement = (
        sa.select(*columns, sa.func.count().label("entries"), sa.func.min(OutboxEntry.created_at).label("oldest_at"))
        .where(OutboxEntry.state != "sent")
        .group_by(*columns)
    )
    return list(await session.execute(statement))


async def lock_live_events(session: AsyncSession) -> None:
    """Wait until nobody else's live events are on their way to a commit; PostgreSQL only."""
    await session.execute(sa.select(sa.func.pg_advisory_xact_lock(_LIVE_EVENT_LOCK)))


async def events_after(session: AsyncSession, last_id: int, limit: int) -> list[sa.Row[Any]]:
    """Return the live events after one, oldest first."""
    columns = (
        LiveEventRow.id,
        LiveEventRow.kind,
        LiveEventRow.patient_id,
        LiveEventRow.conversation_id,
        LiveEventRow.facts,
    )
    statement = sa.select(*columns).where(LiveEventRow.id > last_id).order_by(LiveEventRow.id).limit(limit)
    return list(await session.execute(statement))


async def event_bounds(session: AsyncSession) -> tuple[int, int]:
    """Return the ids of the oldest and the newest live event kept; zeros when there never was one."""
    row = (await session.execute(sa.select(sa.func.min(LiveEventRow.id), sa.func.max(LiveEventRow.id)))).one()
    return (row[0] or 0, row[1] or 0)
