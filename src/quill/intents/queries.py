"""Every SELECT about intents."""

import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.intents.models import Intent, IntentClaim


async def by_key(session: AsyncSession, owner_key: str, idempotency_key: str) -> Intent | None:
    """Return the intent an owner opened under an idempotency key."""
    statement = sa.select(Intent).where(Intent.owner_key == owner_key, Intent.idempotency_key == idempotency_key)
    return (await session.scalars(statement.execution_options(populate_existing=True))).first()


async def lock_expired(session: AsyncSession, now: datetime.datetime, limit: int) -> list[Intent]:
    """Return open intents whose owner is gone, locked: two sweeping workers never take the same one."""
    statement = (
        sa.select(Intent)
        .where(Intent.state == "pending", Intent.lease_until < now)
        .order_by(Intent.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(await session.scalars(statement))


async def lock_intent(session: AsyncSession, intent_id: str) -> Intent | None:
    """Return one intent, locked: its owner and a sweep never close it both."""
    return await session.get(Intent, intent_id, with_for_update=True, populate_existing=True)


async def claimed(session: AsyncSession, names: list[str]) -> bool:
    """Tell whether an open intent holds one of these names."""
    return bool(await session.scalar(sa.select(sa.exists().where(IntentClaim.name.in_(names)))))
