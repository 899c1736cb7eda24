"""How far somebody has read. A marker is the message that was shown last, never an instant."""

from quill.actor import Actor
from quill.audit.service import Act
from quill.conversations import notices, queries
from quill.conversations.queries import Row
from quill.conversations.schemas import OkOut
from quill.conversations.service import finding
from quill.errors import ConversationNotFound, MessageNotFound
from quill.kit import clock
from quill.kit.ids import ConversationId, MessageId, PatientId
from quill.unit import Reader, Unit, open_unit


async def mark_read(
    unit: Unit, actor: Actor, conversation_id: ConversationId, message_id: MessageId | None = None
) -> OkOut:
    """Mark a conversation read up to a message, or up to the newest one there is at this moment.

    A marker never moves back.

    Raises:
        ConversationNotFound: 404, there is none the actor takes part in and may read.
        CompetencyMissing: 403, the actor may not read records.
        MessageNotFound: 404, the message is not in this conversation.
    """
    row = await finding.find_readable(unit, actor, conversation_id, Act.MESSAGE_MARK_READ)
    if row.my_role is None:
        finding.record_refusal(unit, actor, Act.MESSAGE_MARK_READ, row, "not_participant")
        raise ConversationNotFound
    await _move_marker(unit, actor, row, message_id)
    finding.record(unit, actor, Act.MESSAGE_MARK_READ, row)
    return OkOut(ok=True)


async def mark_shown(reader: Reader, actor: Actor, row: Row, message_id: MessageId) -> None:
    """Mark read what a reading has just shown, in a transaction of its own; its audit row is the reading's."""
    async with open_unit(reader.services, reader.facts) as unit:
        await _move_marker(unit, actor, row, message_id)


async def _move_marker(unit: Unit, actor: Actor, row: Row, message_id: MessageId | None) -> None:
    session, user_id, conversation_id = unit.session, actor.person_id, ConversationId(row.id)
    participant = await queries.lock_participant(session, conversation_id, user_id)
    if participant is None:
        # Taken out of the conversation a moment ago; there is nothing left to mark.
        return
    if message_id is None:
        place = await queries.newest_place(session, conversation_id)
    else:
        place = await queries.find_place(session, message_id)
        if place is not None and place.conversation_id != conversation_id:
            place = None
    if place is None:
        raise MessageNotFound("Message not found")
    before = None
    if participant.last_read_message_id is not None:
        before = await queries.find_place(session, MessageId(participant.last_read_message_id))
    if before is not None and (before.created_at, before.id) >= (place.created_at, place.id):
        return
    unread_count = await queries.count_after(session, conversation_id, user_id, (place.created_at, place.id))
    # In one statement: a second update of a row in one transaction makes PostgreSQL look at the conversation's row,
    # which a sender may hold who waits for this one.
    participant.last_read_message_id = place.id
    participant.last_read_at = clock.now()
    participant.unread_count = unread_count
    await session.flush()
    await notices.after_reading(unit, conversation_id, PatientId(row.patient_id), user_id, place.id)
