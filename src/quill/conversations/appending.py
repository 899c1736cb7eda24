"""Adding a message to the tables: to its conversation, to what lists are read from, to what others have not read."""

import datetime
from typing import Any

import sqlalchemy as sa

from quill.conversations import notices, queries
from quill.conversations.queries import MESSAGE
from quill.conversations.visibility import OWNER, PARTICIPANT
from quill.errors import FhirRefused
from quill.kit.ids import ConversationId, MessageId, PatientId, UserId
from quill.ports.fhir_communication import MessageFacts
from quill.unit import Unit

PREVIEW_CHARACTERS = 200
SMALLEST_STEP = datetime.timedelta(microseconds=1)


def message_row(
    facts: MessageFacts, conversation_id: int, *, created_at: datetime.datetime, amends_id: int | None
) -> dict[str, Any]:
    """Return the columns of ``message``."""
    return {
        "id": facts.number,
        "fhir_communication_id": facts.fhir_id,
        "conversation_id": conversation_id,
        "sender_id": facts.sender_id,
        "body": facts.body,
        "amends_id": amends_id,
        "created_at": created_at,
    }


async def append(
    unit: Unit, facts: MessageFacts, conversation_id: ConversationId, *, amends_id: int | None
) -> tuple[datetime.datetime, bool]:
    """Add a message as the newest of its conversation, count it for the others, and tell them; once only.

    Returns:
        The message's time, and whether it was added now.

    Raises:
        FhirRefused: 502, there is no such conversation.
    """
    created_at = facts.sent_at
    shown_at = await _make_newest(unit, facts, conversation_id, created_at)
    if shown_at is None:
        conversation = await queries.lock_conversation(unit.session, conversation_id)
        if conversation is None:
            raise FhirRefused("The patient record store holds a message of no conversation Quill knows")
        known = await queries.find_time_of_message(unit.session, facts.fhir_id)
        if known is not None:
            return known, False
        # Whoever has read up to a message must find everything that became visible later after it, also when it was
        # sent a moment earlier and took longer to arrive.
        created_at = max(created_at, (conversation.last_message_at or created_at) + SMALLEST_STEP)
        shown_at = await _make_newest(unit, facts, conversation_id, created_at)
    row = message_row(facts, conversation_id, created_at=created_at, amends_id=amends_id)
    await unit.session.execute(_INSERT_MESSAGE, row)
    values = {"in_conversation": conversation_id, "shown_at": shown_at}
    people = await unit.session.scalars(_SHOW_AND_COUNT, values | {"unread_but_for": facts.sender_id})
    others = sorted(UserId(user_id) for user_id in people if user_id != facts.sender_id)
    await unit.session.execute(_SHOW_TO_OWNERS, values)
    message_id, patient_id = MessageId(facts.number), PatientId(facts.patient_id)
    await notices.after_message(unit, conversation_id, message_id, patient_id, others)
    return created_at, True


async def show_activity(unit: Unit, conversation_id: ConversationId, updated_at: datetime.datetime) -> None:
    """Repeat a conversation's ``updated_at`` where lists are read from."""
    values = {"in_conversation": conversation_id, "shown_at": updated_at}
    await unit.session.execute(_SHOW_TO_PEOPLE, values)
    await unit.session.execute(_SHOW_TO_OWNERS, values)


async def _make_newest(
    unit: Unit, facts: MessageFacts, conversation_id: ConversationId, created_at: datetime.datetime
) -> datetime.datetime | None:
    """Let a conversation tell of a message as its newest, its row locked from then on.

    Returns:
        The conversation's ``updated_at``; ``None``, and nothing done, when the message is there already, or is not
        later than the newest one.
    """
    values = {
        "in_conversation": conversation_id,
        "the_fhir_id": facts.fhir_id,
        "shown_at": created_at,
        "preview": facts.body[:PREVIEW_CHARACTERS],
        "sent_by": facts.sender_id,
    }
    shown_at: datetime.datetime | None = await unit.session.scalar(queries.MAKE_NEWEST, values)
    return shown_at


# Executed with every message, so they are made once.
_INSERT_MESSAGE = sa.insert(MESSAGE)
_SHOW_TO_PEOPLE = (
    sa.update(PARTICIPANT)
    .where(PARTICIPANT.c.conversation_id == sa.bindparam("in_conversation"))
    .values(active_at=sa.bindparam("shown_at"))
)
_SHOW_AND_COUNT = _SHOW_TO_PEOPLE.values(
    unread_count=PARTICIPANT.c.unread_count
    + sa.cast(PARTICIPANT.c.user_id != sa.bindparam("unread_but_for", type_=sa.Integer()), sa.Integer)
).returning(PARTICIPANT.c.user_id)
_SHOW_TO_OWNERS = (
    sa.update(OWNER)
    .where(OWNER.c.conversation_id == sa.bindparam("in_conversation"))
    .values(active_at=sa.bindparam("shown_at"))
)
