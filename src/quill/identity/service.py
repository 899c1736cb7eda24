"""People as the rest of the house knows them: actors, credentials, accounts, ties to patients."""

import functools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import EmailTaken, PatientAlreadyLinked, Unprocessable, UsernameTaken
from quill.identity import catalogue, grants, memberships, queries, registering, registration
from quill.identity.models import LONGEST_FOLDED_EMAIL, LONGEST_FOLDED_USERNAME, UserAccount, UserRole
from quill.identity.registration import Registration
from quill.kit import clock
from quill.kit.ids import LoginId, OrganisationId, PatientId, UserId
from quill.settings import Settings
from quill.unit import Unit

PERSON_ID = queries.ACCOUNT.c.id
"""The column to join on in a statement built upon ``person_select``."""
PERSON_USERNAME = queries.ACCOUNT.c.username
PERSON_DISPLAY_NAME = sa.func.coalesce(
    sa.func.nullif(queries.ACCOUNT.c.full_name, ""), queries.ACCOUNT.c.username, type_=sa.String()
)
"""What others see of somebody: the full name, else the username."""
PERSON_PATIENT_ID = queries.ACCOUNT.c.patient_id
"""The person's own patient record, if linked."""

Anybody = queries.Anybody
person_select = queries.person_select
person_exists = queries.person_exists
related_patients = queries.related_patients
is_related = queries.is_related
in_several = queries.in_several
shares_organisation = queries.shares_organisation
number_cared_for = queries.number_cared_for
Ties = queries.Ties
relationships = queries.relationships
person_with_ties_select = queries.person_with_ties_select
holds_grant = queries.holds_grant
granted_patients = queries.granted_patients
grant_holders = queries.grant_holders
shared_organisations = queries.shared_organisations
patient_organisations = queries.patient_organisations
is_anybody_there = queries.is_anybody_there
add_staff_membership = memberships.add_staff_membership
add_patient_membership = memberships.add_patient_membership
add_new_patients = memberships.add_new_patients
grant_access = grants.grant_access
end_access = grants.end_access
holds_access = queries.holds_access
grants_page = queries.grants_page


@dataclass(frozen=True, slots=True)
class NewPerson:
    """An account to be made; the password is hashed already, names and addresses are trimmed."""

    username: str
    email: str
    password_hash: str
    full_name: str | None = None
    level: Level = Level.PATIENT
    profession: str = "patient"
    additional_competencies: Sequence[str] = ()
    removed_competencies: Sequence[str] = ()
    roles: Sequence[str] = ()
    registrations: Sequence[Registration] = ()
    patient_id: PatientId | None = None


def folded(name: str) -> str:
    """Return a username or e-mail address for comparing: trimmed and without case."""
    return name.strip().casefold()


# What a row says is worked out once for each row there is; what somebody's row holds is asked with every request.


@functools.lru_cache(maxsize=1000)
def _registrations(text: str | None) -> tuple[Registration, ...]:
    pairs = (part.split(":", 1) for part in text.split(queries.SEPARATOR)) if text else ()
    return tuple(sorted(Registration(body, number) for body, number in pairs))


def _organisations(text: str) -> tuple[OrganisationId, ...]:
    return tuple(sorted(OrganisationId(int(part)) for part in text.split(queries.SEPARATOR)))


@functools.lru_cache(maxsize=1000)
def listed_competencies(text: str) -> tuple[str, ...]:
    """Return the competencies that a column of a ``person_select`` row holds, sorted, each once."""
    return tuple(sorted(set(json.loads(text))))


def registrations_from(row: sa.Row[Any]) -> tuple[Registration, ...]:
    """Return the professional registrations of a ``person_select`` row, sorted."""
    return _registrations(row.registrations)


def actor_from(row: sa.Row[Any], settings: Settings, login_id: LoginId | None = None) -> Actor:
    """Return the actor a ``person_select`` row describes; memberships count from staff level upwards only.

    Args:
        row: of ``person_select``.
        settings: whether a profession counts without its registration.
        login_id: the login the request came with.
    """
    return _actor(queries.PersonRow.of(row), login_id, asks_for_registration=settings.require_professional_registration)


@functools.lru_cache(maxsize=1000)
def _actor(person: queries.PersonRow, login_id: LoginId | None, *, asks_for_registration: bool) -> Actor:
    level = Level(person.permission_level)
    is_staff = level.reaches(Level.STAFF)
    return Actor(
        user_id=UserId(person.id),
        name=person.username,
        display_name=person.full_name or person.username,
        level=level,
        email=person.email,
        roles=frozenset(person.roles.split(queries.SEPARATOR)) if person.roles else frozenset(),
        competencies=registration.held(
            person.base_profession,
            listed_competencies(person.additional_competencies),
            listed_competencies(person.removed_competencies),
            {found.body for found in _registrations(person.registrations)},
            asks_for_registration=asks_for_registration,
        ),
        organisation_ids=_organisations(person.organisations) if is_staff and person.organisations else (),
        primary_organisation_id=person.primary_organisation_id if is_staff else None,
        patient_id=PatientId(person.patient_id) if person.patient_id else None,
        login_id=login_id,
    )


def ties_from(row: sa.Row[Any], actor: Actor, patient_id: PatientId) -> Ties:
    """Return what ties the actor of a ``person_with_ties_select`` row to the patient it was asked about."""
    # As with the organisations of an actor, memberships count from staff level upwards only.
    return Ties(patient_id, shares_organisation=actor.is_staff and bool(row.shares), holds_grant=bool(row.holds))


