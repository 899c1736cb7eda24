"""Every SELECT about people, memberships and grants."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity.models import (
    ExternalAccess,
    OrganisationPatientMember,
    OrganisationStaffMember,
    UserAccount,
    UserRole,
)
from quill.kit.ids import PatientId, UserId

SEPARATOR = "\n"
"""Between aggregated names; no role name holds a line break."""


def person_select() -> sa.Select[*tuple[Any, ...]]:
    """Return a select of everything that makes an actor, one row per person and one statement in all."""
    roles = (
        sa.select(sa.func.aggregate_strings(UserRole.role, SEPARATOR))
        .where(UserRole.user_id == UserAccount.id)
        .correlate(UserAccount)
        .scalar_subquery()
    )
    organisations = (
        sa.select(sa.func.aggregate_strings(sa.cast(OrganisationStaffMember.organisation_id, sa.String(20)), SEPARATOR))
        .where(OrganisationStaffMember.user_id == UserAccount.id)
        .correlate(UserAccount)
        .scalar_subquery()
    )
    primary = (
        sa.select(OrganisationStaffMember.organisation_id)
        .where(OrganisationStaffMember.user_id == UserAccount.id, OrganisationStaffMember.is_primary)
        .correlate(UserAccount)
        .scalar_subquery()
    )
    return sa.select(
        UserAccount.id,
        UserAccount.username,
        UserAccount.full_name,
        UserAccount.email,
        UserAccount.is_active,
        UserAccount.is_totp_enabled,
        UserAccount.patient_id,
        UserAccount.permission_level,
        UserAccount.base_profession,
        UserAccount.additional_competencies,
        UserAccount.removed_competencies,
        roles.label("roles"),
        organisations.label("organisations"),
        primary.label("primary_organisation_id"),
    )


def by_username(folded: str) -> sa.Select[*tuple[Any, ...]]:
    """Return the select of what sign-in needs to know about a username."""
    return sa.select(
        UserAccount.id,
        UserAccount.password_hash,
        UserAccount.is_active,
        UserAccount.is_totp_enabled,
        UserAccount.totp_secret,
        UserAccount.totp_last_step,
    ).where(UserAccount.username_folded == folded)


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
    conditions: list[sa.ColumnElement[bool]] = [
        sa.exists().where(
            ExternalAccess.user_id == actor.user_id,
            ExternalAccess.patient_id == patient_id,
            ExternalAccess.revoked_at.is_(None),
        )
    ]
    if actor.organisation_ids:
        conditions.append(
            sa.exists().where(
                OrganisationPatientMember.patient_id == patient_id,
                OrganisationPatientMember.organisation_id.in_(actor.organisation_ids),
            )
        )
    if actor.patient_id is not None:
        conditions.append(patient_id == actor.patient_id)
    return sa.or_(*conditions)


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
    shares = sa.exists().where(
        OrganisationPatientMember.patient_id == patient_id,
        OrganisationPatientMember.organisation_id.in_(actor.organisation_ids),
    )
    holds = sa.exists().where(
        ExternalAccess.user_id == actor.user_id,
        ExternalAccess.patient_id == patient_id,
        ExternalAccess.revoked_at.is_(None),
    )
    row = (await session.execute(sa.select(shares.label("shares"), holds.label("holds")))).one()
    return bool(row.shares), bool(row.holds)


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
