"""Who works in an organisation and which patients it cares for: joining, leaving, and which membership is primary."""

from collections.abc import Sequence
from typing import cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.identity import queries
from quill.identity.models import OrganisationPatientMember, OrganisationStaffMember
from quill.kit import clock
from quill.kit.ids import OrganisationId, PatientId, UserId
from quill.unit import Unit

member_counts = queries.member_counts
staff_page = queries.staff_page
patient_page = queries.patient_page
staff_memberships = queries.staff_memberships


async def add_staff_membership(unit: Unit, organisation_id: OrganisationId, user_id: UserId) -> bool:
    """Make somebody staff of an organisation; the first membership is the primary one.

    Returns:
        Whether it is new; ``False`` when the person was a member already.
    """
    await queries.lock_person(unit.session, user_id)
    held = await queries.staff_memberships(unit.session, user_id)
    if organisation_id in held:
        return False
    unit.session.add(
        OrganisationStaffMember(
            organisation_id=organisation_id,
            user_id=user_id,
            is_primary=not any(held.values()),
            joined_at=clock.now(),
        )
    )
    await unit.session.flush()
    return True


async def remove_staff_membership(unit: Unit, organisation_id: OrganisationId, user_id: UserId) -> bool:
    """End somebody's membership; when it was the primary one, the oldest that remains becomes it.

    Returns:
        Whether there was one.
    """
    await queries.lock_person(unit.session, user_id)
    held = await queries.lock_staff_memberships(unit.session, user_id)
    return await _leave(unit.session, held, organisation_id)


async def add_patient_membership(unit: Unit, organisation_id: OrganisationId, patient_id: PatientId) -> bool:
    """Put a patient into an organisation's care; the first organisation is the primary one.

    Returns:
        Whether it is new; ``False`` when the patient was in its care already.
    """
    held = await queries.lock_patient_memberships(unit.session, patient_id)
    if any(member.organisation_id == organisation_id for member in held):
        return False
    if not any(member.is_primary for member in held) and await _add_patient(unit.session, organisation_id, patient_id):
        return True
    # Either there is a primary one, or another request has just made one, perhaps of this very organisation.
    return await _add_patient(unit.session, organisation_id, patient_id, is_primary=False)


async def add_new_patients(unit: Unit, organisation_id: OrganisationId, patient_ids: Sequence[PatientId]) -> None:
    """Put patients no organisation cares for yet into one organisation's care, which becomes their primary one.

    For patients this very unit has made; one statement for all.
    """
    now = clock.now()
    rows = [
        {"organisation_id": organisation_id, "patient_id": patient_id, "is_primary": True, "joined_at": now}
        for patient_id in patient_ids
    ]
    if rows:
        await unit.session.execute(sa.insert(cast("sa.Table", OrganisationPatientMember.__table__)), rows)


async def _add_patient(
    session: AsyncSession, organisation_id: OrganisationId, patient_id: PatientId, *, is_primary: bool = True
) -> bool:
    member = OrganisationPatientMember(
        organisation_id=organisation_id, patient_id=patient_id, is_primary=is_primary, joined_at=clock.now()
    )
    try:
        async with session.begin_nested():
            session.add(member)
    except IntegrityError:
        return False
    return True


async def remove_patient_membership(unit: Unit, organisation_id: OrganisationId, patient_id: PatientId) -> bool:
    """End an organisation's care for a patient; when it was the primary one, the oldest that remains becomes it.

    Returns:
        Whether the patient was in its care.
    """
    held = await queries.lock_patient_memberships(unit.session, patient_id)
    return await _leave(unit.session, held, organisation_id)


async def _leave(
    session: AsyncSession,
    held: list[OrganisationStaffMember] | list[OrganisationPatientMember],
    organisation_id: OrganisationId,
) -> bool:
    """Delete one of the memberships held, oldest first, and promote the next when it was the primary one."""
    leaving = next((member for member in held if member.organisation_id == organisation_id), None)
    if leaving is None:
        return False
    was_primary = leaving.is_primary
    await session.delete(leaving)
    # Gone before the next is promoted: only one may be primary at any moment.
    await session.flush()
    remaining = [member for member in held if member is not leaving]
    if was_primary and remaining:
        remaining[0].is_primary = True
        await session.flush()
    return True