async def find_actor(session: AsyncSession, settings: Settings, user_id: UserId) -> Actor | None:
    """Return an active person as an actor, or ``None`` when there is no such person or the account is disabled."""
    return (await find_actors(session, settings, [user_id])).get(user_id)


async def find_actors(session: AsyncSession, settings: Settings, user_ids: Collection[UserId]) -> dict[UserId, Actor]:
    """Return those of some people whose accounts exist and are active, as actors; one statement."""
    rows = await queries.active_people(session, user_ids)
    return {UserId(row.id): actor_from(row, settings) for row in rows}


async def find_linked_person(session: AsyncSession, patient_id: PatientId) -> UserId | None:
    """Return whose record a patient's is, or ``None`` when no active account is linked to it."""
    user_id = await queries.linked_person(session, patient_id)
    return UserId(user_id) if user_id is not None else None


def check_catalogued(
    *, profession: str | None = None, competencies: Sequence[str] = (), roles: Sequence[str] = ()
) -> None:
    """Refuse a profession, competency or role that is not in the catalogues.

    Raises:
        Unprocessable: 422, naming the field.
    """
    if profession is not None and profession not in catalogue.PROFESSIONS:
        raise Unprocessable.at("base_profession", "Unknown profession", kind="not_in_catalogue")
    if any(competency not in catalogue.COMPETENCIES for competency in competencies):
        raise Unprocessable.at("competencies", "Unknown competency", kind="not_in_catalogue")
    if any(role not in catalogue.ROLES for role in roles):
        raise Unprocessable.at("roles", "Unknown role", kind="not_in_catalogue")


async def check_free(session: AsyncSession, username: str, email: str, *, but: UserId | None = None) -> None:
    """Refuse a username or an e-mail address that somebody else has, or that is too long to be compared.

    Args:
        session: where to look.
        username: as typed.
        email: as typed.
        but: whose they may be.

    Raises:
        UsernameTaken: 400, case ignored.
        EmailTaken: 400, case ignored.
        Unprocessable: 422, a name that grows beyond all measure when its case is folded.
    """
    if len(folded(username)) > LONGEST_FOLDED_USERNAME:
        raise Unprocessable.at("username", "The username is too long", kind="string_too_long")
    if len(folded(email)) > LONGEST_FOLDED_EMAIL:
        raise Unprocessable.at("email", "The e-mail address is too long", kind="string_too_long")
    username_taken, email_taken = await queries.taken(session, username=folded(username), email=folded(email), but=but)
    if username_taken:
        raise UsernameTaken
    if email_taken:
        raise EmailTaken


async def create_person(unit: Unit, actor: Actor | None, person: NewPerson) -> UserId:
    """Make an account that can sign in at once.

    Args:
        unit: the transaction.
        actor: who makes it; ``None`` when people register themselves.
        person: what it holds.

    Returns:
        The new person's id.

    Raises:
        UsernameTaken: 400, case ignored.
        EmailTaken: 400, case ignored.
        RegistrationTaken: 409, a registration is another person's.
        Unprocessable: 422, something is not in the catalogues.
    """
    check_catalogued(
        profession=person.profession,
        competencies=[*person.additional_competencies, *person.removed_competencies],
        roles=person.roles,
    )
    await check_free(unit.session, person.username, person.email)
    now = clock.now()
    account = UserAccount(
        username=person.username.strip(),
        username_folded=folded(person.username),
        full_name=person.full_name,
        email=person.email.strip(),
        email_folded=folded(person.email),
        password_hash=person.password_hash,
        is_totp_enabled=False,
        is_active=True,
        patient_id=person.patient_id,
        permission_level=person.level.value,
        base_profession=person.profession,
        additional_competencies=sorted(set(person.additional_competencies)),
        removed_competencies=sorted(set(person.removed_competencies)),
        created_at=now,
        updated_at=now,
    )
    try:
        async with unit.session.begin_nested():
            unit.session.add(account)
    except IntegrityError:
        # Somebody took the name between the check and the write; the check can say which it was.
        await check_free(unit.session, person.username, person.email)
        raise
    unit.session.add_all(UserRole(user_id=account.id, role=role) for role in sorted(set(person.roles)))
    await unit.session.flush()
    await registering.add(unit, UserId(account.id), person.registrations)
    audit.record(unit, actor, Act.USER_CREATE, subject=f"user:{account.id}", patient_id=person.patient_id)
    return UserId(account.id)


async def link_patient(unit: Unit, actor: Actor, user_id: UserId, patient_id: PatientId | None) -> None:
    """Tie an account to a patient record as the person's own, in place of an earlier one, or untie it with ``None``.

    Whether there is such a patient, and whether the actor may, is asked by the caller.

    Raises:
        PatientAlreadyLinked: 409, the record is another account's.
    """
    before = await queries.linked_patient(unit.session, user_id)
    try:
        async with unit.session.begin_nested():
            await unit.session.execute(
                sa.update(UserAccount)
                .where(UserAccount.id == user_id)
                .values(patient_id=patient_id, updated_at=clock.now())
            )
    except IntegrityError as error:
        raise PatientAlreadyLinked from error
    if patient_id is not None:
        audit.record(unit, actor, Act.USER_LINK_PATIENT, patient_id=patient_id, subject=f"user:{user_id}")
    elif before is not None:
        unlinked = PatientId(before)
        audit.record(unit, actor, Act.USER_UNLINK_PATIENT, patient_id=unlinked, subject=f"user:{user_id}")
