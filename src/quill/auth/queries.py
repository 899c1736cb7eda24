"""Every SELECT about logins and reset links."""

import datetime
import functools
from collections.abc import Collection, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.auth.models import Login, PasswordReset
from quill.identity import service as identity
from quill.kit.ids import LoginId, PatientId, UserId

_LOGIN = cast("sa.Table", Login.__table__)


def _with_logins(people: sa.Select[*tuple[Any, ...]]) -> sa.Select[*tuple[Any, ...]]:
    return people.join(_LOGIN, _LOGIN.c.user_id == identity.PERSON_ID).add_columns(
        _LOGIN.c.id.label("login_id"),
        _LOGIN.c.generation,
        _LOGIN.c.created_at.label("login_created_at"),
        _LOGIN.c.refreshed_at,
        _LOGIN.c.expires_at,
        _LOGIN.c.ended_at,
    )


@functools.cache
def _login_with_person() -> sa.Select[*tuple[Any, ...]]:
    """Return the statement of every request by somebody signed in; made once, as making it costs much of its time."""
    return _with_logins(identity.person_select()).where(_LOGIN.c.id == sa.bindparam("wanted"))


@functools.cache
def _login_with_person_and_ties() -> sa.Select[*tuple[Any, ...]]:
    return _with_logins(identity.person_with_ties_select()).where(_LOGIN.c.id == sa.bindparam("wanted"))


async def login_with_person(
    session: AsyncSession, login_id: LoginId, about: PatientId | None = None
) -> sa.Row[Any] | None:
    """Return a login and everything about its person's rights, in one statement, which every request begins with.

    Args:
        session: where to look.
        login_id: which login.
        about: a patient; the row is then one of ``person_with_ties_select``.
    """
    if about is None:
        return (await session.execute(_login_with_person(), {"wanted": login_id})).first()
    values = {"wanted": login_id, "subject": about}
    return (await session.execute(_login_with_person_and_ties(), values)).first()


ADVANCE = (
    sa.update(_LOGIN)
    .where(
        _LOGIN.c.id == sa.bindparam("the_login"),
        _LOGIN.c.generation == sa.bindparam("from_generation"),
        _LOGIN.c.ended_at.is_(None),
    )
    .values(
        generation=_LOGIN.c.generation + 1, refreshed_at=sa.bindparam("begins_at"), expires_at=sa.bindparam("ends_at")
    )
)
"""Begins a login's next generation, unless somebody else has begun it or ended the login: one rotation wins."""


@functools.cache
def _logins_with_people() -> sa.Select[*tuple[Any, ...]]:
    return _with_logins(identity.person_select()).where(_LOGIN.c.id.in_(sa.bindparam("wanted", expanding=True)))


async def logins_with_people(session: AsyncSession, login_ids: Collection[LoginId]) -> Sequence[sa.Row[Any]]:
    """Return of some logins what ``login_with_person`` returns of one, in one statement."""
    return (await session.execute(_logins_with_people(), {"wanted": list(login_ids)})).all()


async def lock_login(session: AsyncSession, login_id: LoginId) -> Login | None:
    """Return a login's row, locked."""
    return await session.get(Login, login_id, with_for_update=True, populate_existing=True)


def is_live(now: datetime.datetime) -> sa.ColumnElement[bool]:
    """Return the condition that a login has neither ended nor run out."""
    return sa.and_(Login.ended_at.is_(None), Login.expires_at > now)


async def live_logins_page(
    session: AsyncSession, user_id: UserId, now: datetime.datetime, *, after: str | None, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return somebody's live logins, newest first, older than one of them; ids grow with time."""
    statement = sa.select(
        Login.id, Login.source, Login.user_agent, Login.created_at, Login.refreshed_at, Login.expires_at
    ).where(Login.user_id == user_id, is_live(now))
    if after is not None:
        statement = statement.where(Login.id < after)
    return (await session.execute(statement.order_by(Login.id.desc()).limit(limit))).all()


async def find_open_reset(session: AsyncSession, token_digest: str, now: datetime.datetime) -> sa.Row[Any] | None:
    """Return the reset link with this digest, unless it was used or withdrawn, or is too old."""
    statement: sa.Select[*tuple[Any, ...]] = sa.select(
        PasswordReset.id, PasswordReset.user_id, PasswordReset.email
    ).where(
        PasswordReset.token_digest == token_digest,
        PasswordReset.closed_at.is_(None),
        PasswordReset.expires_at > now,
    )
    return (await session.execute(statement)).first()
