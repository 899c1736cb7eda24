"""Every SELECT about people, memberships and grants."""

import functools
from collections.abc import Collection, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.identity.models import (
    ExternalAccess,
    OrganisationPatientMember,
    OrganisationStaffMember,
    ProfessionalRegistration,
    UserAccount,
    UserRole,
)
from quill.kit.ids import OrganisationId, PatientId, UserId

SEPARATOR = "\n"
"""Between aggregated names; no role name holds a line break."""

ACCOUNT = cast("sa.Table", UserAccount.__table__)
_ROLE = cast("sa.Table", UserRole.__table__)
_REGISTRATION = cast("sa.Table", ProfessionalRegistration.__table__)
_STAFF = cast("sa.Table", OrganisationStaffMember.__table__)

# Conditions within other slices' statements; made once, because they are part of nearly every request.
_MEMBER = OrganisationPatientMember.__table__.alias("caring")
_GRANT = ExternalAccess.__table__.alias("access_grant")


@functools.cache
def person_select() -> sa.Select[*tuple[Any, ...]]:
    """Return a select of everything that makes an actor, one row per person and one statement in all.

    It is part of nearly every request: made once, of core columns, which cost much less than mapped ones.
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
        ACCOUNT.c.username,
        ACCOUNT.c.full_name,
        ACCOUNT.c.email,
        ACCOUNT.c.is_active,
        ACCOUNT.c.is_totp_enabled,
        ACCOUNT.c.patient_id,
        ACCOUNT.c.permission_level,
        ACCOUNT.c.base_profession,
        ACCOUNT.c.additional_competencies,
        ACCOUNT.c.removed_competencies,
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


def related_patients(actor: Actor) -> sa.Select[str]:
    """Return the ids of the patients an actor is related to: own record, shared organisations, active grants."""
    branches: list[sa.Select[str]] = []
    if actor.organisation_ids:
        branches.append(
            sa.select(OrganisationPatientMember.patient_id).where(
                OrganisationPatientMember.organisation_id.in_(actor.organisation_ids)
            )
        )
    branches.append(
        sa.select(ExternalAccess.patient_id).where(
            ExternalAccess.user_id == actor.user_id, ExternalAccess.revoked_at.is_(None)
        )
    )
    if actor.patient_id is not None:
        branches.append(sa.select(sa.literal(actor.patient_id, sa.String(64))))
    union = sa.union(*branches).subquery() if len(branches) > 1 else branches[0].subquery()
    return sa.select(union.c[0])


def is_related(actor: Actor, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the same as ``related_patients`` as a condition on one row, for walking a long list in its order."""
    ties = [holds_grant(actor, patient_id), shares_organisation(actor, patient_id)]
    if actor.patient_id is not None:
        ties.append(patient_id == actor.patient_id)
    return sa.or_(*ties)


