"""Finding people: all of them for admins, those around a patient for whoever may see the patient."""

from collections.abc import Sequence
from dataclasses import dataclass

from quill.access import service as access
from quill.access.service import Requirement
from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import PatientNotFound, PermissionLevelUnknown, UserNotFound
from quill.identity import memberships, people
from quill.identity.people import Person, PersonLine
from quill.kit.ids import PatientId, UserId, is_fhir_id
from quill.kit.paging import Page, PageRequest
from quill.organisations import service as organisations
from quill.unit import Reader

RANKED = (Level.PATIENT, Level.STAFF, Level.ADMIN, Level.SUPERADMIN)
"""The levels a list can ask for as the least wanted."""


@dataclass(frozen=True, slots=True)
class Employer:
    """An organisation somebody is staff of."""

    id: int
    name: str
    is_primary: bool


@dataclass(frozen=True, slots=True)
class UserDetails:
    """An account, and the organisations the person is staff of, in order of their numbers."""

    person: Person
    organisations: Sequence[Employer]


async def list_around_patient(
    reader: Reader, actor: Actor, patient_id: str, page: PageRequest
) -> tuple[Page[PersonLine], int]:
    """Return whom to write to about a patient: staff of the patient's organisations, and holders of active grants.

    Disabled accounts are left out.

    Returns:
        A page in order of usernames, and how many there are in all.

    Raises:
        PatientNotFound: 404, the caller is an outsider.
    """
    if not is_fhir_id(patient_id):
        raise PatientNotFound
    patient = PatientId(patient_id)
    await access.check_patient(reader, reader.session, actor, patient, Requirement())
    audit.record(reader, actor, Act.USER_LIST, patient_id=patient)
    return await people.list_people_around(reader.session, page, patient)


async def list_users(
    reader: Reader, actor: Actor, least: str | None, page: PageRequest
) -> tuple[Page[PersonLine], int]:
    """Return accounts, disabled ones too, for admins.

    Args:
        reader: where to look.
        actor: who asks.
        least: only people of this level or above; external people never match. ``None`` means everybody.
        page: which rows.

    Returns:
        A page in order of usernames, and how many there are in all.

    Raises:
        LevelMissing: 403, not an admin.
        PermissionLevelUnknown: 400, not one of the ranked levels.
    """
    access.check_rights(reader, actor, Requirement(level=Level.ADMIN))
    levels = None
    if least is not None:
        if least not in RANKED:
            raise PermissionLevelUnknown(f"Invalid permission_level: {least}")
        levels = [level for level in RANKED if level.reaches(Level(least))]
    audit.record(reader, actor, Act.USER_LIST)
    return await people.list_people(reader.session, page, levels=levels)


async def get(reader: Reader, actor: Actor, user_id: UserId) -> UserDetails:
    """Return all an admin may know about an account.

    Raises:
        UserNotFound: 404.
    """
    person = await people.find_person(reader.session, user_id)
    if person is None:
        raise UserNotFound
    held = await memberships.staff_memberships(reader.session, user_id)
    rows = await organisations.named(reader.session, held)
    audit.record(reader, actor, Act.USER_READ, subject=f"user:{user_id}", patient_id=person.patient_id)
    return UserDetails(person, [Employer(row.id, row.name, held[row.id]) for row in rows])
