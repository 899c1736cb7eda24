"""Rows of the tables as they cross the wire: plain data, each field named here and in ``schemas`` only."""

from collections.abc import Sequence

from quill.conversations import queries
from quill.conversations.queries import ConversationRow, MessageRow, ParticipantRow
from quill.conversations.schemas import ConversationCore, ConversationOut, MessageOut, ParticipantOut
from quill.kit.ids import ConversationId, UserId
from quill.unit import Reader


async def participants_of(reader: Reader, conversation_ids: Sequence[int]) -> dict[int, list[ParticipantOut]]:
    """Return who takes part in each of some conversations; one statement."""
    if not conversation_ids:
        return {}
    people: dict[int, list[ParticipantOut]] = {}
    for row in await queries.participants(reader.session, conversation_ids):
        people.setdefault(row.conversation_id, []).append(participant_out(row))
    return people


async def find_participant(reader: Reader, conversation_id: ConversationId, user_id: UserId) -> ParticipantOut | None:
    """Return somebody's participation as others see it."""
    people = (await participants_of(reader, [conversation_id])).get(conversation_id, [])
    return next((found for found in people if found["user_id"] == user_id), None)


def conversation_out(row: ConversationRow, people: list[ParticipantOut]) -> ConversationOut:
    """Return a conversation as lists show it."""
    return {
        **core(row, people),
        "last_message_preview": row.last_message_preview,
        "last_message_time": row.last_message_at,
        "unread_count": row.my_unread_count or 0,
    }


def core(row: ConversationRow, people: list[ParticipantOut]) -> ConversationCore:
    """Return what a conversation in a list and one with its messages have in common."""
    takes_part = row.my_role is not None
    return {
        "id": row.id,
        "fhir_conversation_id": row.fhir_conversation_id,
        "patient_id": row.patient_id,
        "subject": row.subject,
        "status": row.status,
        "status_changed_at": row.status_changed_at,
        "status_changed_by": row.status_changed_by_user_id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "participants": people,
        "is_participant": takes_part,
        "can_write": takes_part,
        "include_patient_as_participant": row.include_patient_as_participant,
    }


def participant_out(row: ParticipantRow) -> ParticipantOut:
    """Return somebody who takes part."""
    return {
        "user_id": row.user_id,
        "username": row.username,
        "display_name": row.display_name,
        "role": row.role,
        "joined_at": row.joined_at,
        "added_by": row.added_by_user_id,
    }


def message_out(row: MessageRow) -> MessageOut:
    """Return a message."""
    return {
        "id": row.id,
        "fhir_communication_id": row.fhir_communication_id,
        "sender_id": row.sender_id,
        "sender_username": row.sender_username,
        "sender_display_name": row.sender_display_name,
        "body": row.body,
        "amends_id": row.amends_id,
        "is_amendment": row.amends_id is not None,
        "created_at": row.created_at,
    }