def shares_organisation(actor: Actor, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the actor works in an organisation which cares for the patient of a row."""
    if not actor.organisation_ids:
        return sa.false()
    return sa.exists().where(_MEMBER.c.patient_id == patient_id, _MEMBER.c.organisation_id.in_(actor.organisation_ids))


def holds_grant(actor: Actor, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the actor holds an active grant for the patient of a row."""
    return sa.exists().where(
        _GRANT.c.user_id == actor.user_id, _GRANT.c.patient_id == patient_id, _GRANT.c.revoked_at.is_(None)
    )


def granted_patients(actor: Actor) -> sa.Select[str]:
    """Return the ids of the patients an actor holds an active grant for."""
    return sa.select(ExternalAccess.patient_id).where(
        ExternalAccess.user_id == actor.user_id, ExternalAccess.revoked_at.is_(None)
    )


async def cares_for_many(session: AsyncSession, actor: Actor, limit: int) -> bool:
    """Tell whether the actor's organisations together have more than ``limit`` patients; reads no more than that."""
    capped = (
        sa.select(OrganisationPatientMember.patient_id)
        .where(OrganisationPatientMember.organisation_id.in_(actor.organisation_ids))
        .limit(limit + 1)
        .subquery()
    )
    return int(await session.scalar(sa.select(sa.func.count()).select_from(capped)) or 0) > limit


async def relationships(session: AsyncSession, actor: Actor, patient_id: PatientId) -> tuple[bool, bool]:
    """Tell whether the actor shares an organisation with a patient, and holds an active grant; one statement."""
    subject = sa.literal(patient_id, sa.String(64))
    statement = sa.select(
        shares_organisation(actor, subject).label("shares"), holds_grant(actor, subject).label("holds")
    )
    row = (await session.execute(statement)).one()
    return bool(row.shares), bool(row.holds)


async def grant_holders(session: AsyncSession, patient_id: PatientId, user_ids: Collection[int]) -> set[int]:
    """Return those of some people who hold an active grant for a patient."""
    rows = await session.scalars(
        sa.select(ExternalAccess.user_id).where(
            ExternalAccess.patient_id == patient_id,
            ExternalAccess.revoked_at.is_(None),
            ExternalAccess.user_id.in_(user_ids),
        )
    )
    return set(rows)


async def linked_person(session: AsyncSession, patient_id: PatientId) -> int | None:
    """Return the active account linked to a patient's record."""
    return await session.scalar(
        sa.select(UserAccount.id).where(UserAccount.patient_id == patient_id, UserAccount.is_active)
    )


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


async def shared_organisations(session: AsyncSession, actor: Actor, patient_id: PatientId) -> list[int]:
    """Return the organisations that a staff member and a patient both belong to, in order."""
    rows = await session.scalars(
        sa.select(OrganisationPatientMember.organisation_id)
        .where(
            OrganisationPatientMember.patient_id == patient_id,
            OrganisationPatientMember.organisation_id.in_(actor.organisation_ids),
        )
        .order_by(OrganisationPatientMember.organisation_id)
    )
    return list(rows)


async def patient_organisations(session: AsyncSession, patient_id: PatientId) -> list[int]:
    """Return every organisation that cares for a patient, in order."""
    rows = await session.scalars(
        sa.select(OrganisationPatientMember.organisation_id)
        .where(OrganisationPatientMember.patient_id == patient_id)
        .order_by(OrganisationPatientMember.organisation_id)
    )
    return list(rows)


async def staff_memberships(session: AsyncSession, user_id: UserId) -> dict[int, bool]:
    """Return the organisations somebody is staff of, each with whether it is the primary one."""
    statement = sa.select(OrganisationStaffMember.organisation_id, OrganisationStaffMember.is_primary)
    rows = await session.execute(statement.where(OrganisationStaffMember.user_id == user_id))
    return {row.organisation_id: row.is_primary for row in rows}


async def lock_staff_memberships(session: AsyncSession, user_id: UserId) -> list[OrganisationStaffMember]:
    """Return somebody's memberships, oldest first, locked: serialises which of them is primary."""
    statement = (
        sa.select(OrganisationStaffMember)
        .where(OrganisationStaffMember.user_id == user_id)
        .order_by(OrganisationStaffMember.joined_at, OrganisationStaffMember.organisation_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return list(await session.scalars(statement))


async def lock_patient_memberships(session: AsyncSession, patient_id: PatientId) -> list[OrganisationPatientMember]:
    """Return a patient's memberships, oldest first, locked: serialises which of them is primary."""
    statement = (
        sa.select(OrganisationPatientMember)
        .where(OrganisationPatientMember.patient_id == patient_id)
        .order_by(OrganisationPatientMember.joined_at, OrganisationPatientMember.organisation_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return list(await session.scalars(statement))


async def member_counts(session: AsyncSession, organisation_id: OrganisationId) -> tuple[int, int]:
    """Return how many staff and how many patients an organisation has."""
    staff = sa.select(sa.func.count()).where(OrganisationStaffMember.organisation_id == organisation_id)
    patients = sa.select(sa.func.count()).where(OrganisationPatientMember.organisation_id == organisation_id)
    row = (
        await session.execute(
            sa.select(staff.scalar_subquery().label("staff"), patients.scalar_subquery().label("patients"))
        )
    ).one()
    return row.staff, row.patients


async def staff_page(
    session: AsyncSession, organisation_id: OrganisationId, *, after: str, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return staff of an organisation whose folded username comes after another, in that order."""
    result = await session.execute(
        sa.select(
            UserAccount.id,
            UserAccount.username,
            UserAccount.username_folded,
            UserAccount.full_name,
            UserAccount.email,
            UserAccount.permission_level,
            UserAccount.is_active,
            OrganisationStaffMember.is_primary,
            OrganisationStaffMember.joined_at,
        )
        .join(OrganisationStaffMember, OrganisationStaffMember.user_id == UserAccount.id)
        .where(OrganisationStaffMember.organisation_id == organisation_id, UserAccount.username_folded > after)
        .order_by(UserAccount.username_folded)
        .limit(limit)
    )
    return result.all()


async def patient_page(
    session: AsyncSession, organisation_id: OrganisationId, *, after: str, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return patients of an organisation whose id comes after another, in that order."""
    result = await session.execute(
        sa.select(
            OrganisationPatientMember.patient_id,
            OrganisationPatientMember.is_primary,
            OrganisationPatientMember.joined_at,
        )
        .where(
            OrganisationPatientMember.organisation_id == organisation_id,
            OrganisationPatientMember.patient_id > after,
        )
        .order_by(OrganisationPatientMember.patient_id)
        .limit(limit)
    )
    return result.all()


def of_levels(levels: Collection[Level] | None) -> sa.ColumnElement[bool]:
    """Return the condition that somebody has one of these levels; ``None`` means any."""
    if levels is None:
        return sa.true()
    return UserAccount.permission_level.in_([level.value for level in levels])


def numbered(ids: Collection[UserId]) -> sa.ColumnElement[bool]:
    """Return the condition that somebody is one of these."""
    return UserAccount.id.in_(ids)


def around_patient(patient_id: PatientId) -> sa.ColumnElement[bool]:
    """Return the condition that somebody is active and tied to a patient by an organisation or by an active grant.

    Memberships count from staff level upwards only, as they do for access.
    """
    colleagues = (
        sa.select(OrganisationStaffMember.user_id)
        .join(
            OrganisationPatientMember,
            OrganisationPatientMember.organisation_id == OrganisationStaffMember.organisation_id,
        )
        .where(OrganisationPatientMember.patient_id == patient_id)
    )
    invited = sa.select(ExternalAccess.user_id).where(
        ExternalAccess.patient_id == patient_id, ExternalAccess.revoked_at.is_(None)
    )
    is_staff = of_levels([level for level in Level if level.reaches(Level.STAFF)])
    return sa.and_(
        UserAccount.is_active,
        sa.or_(sa.and_(is_staff, UserAccount.id.in_(colleagues)), UserAccount.id.in_(invited)),
    )


async def people_page(
    session: AsyncSession, condition: sa.ColumnElement[bool], *, after: str, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return people whose folded username comes after another, in that order."""
    result = await session.execute(
        sa.select(
            UserAccount.id,
            UserAccount.username,
            UserAccount.username_folded,
            UserAccount.full_name,
            UserAccount.email,
            UserAccount.permission_level,
            UserAccount.is_active,
        )
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


async def linked_patient(session: AsyncSession, user_id: UserId) -> str | None:
    """Return the patient record that is an account's own."""
    return await session.scalar(sa.select(UserAccount.patient_id).where(UserAccount.id == user_id))


async def is_anybody_there(session: AsyncSession) -> bool:
    """Tell whether there is any account at all."""
    return bool(await session.scalar(sa.select(sa.exists().select_from(UserAccount))))
