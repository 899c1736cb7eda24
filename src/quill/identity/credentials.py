"""What sign-in knows about an account: password hash, second factor, whether it is active. For ``auth`` alone."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.identity import queries
from quill.identity.models import UserAccount
from quill.identity.service import folded
from quill.kit import clock
from quill.kit.ids import UserId
from quill.unit import Unit


@dataclass(frozen=True, slots=True)
class Credentials:
    """What sign-in compares with; ``totp_secret`` is sealed and also there while setting up is not finished."""

    user_id: UserId
    username: str
    email: str
    password_hash: str
    is_active: bool
    is_totp_enabled: bool
    totp_secret: str | None


async def find_by_username(session: AsyncSession, username: str) -> Credentials | None:
    """Return an account's credentials by username, case ignored, or ``None`` for an unknown one."""
    return await _find(session, UserAccount.username_folded == folded(username))


async def find_by_email(session: AsyncSession, email: str) -> Credentials | None:
    """Return an account's credentials by e-mail address, case ignored, or ``None`` for an unknown one."""
    return await _find(session, UserAccount.email_folded == folded(email))


async def find_by_id(session: AsyncSession, user_id: UserId) -> Credentials | None:
    """Return an account's credentials, or ``None`` when there is no such account."""
    return await _find(session, UserAccount.id == user_id)


async def lock(unit: Unit, user_id: UserId) -> Credentials | None:
    """Return an account's credentials as they are now, held against changes until the unit ends."""
    account = await queries.lock_person(unit.session, user_id)
    return _credentials(account) if account is not None else None


async def _find(session: AsyncSession, condition: sa.ColumnElement[bool]) -> Credentials | None:
    row = (await session.execute(queries.credentials_select().where(condition))).first()
    return _credentials(row) if row is not None else None


def _credentials(row: sa.Row[Any] | UserAccount) -> Credentials:
    return Credentials(
        user_id=UserId(row.id),
        username=row.username,
        email=row.email,
        password_hash=row.password_hash,
        is_active=row.is_active,
        is_totp_enabled=row.is_totp_enabled,
        totp_secret=row.totp_secret,
    )


async def set_password_hash(unit: Unit, user_id: UserId, password_hash: str) -> None:
    """Replace a password hash and nothing else; a *new* password goes through ``auth.new_passwords``."""
    await _update(unit, user_id, password_hash=password_hash)


async def lock_totp_secrets(unit: Unit) -> dict[UserId, str]:
    """Return every sealed TOTP secret by whose it is, held against changes until the unit ends."""
    rows = await queries.lock_totp_secrets(unit.session)
    return {UserId(row.id): row.totp_secret for row in rows if row.totp_secret is not None}


async def set_totp_secret(unit: Unit, user_id: UserId, sealed: str) -> None:
    """Keep a sealed TOTP secret."""
    await _update(unit, user_id, totp_secret=sealed)


async def enable_totp(unit: Unit, user_id: UserId) -> None:
    """Ask for a second factor from now on."""
    await _update(unit, user_id, is_totp_enabled=True)


async def clear_totp(unit: Unit, user_id: UserId) -> None:
    """Forget the second factor."""
    await _update(unit, user_id, is_totp_enabled=False, totp_secret=None, totp_last_step=None)


async def take_totp_step(unit: Unit, user_id: UserId, step: int) -> bool:
    """Use up a TOTP step and every earlier one; of callers at the same moment one succeeds.

    Returns:
        Whether it was still free.
    """
    is_free = sa.or_(UserAccount.totp_last_step.is_(None), UserAccount.totp_last_step < step)
    statement = (
        sa.update(UserAccount)
        .where(UserAccount.id == user_id, is_free)
        .values(totp_last_step=step)
        .returning(UserAccount.id)
    )
    return await unit.session.scalar(statement) is not None


async def _update(unit: Unit, user_id: UserId, **values: Any) -> None:
    await unit.session.execute(
        sa.update(UserAccount).where(UserAccount.id == user_id).values(**values, updated_at=clock.now())
    )
