"""What ties people to patients: the own record, shared organisations, grants."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.identity.models import (
    ExternalAccess,
    OrganisationPatientMember,
    OrganisationStaffMember,
    UserAccount,
)
from quill.identity.queries.people import SHOWN, of_levels
from quill.kit.ids import PatientId, UserId

# Conditions within other slices' statements; made once, because they are part of nearly every request.
_MEMBER = OrganisationPatientMember.__table__.alias("caring")
_GRANT = ExternalAccess.__table__.alias("access_grant")

_PERSON = UserAccount.__table__.alias("anybody")
_WORK = OrganisationStaffMember.__table__.alias("anybodys_work")


@dataclass(frozen=True, slots=True)
class Anybody:
    """A person as a row of the statement: stands where an actor stands in a condition, to ask about many at once.

    Attributes:
        table: what to select from.
        user_id: the column to select, and to say by who is meant.
        organisation_ids: the organisations this person is staff of; empty below staff level.
        patient_id: the person's own patient record, if linked.
        is_admin: whether all who are meant are admins or superadmins.
    """

    table: sa.FromClause
    user_id: sa.ColumnElement[int]
    organisation_ids: sa.Select[int] | tuple[()]
    patient_id: sa.ColumnElement[str]
    is_admin: bool


def anybody(level: Level) -> Anybody:
    """Return a row's person who is known to be of staff level, an admin or neither, as actors are told apart."""
    works = sa.select(_WORK.c.organisation_id).where(_WORK.c.user_id == _PERSON.c.id).correlate(_PERSON)
    return Anybody(
        table=_PERSON,
        user_id=_PERSON.c.id,
        organisation_ids=works if level.reaches(Level.STAFF) else (),
        patient_id=_PERSON.c.patient_id,
        is_admin=level.reaches(Level.ADMIN),
    )


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


def is_related(actor: Actor | Anybody, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the same as ``related_patients`` as a condition on one row, for walking a long list in its order."""
    ties = [holds_grant(actor, patient_id), shares_organisation(actor, patient_id)]
    if actor.patient_id is not None:
        ties.append(patient_id == actor.patient_id)
    return sa.or_(*ties)


def shares_organisation(actor: Actor | Anybody, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the actor works in an organisation which cares for the patient of a row."""
    if actor.organisation_ids == ():
        return sa.false()
    return sa.exists().where(_MEMBER.c.patient_id == patient_id, _MEMBER.c.organisation_id.in_(actor.organisation_ids))


def holds_grant(actor: Actor | Anybody, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the actor holds an active grant for the patient of a row."""
    return sa.exists().where(
        _GRANT.c.user_id == actor.user_id, _GRANT.c.patient_id == patient_id, _GRANT.c.revoked_at.is_(None)
    )


def granted_patients(actor: Actor) -> sa.Select[str]:
    """Return the ids of the patients an actor holds an active grant for."""
    return sa.select(ExternalAccess.patient_id).where(
        ExternalAccess.user_id == actor.user_id, ExternalAccess.revoked_at.is_(None)
    )


def is_active_grant(patient_id: PatientId) -> sa.ColumnElement[bool]:
    """Return the condition that a grant is for a patient and has not been ended."""
    return sa.and_(ExternalAccess.patient_id == patient_id, ExternalAccess.revoked_at.is_(None))


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


async def holds_access(session: AsyncSession, user_id: UserId, patient_id: PatientId) -> bool:
    """Tell whether somebody has an active grant for a patient."""
    holds = sa.exists().where(is_active_grant(patient_id), ExternalAccess.user_id == user_id)
    return bool(await session.scalar(sa.select(holds)))


async def grants_page(
    session: AsyncSession, patient_id: PatientId, *, after: int, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return the active grants for a patient with who holds them, in order of their numbers.

    Args:
        session: where to look.
        patient_id: for whose record.
        after: number of a grant to continue after.
        limit: rows wanted.
    """
    result = await session.execute(
        sa.select(
            ExternalAccess.id,
            ExternalAccess.user_id,
            *SHOWN,
            ExternalAccess.granted_at,
            ExternalAccess.granted_by_user_id,
            ExternalAccess.access_level,
        )
        .join(UserAccount, UserAccount.id == ExternalAccess.user_id)
        .where(is_active_grant(patient_id), ExternalAccess.id > after)
        .order_by(ExternalAccess.id)
        .limit(limit)
    )
    return result.all()


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
