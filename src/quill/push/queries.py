"""Every SELECT about push subscriptions."""

import datetime
from collections.abc import Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.database import UtcDateTime
from quill.kit.ids import UserId
from quill.push.models import PushSubscription


def _devices() -> sa.Select[*tuple[Any, ...]]:
    return sa.select(
        PushSubscription.id,
        PushSubscription.user_id,
        PushSubscription.endpoint,
        PushSubscription.p256dh,
        PushSubscription.auth,
    )


def _is_alive(now: datetime.datetime) -> sa.ColumnElement[bool]:
    return sa.or_(PushSubscription.expires_at.is_(None), PushSubscription.expires_at > now)


async def lock_by_digest(session: AsyncSession, digest: str) -> PushSubscription | None:
    """Return a subscription by its endpoint's digest, locked: serialises two pages that subscribe one browser."""
    statement = sa.select(PushSubscription).where(PushSubscription.endpoint_digest == digest).with_for_update()
    return (await session.scalars(statement.execution_options(populate_existing=True))).first()


_SUBSCRIPTION = cast("sa.Table", PushSubscription.__table__)
_NOW = sa.bindparam("alive_at", type_=UtcDateTime())
# Asked for every message sent, so it is made once.
_DEVICES_OF: sa.Select[*tuple[Any, ...]] = (
    sa.select(
        _SUBSCRIPTION.c.id,
        _SUBSCRIPTION.c.user_id,
        _SUBSCRIPTION.c.endpoint,
        _SUBSCRIPTION.c.p256dh,
        _SUBSCRIPTION.c.auth,
    )
    .where(
        _SUBSCRIPTION.c.user_id.in_(sa.bindparam("user_ids", type_=sa.Integer(), expanding=True)),
        sa.or_(_SUBSCRIPTION.c.expires_at.is_(None), _SUBSCRIPTION.c.expires_at > _NOW),
    )
    .order_by(_SUBSCRIPTION.c.id)
)


async def devices_of(session: AsyncSession, user_ids: Sequence[UserId], now: datetime.datetime) -> list[sa.Row[Any]]:
    """Return the devices of some people, in order."""
    return list(await session.execute(_DEVICES_OF, {"user_ids": list(user_ids), "alive_at": now}))


async def device(session: AsyncSession, device_id: int, user_id: UserId, now: datetime.datetime) -> sa.Row[Any] | None:
    """Return one device while it is still this person's, or ``None``."""
    statement = _devices().where(PushSubscription.id == device_id, PushSubscription.user_id == user_id, _is_alive(now))
    return (await session.execute(statement)).first()


async def count_of(session: AsyncSession, user_id: UserId, now: datetime.datetime) -> int:
    """Return how many devices somebody has."""
    statement = sa.select(sa.func.count()).where(PushSubscription.user_id == user_id, _is_alive(now))
    return int(await session.scalar(statement) or 0)


def newest_of(user_id: UserId, limit: int) -> sa.Select[int]:
    """Return the select of the ids of somebody's most recently confirmed devices."""
    return (
        sa.select(PushSubscription.id)
        .where(PushSubscription.user_id == user_id)
        .order_by(PushSubscription.updated_at.desc(), PushSubscription.id.desc())
        .limit(limit)
    )
