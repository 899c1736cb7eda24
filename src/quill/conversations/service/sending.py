"""Sending a message, or amending one."""

import datetime

from quill.actor import Actor
from quill.audit.service import Act
from quill.conversations import numbers, queries
from quill.conversations.appending import SMALLEST_STEP, message_row
from quill.conversations.projection import MESSAGE_KIND
from quill.conversations.queries import ConversationRow, MessageRow, Row
from quill.conversations.schemas import MessageOut
from quill.conversations.service import finding, wire
from quill.errors import ConversationClosed, MessageNotFound, NotYourMessage
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
    if result is not None:
        await finding.find_readable(unit, actor, conversation_id, Act.MESSAGE_SEND)
        return await _shown(unit, result)
    act = Act.MESSAGE_SEND if amends_id is None else Act.MESSAGE_AMEND
    row = await finding.find_writable(unit, actor, conversation_id, act, takes_number=True)
    amended = await _amended(unit, actor, row, amends_id, act)
    facts = await _facts(unit, actor, row, body, amended)
    payload: Document = {
        "conversation_id": row.id,
        "message": with_source(message_document(facts), unit.settings.source_uri),
        "amends_id": amends_id,
    }
    result = await intents.perform(
        unit, actor, Wish(MESSAGE_KIND, payload, idempotency_key=idempotency_key, fingerprint=digest)
    )
    if result["message_id"] != facts.number or "created_at" not in result:
        # An earlier call with this key had sent it, or a process of an older version has finished this one.
        return await _shown(unit, result)
    created_at = datetime.datetime.fromisoformat(result["created_at"])
    columns = message_row(facts, conversation_id, created_at=created_at, amends_id=amends_id)
    sent = MessageRow(**columns, sender_username=actor.name, sender_display_name=actor.display_name)
    return wire.message_out(sent)


async def _shown(unit: Unit, result: Document) -> MessageOut:
    return wire.message_out(await queries.message(unit.session, MessageId(result["message_id"])))


async def _facts(
    unit: Unit, actor: Actor, conversation: ConversationRow, body: str, amended: Row | None
) -> MessageFacts:
    """Return the message as it goes into the record; the conversation is locked, so later messages have later times."""
    if conversation.status == "closed":
        raise ConversationClosed
    sent_at = clock.now()
    if conversation.last_message_at is not None:
        sent_at = max(sent_at, conversation.last_message_at + SMALLEST_STEP)
    return MessageFacts(
        fhir_id=ids.new_uuid(),
        number=conversation.message_number or (await numbers.take(unit.session, "message"))[0],
        conversation_fhir_id=conversation.fhir_conversation_id,
        patient_id=conversation.patient_id,
        sender_id=actor.person_id,
        sender_display=actor.display_name,
        body=body,
        sent_at=sent_at,
        amends_fhir_id=amended.fhir_communication_id if amended is not None else None,
    )


async def _amended(unit: Unit, actor: Actor, row: ConversationRow, amends_id: MessageId | None, act: Act) -> Row | None:
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
