"""Beginning a conversation."""

from quill.access import service as access
from quill.access.service import Relationship
from quill.actor import Actor
from quill.audit.service import Act
from quill.conversations import numbers
from quill.conversations.notices import READING
from quill.conversations.projection import CONVERSATION_KIND
from quill.conversations.schemas import ConversationDetailOut, ConversationIn
from quill.conversations.service import finding, reading
from quill.errors import PatientHasNoAccount, PatientNotFound, Unprocessable
from quill.identity import service as identity
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit import clock, ids
from quill.kit.documents import Document
from quill.kit.ids import ConversationId, PatientId, UserId, is_fhir_id
from quill.patients import service as patients
from quill.ports.fhir_communication import (
    ConversationFacts,
    MessageFacts,
    ParticipantFacts,
    conversation_document,
    message_document,
)
from quill.ports.fhir_meta import with_source
from quill.unit import Unit


async def create(
    unit: Unit, actor: Actor, wanted: ConversationIn, *, idempotency_key: str | None = None
) -> ConversationDetailOut:
    """Begin a conversation about a patient with its first message, all of it or nothing.

    It belongs to the organisations that creator and patient share, or to all of the patient's when the creator is the
    patient, an external person or an admin who shares none.

    Args:
        unit: the transaction.
        actor: who begins it.
        wanted: about whom, with whom, and the first message.
        idempotency_key: the caller's own key; with one used before, the first conversation is answered.

    Raises:
        PatientNotFound: 404, an outsider, or no such patient.
        CompetencyMissing: 403, the actor may not read records.
        PatientDeactivated: 409, the record takes no new entries.
        PatientHasNoAccount: 409, the patient is to take part and has no account.
        Unprocessable: 422, somebody named does not exist or may not access the patient.
        Unavailable: 502 or 503, the FHIR store did not take it; nothing is shown of it.
    """
    digest = intents.fingerprint("conversation", wanted.model_dump())
    result = await intents.find_result(unit, actor, idempotency_key, digest)
    if result is None:
        payload = await _payload(unit, actor, wanted)
        result = await intents.perform(
            unit, actor, Wish(CONVERSATION_KIND, payload, idempotency_key=idempotency_key, fingerprint=digest)
        )
    conversation_id = ConversationId(result["conversation_id"])
    row = await finding.find_readable(unit, actor, conversation_id, Act.CONVERSATION_READ)
    return await reading.detail_of(unit, row)


async def _payload(unit: Unit, actor: Actor, wanted: ConversationIn) -> Document:
    if not is_fhir_id(wanted.patient_id):
        raise PatientNotFound
    patient_id = PatientId(wanted.patient_id)
    tie = await access.check_patient(unit, unit.session, actor, patient_id, READING)
    await patients.check_takes_entries(unit, patient_id)
    others = await _others(unit, actor, patient_id, wanted)
    organisations = await _organisations(unit, actor, patient_id, tie)
    now = clock.now()
    people = [ParticipantFacts(actor.person_id, actor.display_name, "initiator", now, None)]
    people += [
        ParticipantFacts(user_id, person.display_name, "participant", now, actor.person_id)
        for user_id, person in sorted(others.items())
    ]
    header = ConversationFacts(
        fhir_id=ids.new_uuid(),
        number=(await numbers.take(unit.session, "conversation"))[0],
        patient_id=patient_id,
        subject=wanted.subject,
        created_by=actor.person_id,
        created_by_display=actor.display_name,
        created_at=now,
        includes_patient=wanted.include_patient_as_participant,
        organisation_ids=tuple(organisations),
        status="new",
        status_at=now,
        status_by=actor.person_id,
        participants=tuple(people),
    )
    first = MessageFacts(
        fhir_id=ids.new_uuid(),
        number=(await numbers.take(unit.session, "message"))[0],
        conversation_fhir_id=header.fhir_id,
        patient_id=patient_id,
        sender_id=actor.person_id,
        sender_display=actor.display_name,
        body=wanted.initial_message,
        sent_at=now,
        amends_fhir_id=None,
    )
    source = unit.settings.source_uri
    return {
        "header": with_source(conversation_document(header), source),
        "message": with_source(message_document(first), source),
    }


async def _others(unit: Unit, actor: Actor, patient_id: PatientId, wanted: ConversationIn) -> dict[UserId, Actor]:
    """Return who takes part besides the creator; everybody named must be allowed to."""
    named = {UserId(user_id) for user_id in wanted.participant_ids}
    if wanted.include_patient_as_participant:
        account = await identity.find_linked_person(unit.session, patient_id)
        if account is None:
            raise PatientHasNoAccount
        named.add(account)
    named.discard(actor.person_id)
    allowed = await access.find_allowed(unit, patient_id, named, READING)
    if allowed.keys() != named:
        raise Unprocessable.at(
            "participant_ids",
            "Every participant must be an active person who may access this patient",
            kind="participant_not_allowed",
        )
    return allowed


async def _organisations(unit: Unit, actor: Actor, patient_id: PatientId, tie: Relationship) -> list[int]:
    """Return whose conversation it becomes (decisions, rule 24)."""
    if tie in {Relationship.SHARED_ORGANISATION, Relationship.ADMIN}:
        shared = await identity.shared_organisations(unit.session, actor, patient_id)
        if shared:
            return shared
    return await identity.patient_organisations(unit.session, patient_id)
