"""Sending a message, or amending one."""

from quill.actor import Actor
from quill.audit.service import Act
from quill.conversations import numbers, queries
from quill.conversations.projection import MESSAGE_KIND, SMALLEST_STEP
from quill.conversations.queries import Row
from quill.conversations.schemas import MessageOut
from quill.conversations.service import finding, wire
from quill.errors import ConversationClosed, ConversationNotFound, MessageNotFound, NotYourMessage
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit import clock, ids
from quill.kit.documents import Document
from quill.kit.ids import ConversationId, MessageId
from quill.ports.fhir_communication import MessageFacts, message_document
from quill.ports.fhir_meta import with_source
from quill.unit import Unit


async def send(
    unit: Unit,
    actor: Actor,
    conversation_id: ConversationId,
    body: str,
    *,
    amends_id: MessageId | None = None,
    idempotency_key: str | None = None,
) -> MessageOut:
    """Add a message to a conversation; once this is committed it is kept.

    A ``new`` conversation becomes ``active`` with the first reply of somebody else, a ``resolved`` one with any
    message.

    Args:
        unit: the transaction.
        actor: who sends; a participant.
        conversation_id: where.
        body: Markdown, 1..10,000 characters and not blank; kept as it is.
        amends_id: a message of the actor's that this one amends; it stays as it was.
        idempotency_key: the caller's own key; with one used before, the first message is answered.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
        NotParticipant: 403, the actor may only read.
        PatientDeactivated: 409, the record takes no new entries.
        ConversationClosed: 409, it takes no messages.
        MessageNotFound: 404, the amended message is not there.
        NotYourMessage: 403, the amended message is somebody else's.
        Unavailable: 502 or 503, the FHIR store did not take it; nothing is shown of it.
    """
    digest = intents.fingerprint("message", conversation_id, body, amends_id)
    result = await intents.find_result(unit, actor, idempotency_key, digest)
    if result is None:
        act = Act.MESSAGE_SEND if amends_id is None else Act.MESSAGE_AMEND
        row = await finding.find_writable(unit, actor, conversation_id, act)
        amended = await _amended(unit, actor, row, amends_id, act)
        payload = await _payload(unit, actor, row, body, amended)
        result = await intents.perform(
            unit, actor, Wish(MESSAGE_KIND, payload, idempotency_key=idempotency_key, fingerprint=digest)
        )
    else:
        await finding.find_readable(unit, actor, conversation_id, Act.MESSAGE_SEND)
    return wire.message_out(await queries.message(unit.session, MessageId(result["message_id"])))


async def _payload(unit: Unit, actor: Actor, row: Row, body: str, amended: Row | None) -> Document:
    conversation = await queries.lock_conversation(unit.session, ConversationId(row.id))
    if conversation is None:
        raise ConversationNotFound
    if conversation.status == "closed":
        raise ConversationClosed
    sent_at = clock.now()
    if conversation.last_message_at is not None:
        sent_at = max(sent_at, conversation.last_message_at + SMALLEST_STEP)
    facts = MessageFacts(
        fhir_id=ids.new_uuid(),
        number=(await numbers.take(unit.session, "message"))[0],
        conversation_fhir_id=row.fhir_conversation_id,
        patient_id=row.patient_id,
        sender_id=actor.person_id,
        sender_display=actor.display_name,
        body=body,
        sent_at=sent_at,
        amends_fhir_id=amended.fhir_communication_id if amended is not None else None,
    )
    return {
        "conversation_id": row.id,
        "message": with_source(message_document(facts), unit.settings.source_uri),
        "amends_id": amended.id if amended is not None else None,
    }


async def _amended(unit: Unit, actor: Actor, row: Row, amends_id: MessageId | None, act: Act) -> Row | None:
    if amends_id is None:
        return None
    amended = await queries.find_place(unit.session, amends_id)
    if amended is None:
        raise MessageNotFound
    if amended.conversation_id != row.id:
        raise MessageNotFound("Amended message is not in this conversation")
    if amended.sender_id != actor.user_id:
        finding.record_refusal(unit, actor, act, row, NotYourMessage.code)
        raise NotYourMessage
    return amended
