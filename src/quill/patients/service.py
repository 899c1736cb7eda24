"""Decisions and writes about patients."""

from quill.actor import Actor
from quill.audit.service import Act
from quill.errors import NhsNumberTaken, PatientDeactivated, PatientExists, PatientNotFound
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit.documents import Document
from quill.kit.ids import OrganisationId, PatientId
from quill.patients import queries
from quill.patients.projection import PatientKind
from quill.ports import fhir_patient
from quill.unit import Reader, Unit

KIND = PatientKind()


async def check_takes_entries(reader: Reader, patient_id: PatientId) -> None:
    """Refuse to write about a patient who is unknown or whose record is deactivated.

    Raises:
        PatientNotFound: 404, Quill knows no such patient.
        PatientDeactivated: 409, the record takes no new entries.
    """
    is_active = await queries.find_activity(reader.session, patient_id)
    if is_active is None:
        raise PatientNotFound
    if not is_active:
        raise PatientDeactivated


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
    nhs_number = fhir_patient.nhs_number(document)
    if await queries.find_activity(unit.session, patient_id) is not None:
        raise PatientExists
    if nhs_number is not None and await queries.holder_of_nhs_number(unit.session, nhs_number) is not None:
        raise NhsNumberTaken
    claims = [f"patient:{patient_id}"]
    if nhs_number is not None:
        claims.append(f"nhs-number:{nhs_number}")
    payload: Document = {"document": document, "if_match": 0, "organisation_id": organisation_id, "act": act.value}
    wish = Wish(KIND, payload, claims=claims, idempotency_key=idempotency_key, fingerprint=fingerprint)
    result = await intents.perform(unit, actor, wish)
    return PatientId(result["patient_id"])
