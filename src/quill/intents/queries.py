"""Every statement about intents that must say which ones it means."""

import datetime
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.intents.models import Intent, IntentClaim

_NO_SYNC = {"synchronize_session": False}


async def by_key(session: AsyncSession, owner_key: str, idempotency_key: str) -> Intent | None:
    """Return the intent an owner opened under an idempotency key."""
    return await session.scalar(_by_key(owner_key, idempotency_key))


async def lock_by_key(session: AsyncSession, owner_key: str, idempotency_key: str) -> Intent | None:
    """Return the same, locked: two repeated calls never take one intent over together."""
    return await session.scalar(_by_key(owner_key, idempotency_key).with_for_update())


async def lock_expired(session: AsyncSession, now: datetime.datetime) -> Intent | None:
    """Return the open intent whose lease ran out first, locked: two sweeping workers never take the same one."""
    statement = (
        sa.select(Intent).where(*_expired(now)).order_by(Intent.lease_until).limit(1).with_for_update(skip_locked=True)
    )
    return await session.scalar(statement)


async def lock_intent(session: AsyncSession, intent_id: str) -> Intent | None:
    """Return one intent, locked: its owner and a sweep never close it both."""
    return await session.get(Intent, intent_id, with_for_update=True, populate_existing=True)


async def is_anything_due(session: AsyncSession, now: datetime.datetime, closed_before: datetime.datetime) -> bool:
    """Tell whether an open intent lost its owner, or a closed one is old enough to go."""
    expired = sa.exists().where(*_expired(now))
    old = sa.exists().where(Intent.closed_at < closed_before)
    return bool(await session.scalar(sa.select(sa.or_(expired, old))))


async def count_open(session: AsyncSession) -> int:
    """Return how many intents are open, in somebody's hands or not."""
    statement = sa.select(sa.func.count()).select_from(Intent).where(Intent.state == "pending")
    return int(await session.scalar(statement) or 0)


def close(intent_id: str, attempt: int | None, values: Mapping[str, Any]) -> sa.sql.dml.ReturningUpdate[str]:
    """Return the statement that closes an open intent and answers its id; one that is closed stays as it is.

    Args:
        intent_id: which one.
        attempt: whose hands it must be in; ``None`` for anybody's.
        values: what it becomes.
    """
    statement = sa.update(Intent).where(Intent.id == intent_id, Intent.state == "pending")
    if attempt is not None:
        statement = statement.where(Intent.attempts == attempt)
    return statement.values(**values).returning(Intent.id).execution_options(**_NO_SYNC)


def leave_open(intent_id: str, attempt: int, reason: str, until: datetime.datetime) -> sa.Update:
    """Return the statement that gives an intent out of these hands and keeps it open."""
    mine = (Intent.id == intent_id, Intent.state == "pending", Intent.attempts == attempt)
    return sa.update(Intent).where(*mine).values(reason=reason, lease_until=until).execution_options(**_NO_SYNC)


def delete_closed(intent_id: str) -> sa.Delete:
    """Return the statement that forgets an intent that came to nothing."""
    is_over = Intent.state.in_(("refused", "abandoned"))
    return sa.delete(Intent).where(Intent.id == intent_id, is_over).execution_options(**_NO_SYNC)


def free_claims(intent_id: str) -> sa.Delete:
    """Return the statement that frees the names an intent held."""
    return sa.delete(IntentClaim).where(IntentClaim.intent_id == intent_id).execution_options(**_NO_SYNC)


def prune(closed_before: datetime.datetime) -> sa.Delete:
    """Return the statement that forgets the intents closed long ago."""
    return sa.delete(Intent).where(Intent.closed_at < closed_before).execution_options(**_NO_SYNC)


def _by_key(owner_key: str, idempotency_key: str) -> sa.Select[Intent]:
    statement = sa.select(Intent).where(Intent.owner_key == owner_key, Intent.idempotency_key == idempotency_key)
    return statement.execution_options(populate_existing=True)


def _expired(now: datetime.datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return Intent.state == "pending", Intent.lease_until < now
