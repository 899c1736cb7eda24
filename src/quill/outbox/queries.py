"""Every SELECT about the queue and the live events."""

import datetime
import functools
from collections.abc import Collection, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.database import UtcDateTime
from quill.outbox.models import LiveEventRow, OutboxEntry

_NUMBERING_LOCK = 0x9E11
"""Key of the PostgreSQL advisory lock of who numbers live events; any number nothing else of ours uses."""


# Statements of every delivery and every live event, made once: making them costs more than executing them.
_ENTRY = cast("sa.Table", OutboxEntry.__table__)
_EVENT = cast("sa.Table", LiveEventRow.__table__)
_NOW = sa.bindparam("due_at", type_=UtcDateTime())
_LIMIT = sa.bindparam("most", type_=sa.Integer())
_IS_DUE = sa.and_(
    _ENTRY.c.state == "pending",
    _ENTRY.c.next_attempt_at <= _NOW,
    sa.or_(_ENTRY.c.lease_until.is_(None), _ENTRY.c.lease_until <= _NOW),
)
_HAS_DUE = sa.select(sa.exists().where(_IS_DUE))
# A common table expression, because PostgreSQL may execute a subquery again for each row, and would then take too many.
_DUE = (
    sa.select(_ENTRY.c.id)
    .where(_IS_DUE)
    .order_by(_ENTRY.c.next_attempt_at)
    .limit(_LIMIT)
    .with_for_update(skip_locked=True)
    .cte("due")
)
_TAKE_DUE: sa.sql.dml.ReturningUpdate[*tuple[Any, ...]] = (
    sa.update(_ENTRY)
    .where(_ENTRY.c.id.in_(sa.select(_DUE.c.id)))
    .values(attempts=_ENTRY.c.attempts + 1, lease_until=sa.bindparam("leased_until"))
    .returning(_ENTRY.c.id, _ENTRY.c.channel, _ENTRY.c.payload, _ENTRY.c.attempts, _ENTRY.c.give_up_at)
)
_SETTLE = (
    sa.update(_ENTRY)
    .where(
        _ENTRY.c.id.in_(sa.bindparam("the_entries", type_=sa.String(36), expanding=True)),
        _ENTRY.c.state == "pending",
        _ENTRY.c.attempts == sa.bindparam("at_attempt"),
    )
    .values(lease_until=None, last_error=sa.bindparam("reason"))
    .returning(_ENTRY.c.id)
)
# It may hold an address or a link, and nobody needs it any more.
_CLOSE = _SETTLE.values(state=sa.bindparam("end_state"), closed_at=sa.bindparam("ended_at"), payload=None)
_TRY_AGAIN = _SETTLE.values(next_attempt_at=sa.bindparam("again_at"))
_LOCK_NUMBERING = sa.select(sa.func.pg_advisory_xact_lock(_NUMBERING_LOCK))
_HAS_UNNUMBERED = sa.select(sa.exists().where(_EVENT.c.number.is_(None)))
_EVENTS_AFTER: sa.Select[*tuple[Any, ...]] = (
    sa.select(_EVENT.c.number, _EVENT.c.kind, _EVENT.c.patient_id, _EVENT.c.conversation_id, _EVENT.c.facts)
    .where(_EVENT.c.number > sa.bindparam("last_number", type_=sa.BigInteger()))
    .order_by(_EVENT.c.number)
    .limit(_LIMIT)
)
_EVENT_BOUNDS: sa.Select[*tuple[Any, ...]] = sa.select(sa.func.min(_EVENT.c.number), sa.func.max(_EVENT.c.number))


async def has_due(session: AsyncSession, now: datetime.datetime) -> bool:
    """Tell whether anything waits to be delivered; asked before a transaction is opened for it."""
    return bool(await session.scalar(_HAS_DUE, {"due_at": now}))


