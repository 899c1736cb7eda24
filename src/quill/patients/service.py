"""Decisions and writes about patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from quill.access import service as access
from quill.access.service import Requirement
from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import (
    NhsNumberTaken,
    PatientDeactivated,
    PatientExists,
    PatientNotFound,
    PatientNotInFhir,
    StaleEdit,
    Unavailable,
)
from quill.identity.catalogue import ACCESS_PATIENT_RECORDS
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit import clock, ids
from quill.kit.documents import Document, dumps
from quill.kit.ids import OrganisationId, PatientId
from quill.patients import demographics, queries
from quill.patients.demographics import Changes
from quill.patients.models import PatientIndex
from quill.patients.projection import PatientKind
from quill.ports import fhir_patient
from quill.ports.fhir import StoredResource
from quill.ports.fhir_content import same_content
from quill.ports.fhir_meta import with_source
from quill.unit import Reader, Unit

KIND = PatientKind()


@dataclass(frozen=True, slots=True)
class PatientText:
    """A patient's resource, ready to be sent.

    Attributes:
        patient_id: whose.
        version: for the ``ETag``.
        text: the FHIR Patient with ``meta`` as JSON text.
    """

    patient_id: PatientId
    version: int
    text: str


@dataclass(frozen=True, slots=True)
class NewPatient:
    """A patient somebody adds.

    Attributes:
        changes: what is told about the patient.
        patient_id: the FHIR id wanted; one is minted when it is ``None``.
        idempotency_key: the caller's own key.
        fingerprint: digest of what the caller sent.
    """

    changes: Changes
    patient_id: PatientId | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""


async def check_takes_entries(reader: Reader, patient_id: PatientId) -> None:
    """Refuse to write about a patient who is unknown or whose record is deactivated.

    Raises:
        PatientNotFound: 404, Quill knows no such patient.
        PatientDeactivated: 409, the record takes no new entries.
    """
    refuse_entries(await queries.find_activity(reader.session, patient_id))


async def hold(unit: Unit, patient_id: PatientId) -> None:
    """Keep a patient's row from being changed by others until the unit ends; to be done before memberships change.

    With a membership goes what its organisation's list says of the patient, and with the patient's row what the lists
    of all organisations say (decision record 0022). Whoever changes either begins with the row, so that no two wait
    for each other.
    """
    await queries.lock_version(unit.session, patient_id)


def activity_of(patient_id: sa.ColumnElement[str]) -> sa.ScalarSelect[bool]:
    """Return what ``refuse_entries`` goes by, as an expression for the statements of other slices.

    Args:
        patient_id: a column that names the patient.
    """
    return queries.activity_of(patient_id)


def refuse_entries(is_active: bool | None) -> None:
    """Refuse as ``check_takes_entries`` does, where ``activity_of`` a patient is known.

    Raises:
        PatientNotFound: 404, ``None``: Quill knows no such patient.
        PatientDeactivated: 409, the record takes no new entries.
    """
    if is_active is None:
        raise PatientNotFound
    if not is_active:
        raise PatientDeactivated


async def check_known(reader: Reader, patient_id: PatientId) -> None:
    """Refuse to speak of a patient Quill does not know; for lists about one, where an admin is tied to everybody.

    Raises:
        PatientNotFound: 404.
    """
    if await queries.find_activity(reader.session, patient_id) is None:
        raise PatientNotFound


async def display_names(reader: Reader, patient_ids: Sequence[PatientId]) -> dict[PatientId, str]:
    """Return what to call each of these patients, for lists; one Quill does not know is missing."""
    return await queries.display_names(reader.session, patient_ids) if patient_ids else {}


async def get(reader: Reader, actor: Actor, patient_id: PatientId) -> PatientText:
    """Return a patient's resource as the store holds it, deactivated or not.

    Raises:
        PatientNotFound: 404, the store says that there is none.
        Unavailable: 503 or 502, the store does not answer, or wrongly.
    """
    stored = await _find(reader, actor, patient_id, Act.PATIENT_READ)
    audit.record(reader, actor, Act.PATIENT_READ, patient_id=patient_id)
    return PatientText(patient_id, stored.version, dumps(stored.document))


async def is_active(reader: Reader, actor: Actor, patient_id: PatientId) -> bool:
    """Return whether a patient's record is active.

    Raises:
        PatientNotFound: 404, Quill knows no such patient.
    """
    activity = await queries.find_activity(reader.session, patient_id)
    if activity is None:
        raise PatientNotFound
    audit.record(reader, actor, Act.PATIENT_READ, patient_id=patient_id, subject="patient:metadata")
    return activity


async def verify(unit: Unit, actor: Actor, patient_id: PatientId) -> None:
    """Return when the store holds a patient the actor may read about.

    Raises:
        PatientNotInFhir: 404, it does not, or the patient is none of the actor's.
        CompetencyMissing: 403, the actor may not read records.
        Unavailable: 503 or 502, the store does not answer, or wrongly.
    """
    reads = Requirement(competency=ACCESS_PATIENT_RECORDS)
    if not ids.is_fhir_id(patient_id):
        raise PatientNotInFhir
    async with unit.reading() as session:
        await access.check_patient(unit, session, actor, patient_id, reads, absent=PatientNotInFhir)
    try:
        await _find(unit, actor, patient_id, Act.PATIENT_VERIFY)
    except PatientNotFound as error:
        raise PatientNotInFhir from error
    audit.record(unit, actor, Act.PATIENT_VERIFY, patient_id=patient_id)


async def add(unit: Unit, actor: Actor, wanted: NewPatient) -> PatientText:
    """Add a patient, who joins the primary organisation of whoever adds it.

    Returns:
        The resource as stored; that of the first call when the idempotency key is repeated.

    Raises:
        PatientExists: 409, the id is in use.
        NhsNumberTaken: 409, a live record holds the NHS number.
        IdempotencyKeyReused: 409, the key was used for something else.
        InvalidRecord: 422, it would be no valid Patient.
    """
    earlier = await intents.find_result(unit, actor, wanted.idempotency_key, wanted.fingerprint)
    if earlier is not None:
        return await _projected(unit, PatientId(earlier["patient_id"]))
    patient_id = wanted.patient_id or PatientId(ids.new_uuid())
    made = await create(
        unit,
        actor,
        with_source(demographics.new_document(patient_id, wanted.changes), unit.settings.source_uri),
        organisation_id=actor.primary_organisation_id,
        idempotency_key=wanted.idempotency_key,
        fingerprint=wanted.fingerprint,
    )
    return await _projected(unit, made)


async def create(
    unit: Unit,
    actor: Actor,
    document: Document,
    *,
    organisation_id: OrganisationId | None,
    act: Act = Act.PATIENT_CREATE,
    idempotency_key: str | None = None,
    fingerprint: str = "",
) -> PatientId:
    """Add a patient under the id the document carries, in an organisation's care.

    Args:
        unit: the transaction.
        actor: who adds it.
        document: a FHIR Patient with ``id``.
        organisation_id: who cares for the patient; ``None`` leaves that to an admin.
        act: what the audit trail calls it.
        idempotency_key: the caller's own key; ``intents.find_result`` has been asked already.
        fingerprint: digest of what the caller sent.

    Returns:
        The patient's id.

    Raises:
        PatientExists: 409, the id is in use.
        NhsNumberTaken: 409, a live record holds the NHS number.
        InvalidRecord: 422, the document is no valid Patient.
    """
    patient_id = PatientId(document["id"])
    if await queries.find_activity(unit.session, patient_id) is not None:
        raise PatientExists
    claims = [f"patient:{patient_id}", *await _number_claims(unit, document, patient_id)]
    payload: Document = {"document": document, "if_match": 0, "organisation_id": organisation_id, "act": act.value}
    wish = Wish(KIND, payload, claims=claims, idempotency_key=idempotency_key, fingerprint=fingerprint)
    try:
        result = await intents.perform(unit, actor, wish)
    except StaleEdit as error:
        # Somebody else added it at the same moment, or the store knows it from elsewhere.
        raise PatientExists from error
    return PatientId(result["patient_id"])


async def edit(
    unit: Unit, actor: Actor, patient_id: PatientId, changes: Changes, *, if_match: int | None
) -> PatientText:
    """Change a patient's demographics; what is not told about is kept.

    Args:
        unit: the transaction.
        actor: who changes them.
        patient_id: whose.
        changes: what is told.
        if_match: the version the caller has seen. Without it, of two edits at one moment either both take effect or
            one is refused.

    Returns:
        The resource as stored.

    Raises:
        PatientNotFound: 404, there is no such patient.
        PatientDeactivated: 409, the record takes no changes.
        NhsNumberTaken: 409, a live record holds the NHS number.
        StaleEdit: 412, somebody else changed the record since.
        InvalidRecord: 422, the result would be no valid Patient.
    """
    stored = await _find(unit, actor, patient_id, Act.PATIENT_CHANGE)
    await check_takes_entries(unit, patient_id)
    if if_match is not None and if_match != stored.version:
        raise StaleEdit
    document = demographics.with_changes(stored.document, changes)
    if not same_content(stored.document, document):
        document = with_source(document, unit.settings.source_uri)
    return await replace(unit, actor, stored, document, act=Act.PATIENT_CHANGE)


async def replace(unit: Unit, actor: Actor, stored: StoredResource, document: Document, *, act: Act) -> PatientText:
    """Put a whole resource in the place of the version read; the same content makes no new version.

    Raises:
        NhsNumberTaken: 409, a live record holds the NHS number.
        StaleEdit: 412, the version read is not the current one any more.
        InvalidRecord: 422, it is no valid Patient.
    """
    patient_id = PatientId(stored.id)
    if same_content(stored.document, document):
        audit.record(unit, actor, act, patient_id=patient_id, reason="unchanged")
        return PatientText(patient_id, stored.version, dumps(stored.document))
    claims = [f"patient:{patient_id}", *await _number_claims(unit, document, patient_id)]
    payload: Document = {"document": document, "if_match": stored.version, "act": act.value}
    await intents.perform(unit, actor, Wish(KIND, payload, claims=claims))
    return await _projected(unit, patient_id)


async def set_active(unit: Unit, actor: Actor, patient_id: PatientId, *, active: bool) -> None:
    """Deactivate a patient's record or bring it back; who did it last and when is kept. Repeating it is harmless.

    Raises:
        PatientNotFound: 404, Quill knows no such patient.
        NhsNumberTaken: 409, another live record holds the NHS number by now.
    """
    row = await queries.lock_index_row(unit.session, patient_id)
    if row is None:
        raise PatientNotFound
    if row.is_active != active:
        values = {"is_active": active, "activity_changed_at": clock.now(), "activity_changed_by_user_id": actor.user_id}
        change = sa.update(PatientIndex).where(PatientIndex.patient_id == patient_id).values(**values)
        try:
            async with unit.session.begin_nested():
                await unit.session.execute(change.execution_options(synchronize_session=False))
        except IntegrityError as error:
            raise NhsNumberTaken from error
    audit.record(unit, actor, Act.PATIENT_ACTIVATE if active else Act.PATIENT_DEACTIVATE, patient_id=patient_id)


async def _number_claims(unit: Unit, document: Document, patient_id: PatientId) -> list[str]:
    """Return the claim on the document's NHS number.

    Raises:
        NhsNumberTaken: 409, another live record holds it.
    """
    number = fhir_patient.nhs_number(document)
    if number is None:
        return []
    if await queries.holder_of_nhs_number(unit.session, number) not in {None, patient_id}:
        raise NhsNumberTaken
    return [f"nhs-number:{number}"]


async def _find(reader: Reader, actor: Actor, patient_id: PatientId, act: Act) -> StoredResource:
    try:
        stored = await reader.fhir.find("Patient", patient_id)
    except Unavailable as error:
        audit.record_failure(reader, actor, act, reason=error.code, patient_id=patient_id)
        raise
    if stored is None:
        raise PatientNotFound
    return stored


async def _projected(unit: Unit, patient_id: PatientId) -> PatientText:
    """Return what was just projected; the store is not asked again."""
    found = await queries.find_document(unit.session, patient_id)
    if found is None:
        raise PatientNotFound
    return PatientText(patient_id, *found)
