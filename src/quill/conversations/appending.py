"""Adding a message to the tables: to its conversation, to what lists are read from, to what others have not read."""

import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from quill.conversations import notices, queries
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


def lock_name(conversation_id: int) -> str:
    """Return the name under which a unit notes that it has locked a conversation's row."""
    return f"conversation:{conversation_id}"


async def append(
    unit: Unit, facts: MessageFacts, conversation_id: ConversationId, *, amends_id: int | None
) -> tuple[datetime.datetime, bool]:
    """Add a message as the newest of its conversation, count it for the others, and tell them; once only.

    Returns:
        The message's time, and whether it was added now.

    Raises:
        FhirRefused: 502, there is no such conversation.
    """
    row = message_row(facts, conversation_id, created_at=facts.sent_at, amends_id=amends_id)
    people = await _add(unit, row)
    if people is None:
        conversation = await queries.lock_conversation(unit.session, conversation_id)
        if conversation is None:
            raise FhirRefused("The patient record store holds a message of no conversation Quill knows")
        known = await queries.find_time_of_message(unit.session, facts.fhir_id)
        if known is not None:
            return known, False
        # Whoever has read up to a message must find everything that became visible later after it, also when it was
        # sent a moment earlier and took longer to arrive.
        row["created_at"] = max(facts.sent_at, (conversation.last_message_at or facts.sent_at) + SMALLEST_STEP)
        people = await _add(unit, row) or []
    others = sorted(UserId(user_id) for user_id in people if user_id != facts.sender_id)
    message_id, patient_id = MessageId(facts.number), PatientId(facts.patient_id)
    await notices.after_message(unit, conversation_id, message_id, patient_id, others)
    return row["created_at"], True


async def show_activity(unit: Unit, conversation_id: ConversationId, updated_at: datetime.datetime) -> None:
    """Repeat a conversation's ``updated_at`` where lists are read from."""
    values = {"in_conversation": conversation_id, "shown_at": updated_at}
    await unit.session.execute(queries.SHOW_TO_PEOPLE, values)
    await unit.session.execute(queries.SHOW_TO_OWNERS, values)


async def _add(unit: Unit, row: dict[str, Any]) -> list[int] | None:
    """Add a message as the newest of its conversation, whose row is locked from then on.

    Returns:
        Who takes part; ``None``, and nothing done, when the message is there already, or is not later than the newest.
    """
    values = {
        "in_conversation": row["conversation_id"],
        "the_fhir_id": row["fhir_communication_id"],
        "said_at": row["created_at"],
        "preview": row["body"][:PREVIEW_CHARACTERS],
        "sent_by": row["sender_id"],
    }
    if unit.services.database.is_sqlite:
        return await _add_one_by_one(unit.session, row, values)
    if not unit.has_locked(lock_name(row["conversation_id"])):
        # By a statement of its own, so that the next sees everybody who came to take part before the lock was had.
        await queries.hold_conversation(unit.session, ConversationId(row["conversation_id"]))
    said = {f"its_{name}": value for name, value in row.items()}
    people = list(await unit.session.scalars(queries.ADD_MESSAGE, values | said))
    # Without a participant there is one row that names nobody.
    return [user_id for user_id in people if user_id is not None] if people else None


async def _add_one_by_one(session: AsyncSession, row: dict[str, Any], values: dict[str, Any]) -> list[int] | None:
    shown_at = await session.scalar(queries.MAKE_NEWEST, values)
    if shown_at is None:
        return None
    values["shown_at"] = shown_at
    await session.execute(queries.INSERT_MESSAGE, row)
    await session.execute(queries.SHOW_TO_OWNERS, values)
    return list(await session.scalars(queries.COUNT_AND_SHOW, values))
