"""How far somebody has read. A marker is the message that was shown last, never an instant."""

from quill.access import service as access
from quill.actor import Actor
from quill.audit.service import Act
from quill.conversations import notices, queries
from quill.conversations.notices import READING
from quill.conversations.queries import ConversationRow, Mark, Row
from quill.conversations.schemas import OkOut
from quill.conversations.service import finding
from quill.conversations.visibility import everything, visible_conversations
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
    marker = await queries.lock_marker(unit.session, actor, conversation_id, message_id, visible_conversations)
    if marker is None:
        row = await finding.find_readable(unit, actor, conversation_id, Act.MESSAGE_MARK_READ)
        finding.record_refusal(unit, actor, Act.MESSAGE_MARK_READ, row, "not_participant")
        raise ConversationNotFound
    access.check_rights(unit, actor, READING, patient_id=PatientId(marker.patient_id))
    await _move(unit, actor, marker)
    finding.record(unit, actor, Act.MESSAGE_MARK_READ, marker)
    return {"ok": True}


async def mark_shown(reader: Reader, actor: Actor, row: ConversationRow, message_id: MessageId) -> None:
    """Mark read what a reading has just shown, in a transaction of its own; its audit row is the reading's."""
    async with open_unit(reader.services, reader.facts) as unit:
        marker = await queries.lock_marker(unit.session, actor, ConversationId(row.id), message_id, everything)
        # Who was taken out of the conversation a moment ago has nothing left to mark.
        if marker is not None:
            await _move(unit, actor, marker)


async def _move(unit: Unit, actor: Actor, marker: Row) -> None:
    """Move a marker that is locked to where it is to go, unless it is there or further already."""
    if marker.place_id is None:
        raise MessageNotFound("Message not found")
    mark = (marker.place_at, marker.place_id)
    before = await _mark_before(unit, marker)
    if before is not None and before >= mark:
        return
    conversation_id, user_id = ConversationId(marker.id), actor.person_id
    values = {"in_conversation": conversation_id, "reader_id": user_id, "read_at": clock.now()}
    # In one statement: a second update of a row in one transaction makes PostgreSQL look at the conversation's row,
    # which a sender may hold who waits for this one. It is the lock's next statement, so that it sees every message
    # that was counted before the lock was had.
    await unit.session.execute(queries.MOVE_MARKER, values | queries.mark_values(mark))
    await notices.after_reading(unit, conversation_id, PatientId(marker.patient_id), user_id, marker.place_id)


async def _mark_before(unit: Unit, marker: Row) -> Mark | None:
    if marker.last_read_message_id is None:
        return None
    if marker.last_read_message_at is not None:
        return marker.last_read_message_at, marker.last_read_message_id
    # Moved while we waited for the lock, to a message our statement did not see yet; or the message is gone.
    place = await queries.find_place(unit.session, MessageId(marker.last_read_message_id))
    return (place.created_at, place.id) if place is not None else None
