"""Who works in an organisation and which patients it cares for.

Access follows from memberships at every request, so leaving takes effect at the next one, everywhere.
"""

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import (
    AlreadyMember,
    MembershipNotFound,
    NotStaffLevel,
    OrganisationNotFound,
    PatientNotFound,
    UserNotFound,
)
from quill.identity import memberships, people
from quill.identity import service as identity
from quill.identity.people import Person
from quill.kit.ids import OrganisationId, PatientId, UserId, is_fhir_id
from quill.organisations import queries
from quill.organisations.service.places import WITH_Z
from quill.patients import service as patients
from quill.unit import Unit


async def add_staff(unit: Unit, actor: Actor, organisation_id: OrganisationId, user_id: UserId) -> Person:
    """Make somebody staff of an organisation: its patients are theirs to see from the next request on.

    Returns:
        The person.

    Raises:
        OrganisationNotFound: 404.
        UserNotFound: 404.
        NotStaffLevel: 400, below staff level; external people are.
        AlreadyMember: 409.
    """
    if await queries.find_organisation(unit.session, organisation_id) is None:
        raise OrganisationNotFound(WITH_Z)
    person = await people.lock_person(unit, user_id)
    if person is None:
        raise UserNotFound
    if not person.level.reaches(Level.STAFF):
        raise NotStaffLevel
    if not await identity.add_staff_membership(unit, organisation_id, user_id):
        raise AlreadyMember
    audit.record(unit, actor, Act.MEMBERSHIP_ADD, subject=_staff(organisation_id, user_id))
    return person


async def remove_staff(unit: Unit, actor: Actor, organisation_id: OrganisationId, user_id: UserId) -> None:
    """End somebody's membership; the oldest of the others becomes the primary one when this was.

    Raises:
        MembershipNotFound: 404, not a member, or there is no such organisation.
    """
    if not await memberships.remove_staff_membership(unit, organisation_id, user_id):
        raise MembershipNotFound
    audit.record(unit, actor, Act.MEMBERSHIP_REMOVE, subject=_staff(organisation_id, user_id))


async def add_patient(unit: Unit, actor: Actor, organisation_id: OrganisationId, patient_id: str) -> None:
    """Put a patient into an organisation's care.

    Raises:
        OrganisationNotFound: 404.
        PatientNotFound: 404, there is no such patient.
        PatientDeactivated: 409.
        AlreadyMember: 409.
    """
    if await queries.find_organisation(unit.session, organisation_id) is None:
        raise OrganisationNotFound(WITH_Z)
    if not is_fhir_id(patient_id):
        raise PatientNotFound
    patient = PatientId(patient_id)
    await patients.hold(unit, patient)
    await patients.check_takes_entries(unit, patient)
    if not await identity.add_patient_membership(unit, organisation_id, patient):
        raise AlreadyMember("Patient is already a member of this organisation")
    audit.record(unit, actor, Act.MEMBERSHIP_ADD, patient_id=patient, subject=f"organisation:{organisation_id}")


async def remove_patient(unit: Unit, actor: Actor, organisation_id: OrganisationId, patient_id: str) -> None:
    """End an organisation's care for a patient; the oldest of the others becomes the primary one when this was.

    Raises:
        MembershipNotFound: 404, not in its care, or there is no such organisation.
    """
    patient = PatientId(patient_id)
    await patients.hold(unit, patient)
    if not await memberships.remove_patient_membership(unit, organisation_id, patient):
        raise MembershipNotFound
    audit.record(unit, actor, Act.MEMBERSHIP_REMOVE, patient_id=patient, subject=f"organisation:{organisation_id}")


def _staff(organisation_id: OrganisationId, user_id: UserId) -> str:
    return f"organisation:{organisation_id}/user:{user_id}"
