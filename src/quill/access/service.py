"""The one decision about a person and a patient, and the checks of level, role and competency."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import (
    CompetencyMissing,
    LevelMissing,
    NotFound,
    NotOwnRecord,
    PatientNotFound,
    QuillError,
    RoleMissing,
)
from quill.identity import service as identity
from quill.identity.terms import Terms
from quill.kit.ids import PatientId, UserId
from quill.unit import Reader


class Relationship(StrEnum):
    """What ties an actor to a patient."""

    OWN_RECORD = "own_record"
    SHARED_ORGANISATION = "shared_organisation"
    EXTERNAL_GRANT = "external_grant"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a call needs besides a login.

    Attributes:
        level: at least this permission level.
        level_sentence: the words for a missing level where the wire wants particular ones.
        role: a role that must be held.
        competency: a competency that must be held.
        admin_suffices: whether admins need neither the role nor the competency.
        is_clinical: whether it needs the clinical services to be switched on.
        owner_sentence: when given, only the patient and admins may, and these are the words for everybody else inside.
    """

    level: Level = Level.PATIENT
    level_sentence: str | None = None
    role: str | None = None
    competency: str | None = None
    admin_suffices: bool = False
    is_clinical: bool = False
    owner_sentence: str | None = None


async def find_relationship(
    session: AsyncSession, actor: Actor, patient_id: PatientId, ties: identity.Ties | None = None
) -> Relationship | None:
    """Return what ties an actor to a patient, or ``None`` for an outsider.

    The only place this is decided. Whether the patient exists is not asked here: an outsider learns nothing about that.

    Args:
        session: where to look.
        actor: who wants something.
        patient_id: about whom.
        ties: what the rows say, when they have been read together with the actor's rights.
    """
    known = _tie_by_itself(actor, patient_id)
    if known is not None:
        return known
    if ties is None or ties.patient_id != patient_id:
        ties = await identity.relationships(session, actor, patient_id)
    return _tie_by_rows(shares=ties.shares_organisation, holds=ties.holds_grant)


def _tie_by_itself(actor: Actor, patient_id: PatientId) -> Relationship | None:
    """Return what ties an actor to a patient as far as the actor alone tells."""
    if actor.is_admin:
        return Relationship.ADMIN
    if actor.patient_id is not None and actor.patient_id == patient_id:
        return Relationship.OWN_RECORD
    return None


def _tie_by_rows(*, shares: bool, holds: bool) -> Relationship | None:
    if shares:
        return Relationship.SHARED_ORGANISATION
    return Relationship.EXTERNAL_GRANT if holds else None


def is_related(actor: Terms, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return ``find_relationship`` as a condition on the patient of a row, for lists over many patients."""
    return sa.true() if actor.is_admin else identity.is_related(actor, patient_id)


def is_personally_related(actor: Terms, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the patient of a row is the actor, or granted the actor access."""
    return sa.or_(actor.is_own_record(patient_id), identity.holds_grant(actor, patient_id))


async def find_allowed(
    reader: Reader, patient_id: PatientId, user_ids: Collection[UserId], requirement: Requirement
) -> dict[UserId, Actor]:
    """Return those of some people who are active, tied to a patient and hold the rights required.

    Three statements, however many people.
    """
    if not user_ids:
        return {}
    people = await identity.find_actors(reader.session, reader.settings, user_ids)
    allowed = await who_is_allowed(reader.session, people.values(), patient_id, requirement)
    return {user_id: person for user_id, person in people.items() if user_id in allowed}


async def who_is_allowed(
    session: AsyncSession, people: Collection[Actor], patient_id: PatientId, requirement: Requirement
) -> set[UserId]:
    """Return those of some people who are tied to a patient and hold the rights required.

    Two statements, however many people.
    """
    caring = set(await identity.patient_organisations(session, patient_id))
    holders = await identity.grant_holders(session, patient_id, {person.person_id for person in people})

    def is_allowed(person: Actor) -> bool:
        tie = _tie_by_itself(person, patient_id) or _tie_by_rows(
            shares=not caring.isdisjoint(person.organisation_ids), holds=person.person_id in holders
        )
        return tie is not None and missing_right(person, requirement) is None

    return {person.person_id for person in people if is_allowed(person)}


def missing_right(actor: Actor, requirement: Requirement) -> QuillError | None:
    """Return the refusal for the first right an actor lacks, or ``None`` when nothing is lacking."""
    if not actor.level.reaches(requirement.level):
        return LevelMissing(requirement.level_sentence)
    if requirement.admin_suffices and actor.is_admin:
        return None
    if requirement.role is not None and requirement.role not in actor.roles:
        return RoleMissing()
    if requirement.competency is not None and requirement.competency not in actor.competencies:
        return CompetencyMissing(requirement.competency)
    return None


def check_rights(
    reader: Reader, actor: Actor, requirement: Requirement, *, patient_id: PatientId | None = None
) -> None:
    """Refuse an actor who lacks a right, and leave that in the audit trail.

    Raises:
        Forbidden: 403, naming what is missing.
    """
    refusal = missing_right(actor, requirement)
    if refusal is not None:
        audit.record_refusal(reader, actor, Act.ACCESS_CHECK, reason=refusal.code, patient_id=patient_id)
        raise refusal


_OWNERS = frozenset({Relationship.OWN_RECORD, Relationship.ADMIN})


def owns(relationship: Relationship | None) -> bool:
    """Tell whether a relationship lets somebody decide who else sees the patient's record."""
    return relationship in _OWNERS


async def check_patient(
    reader: Reader,
    session: AsyncSession,
    actor: Actor,
    patient_id: PatientId,
    requirement: Requirement,
    *,
    absent: type[NotFound] = PatientNotFound,
    ties: identity.Ties | None = None,
) -> Relationship:
    """Refuse an actor outside a patient's circle, then one inside it without the right.

    Args:
        reader: where a refusal is recorded.
        session: where to look; autocommit for guards, the unit's own for services.
        actor: who wants something.
        patient_id: about whom.
        requirement: what it needs.
        absent: the 404 that an outsider gets.
        ties: what the rows say of both, when they have been read already.

    Returns:
        What ties the actor to the patient.

    Raises:
        NotFound: 404, an outsider; as if there were nothing.
        Forbidden: 403, an insider without the right.
    """
    relationship = await find_relationship(session, actor, patient_id, ties)
    if relationship is None:
        audit.record_refusal(reader, actor, Act.ACCESS_CHECK, reason="no_relationship", patient_id=patient_id)
        raise absent
    if requirement.owner_sentence is not None and not owns(relationship):
        audit.record_refusal(reader, actor, Act.ACCESS_CHECK, reason=NotOwnRecord.code, patient_id=patient_id)
        raise NotOwnRecord(requirement.owner_sentence)
    check_rights(reader, actor, requirement, patient_id=patient_id)
    return relationship
