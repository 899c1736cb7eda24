"""Accounts: actors, credentials, lists of people."""

import functools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Self, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Level
from quill.identity.models import OrganisationStaffMember, ProfessionalRegistration, UserAccount, UserRole
from quill.kit.ids import OrganisationId, PatientId, UserId

SEPARATOR = "\n"
"""Between aggregated names; no role name holds a line break."""

ACCOUNT = cast("sa.Table", UserAccount.__table__)
_ROLE = cast("sa.Table", UserRole.__table__)
_REGISTRATION = cast("sa.Table", ProfessionalRegistration.__table__)
_STAFF = cast("sa.Table", OrganisationStaffMember.__table__)

SHOWN = (
    ACCOUNT.c.username,
    ACCOUNT.c.full_name,
    ACCOUNT.c.email,
    ACCOUNT.c.permission_level,
    ACCOUNT.c.is_active,
)
"""What every list of people has of each."""


class PersonRow(NamedTuple):
    """The columns of ``person_select``, which rows of it begin with."""

    id: int
    username: str
    full_name: str | None
    email: str
    permission_level: str
    is_active: bool
    is_totp_enabled: bool
    patient_id: str | None
    base_profession: str
    additional_competencies: str
    removed_competencies: str
    roles: str | None
    registrations: str | None
    organisations: str | None
    primary_organisation_id: OrganisationId | None

    @classmethod
    def of(cls, row: sa.Row[*tuple[Any, ...]]) -> Self:
        """Return the beginning of a row; two of them with the same values are equal."""
        return cls._make(row[: len(cls._fields)])


@functools.cache
def person_select() -> sa.Select[*tuple[Any, ...]]:
    """Return a select of everything that makes an actor (``PersonRow``), one row per person and one statement in all.

    It is part of every request: made once, of core columns, which cost much less than mapped ones.
    """
    roles = (
        sa.select(sa.func.aggregate_strings(_ROLE.c.role, SEPARATOR))
        .where(_ROLE.c.user_id == ACCOUNT.c.id)
        .correlate(ACCOUNT)
        .scalar_subquery()
    )
    registrations = (
        sa.select(sa.func.aggregate_strings(_REGISTRATION.c.body + ":" + _REGISTRATION.c.number, SEPARATOR))
        .where(_REGISTRATION.c.user_id == ACCOUNT.c.id)
        .correlate(ACCOUNT)
        .scalar_subquery()
    )
    organisations = (
        sa.select(sa.func.aggregate_strings(sa.cast(_STAFF.c.organisation_id, sa.String(20)), SEPARATOR))
        .where(_STAFF.c.user_id == ACCOUNT.c.id)
        .correlate(ACCOUNT)
        .scalar_subquery()
    )
    primary = (
        sa.select(_STAFF.c.organisation_id)
        .where(_STAFF.c.user_id == ACCOUNT.c.id, _STAFF.c.is_primary)
        .correlate(ACCOUNT)
        .scalar_subquery()
    )
    return sa.select(
        ACCOUNT.c.id,
        *SHOWN,
        ACCOUNT.c.is_totp_enabled,
        ACCOUNT.c.patient_id,
        ACCOUNT.c.base_profession,
        # As text, which is taken apart once for each text there is.
        sa.cast(ACCOUNT.c.additional_competencies, sa.Text()).label("additional_competencies"),
        sa.cast(ACCOUNT.c.removed_competencies, sa.Text()).label("removed_competencies"),
        roles.label("roles"),
        registrations.label("registrations"),
        organisations.label("organisations"),
        primary.label("primary_organisation_id"),
    )


@functools.cache
def _active_people() -> sa.Select[*tuple[Any, ...]]:
    return person_select().where(ACCOUNT.c.id.in_(sa.bindparam("user_ids", expanding=True)), ACCOUNT.c.is_active)