async def take_due(
    session: AsyncSession, now: datetime.datetime, leased_until: datetime.datetime, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Take entries to deliver under a lease, one attempt more counted: two workers never take the same one.

    Returns:
        ``id``, ``channel``, ``payload``, ``attempts`` and ``give_up_at`` of each.
    """
    values = {"due_at": now, "most": limit, "leased_until": leased_until}
    return (await session.execute(_TAKE_DUE, values)).all()


async def close(
    session: AsyncSession,
    entry_ids: Collection[str],
    attempt: int,
    *,
    state: str,
    at: datetime.datetime,
    reason: str | None,
) -> set[str]:
    """Close entries as ``sent`` or ``failed`` and return which; not those another worker took since this attempt."""
    entries = sorted(entry_ids)
    values = {"the_entries": entries, "at_attempt": attempt, "end_state": state, "ended_at": at, "reason": reason}
    return set(await session.scalars(_CLOSE, values))


async def try_again(
    session: AsyncSession, entry_id: str, attempt: int, *, at: datetime.datetime, reason: str | None
) -> bool:
    """Let an entry wait for another attempt; ``False`` when another worker has taken it since this one."""
    values = {"the_entries": [entry_id], "at_attempt": attempt, "again_at": at, "reason": reason}
    return await session.scalar(_TRY_AGAIN, values) is not None


async def lock_sealed(session: AsyncSession, channels: Collection[str]) -> list[sa.Row[Any]]:
    """Return number and payload of what waits in some channels, locked: delivering blanks a payload meanwhile."""
    statement = sa.select(OutboxEntry.id, OutboxEntry.payload).where(
        OutboxEntry.state == "pending", OutboxEntry.channel.in_(channels), OutboxEntry.payload.is_not(None)
    )
    return list(await session.execute(statement.order_by(OutboxEntry.id).with_for_update()))


async def lock_numbering(session: AsyncSession) -> None:
    """Wait until nobody else numbers live events; PostgreSQL only."""
    await session.execute(_LOCK_NUMBERING)


async def backlog(session: AsyncSession) -> list[sa.Row[Any]]:
    """Return per channel and state how many entries wait or were given up (``channel, state, count, oldest_at``)."""
    columns = (OutboxEntry.channel, OutboxEntry.state)
    statement = (
        sa.select(*columns, sa.func.count().label("entries"), sa.func.min(OutboxEntry.created_at).label("oldest_at"))
        .where(OutboxEntry.state != "sent")
        .group_by(*columns)
    )
    return list(await session.execute(statement))


def _next_number() -> sa.ScalarSelect[int]:
    """Return the number after the highest, as an expression; for who is the only writer."""
    return sa.select(sa.func.coalesce(sa.func.max(_EVENT.c.number), 0) + 1).scalar_subquery()


INSERT_ENTRY = sa.insert(_ENTRY)
"""Put an entry in the queue."""
# Nobody asks for the id the database gives an event.
INSERT_EVENT = sa.insert(_EVENT).inline()
"""Keep a live event, which is numbered once it is visible."""
INSERT_NUMBERED_EVENT = INSERT_EVENT.values(number=_next_number())
"""Keep a live event under the next number; for who is the only writer."""


async def has_unnumbered(session: AsyncSession) -> bool:
    """Tell whether a live event waits for its number."""
    return bool(await session.scalar(_HAS_UNNUMBERED))


@functools.cache
def number_visible() -> sa.Update:
    """Return the statement that numbers every visible live event that has none; for one process at a time."""
    place = sa.func.row_number().over(order_by=_EVENT.c.id).label("place")
    fresh = sa.select(_EVENT.c.id, place).where(_EVENT.c.number.is_(None)).subquery()
    highest = sa.select(sa.func.coalesce(sa.func.max(_EVENT.c.number), 0)).scalar_subquery()
    return sa.update(_EVENT).values(number=highest + fresh.c.place).where(_EVENT.c.id == fresh.c.id)


async def events_after(session: AsyncSession, last_number: int, limit: int) -> list[sa.Row[Any]]:
    """Return the numbered live events after one, oldest first."""
    return list(await session.execute(_EVENTS_AFTER, {"last_number": last_number, "most": limit}))


async def event_bounds(session: AsyncSession) -> tuple[int, int]:
    """Return the numbers of the oldest and the newest live event kept; zeros when there never was one."""
    row = (await session.execute(_EVENT_BOUNDS)).one()
    return (row[0] or 0, row[1] or 0)
