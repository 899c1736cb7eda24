"""Who belongs to which organisation: staff and patients."""

import functools
from collections.abc import Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity.models import OrganisationPatientMember, OrganisationStaffMember, UserAccount
from quill.identity.queries.people import SHOWN
from quill.identity.terms import ActorShape, actor_values
from quill.kit.ids import OrganisationId, PatientId, UserId

_PATIENT_MEMBER = cast("sa.Table", OrganisationPatientMember.__table__)


_CARING = (
    sa.select(_PATIENT_MEMBER.c.organisation_id)
    .where(_PATIENT_MEMBER.c.patient_id == sa.bindparam("subject"))
    .order_by(_PATIENT_MEMBER.c.organisation_id)
)


@functools.cache
def _shared(actor: ActorShape) -> sa.Select[int]:
    return _CARING.where(actor.works_in(_PATIENT_MEMBER.c.organisation_id))


async def shared_organisations(session: AsyncSession, actor: Actor, patient_id: PatientId) -> list[int]:
    """Return the organisations that a staff member and a patient both belong to, in order."""
    return list(await session.scalars(_shared(ActorShape.of(actor)), actor_values(actor) | {"subject": patient_id}))


async def patient_organisations(session: AsyncSession, patient_id: PatientId) -> list[int]:
    """Return every organisation that cares for a patient, in order."""
    return list(await session.scalars(_CARING, {"subject": patient_id}))


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
            UserAccount.username_folded,
            *SHOWN,
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