async def active_people(session: AsyncSession, user_ids: Collection[UserId]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return those of some people whose accounts are active, as ``person_select`` gives them."""
    return (await session.execute(_active_people(), {"user_ids": list(user_ids)})).all()


def credentials_select() -> sa.Select[*tuple[Any, ...]]:
    """Return the select of what sign-in needs to know about an account."""
    return sa.select(
        UserAccount.id,
        UserAccount.username,
        UserAccount.email,
        UserAccount.password_hash,
        UserAccount.is_active,
        UserAccount.is_totp_enabled,
        UserAccount.totp_secret,
    )


async def lock_person(session: AsyncSession, user_id: UserId) -> UserAccount | None:
    """Return a person's row, locked: serialises changes to one account."""
    return await session.get(UserAccount, user_id, with_for_update=True, populate_existing=True)


async def person_exists(session: AsyncSession, user_id: UserId) -> bool:
    """Tell whether there is such an account, disabled or not."""
    return await session.scalar(sa.select(UserAccount.id).where(UserAccount.id == user_id)) is not None


async def linked_person(session: AsyncSession, patient_id: PatientId) -> int | None:
    """Return the active account linked to a patient's record."""
    return await session.scalar(
        sa.select(UserAccount.id).where(UserAccount.patient_id == patient_id, UserAccount.is_active)
    )


async def linked_patient(session: AsyncSession, user_id: UserId) -> str | None:
    """Return the patient record that is an account's own."""
    return await session.scalar(sa.select(UserAccount.patient_id).where(UserAccount.id == user_id))


async def taken(session: AsyncSession, *, username: str, email: str, but: UserId | None = None) -> tuple[bool, bool]:
    """Tell whether a folded username and a folded e-mail address belong to somebody else."""
    others = UserAccount.id != (but or 0)
    row = (
        await session.execute(
            sa.select(
                sa.exists().where(UserAccount.username_folded == username, others).label("username"),
                sa.exists().where(UserAccount.email_folded == email, others).label("email"),
            )
        )
    ).one()
    return bool(row.username), bool(row.email)


def of_levels(levels: Collection[Level] | None) -> sa.ColumnElement[bool]:
    """Return the condition that somebody has one of these levels; ``None`` means any."""
    if levels is None:
        return sa.true()
    return UserAccount.permission_level.in_([level.value for level in levels])


def numbered(ids: Collection[UserId]) -> sa.ColumnElement[bool]:
    """Return the condition that somebody is one of these."""
    return UserAccount.id.in_(ids)


async def people_page(
    session: AsyncSession, condition: sa.ColumnElement[bool], *, after: str, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return people whose folded username comes after another, in that order."""
    result = await session.execute(
        sa.select(UserAccount.id, UserAccount.username_folded, *SHOWN)
        .where(condition, UserAccount.username_folded > after)
        .order_by(UserAccount.username_folded)
        .limit(limit)
    )
    return result.all()


async def count_people(session: AsyncSession, condition: sa.ColumnElement[bool]) -> int:
    """Return how many people there are of a kind."""
    return await session.scalar(sa.select(sa.func.count()).select_from(UserAccount).where(condition)) or 0


async def lock_superadmins(session: AsyncSession) -> list[int]:
    """Return the active superadmins, locked in one order: serialises who is the last of them."""
    statement = (
        sa.select(UserAccount.id)
        .where(UserAccount.permission_level == Level.SUPERADMIN.value, UserAccount.is_active)
        .order_by(UserAccount.id)
        .with_for_update()
    )
    return list(await session.scalars(statement))


async def lock_totp_secrets(session: AsyncSession) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return who has a sealed TOTP secret with the secret, locked: signing in may seal one anew at this moment."""
    statement = sa.select(UserAccount.id, UserAccount.totp_secret).where(UserAccount.totp_secret.is_not(None))
    return (await session.execute(statement.order_by(UserAccount.id).with_for_update())).all()


async def is_anybody_there(session: AsyncSession) -> bool:
    """Tell whether there is any account at all."""
    return bool(await session.scalar(sa.select(sa.exists().select_from(UserAccount))))
