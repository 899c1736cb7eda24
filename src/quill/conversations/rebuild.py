"""The tables made anew from FHIR alone, for when they are lost or not trusted (``quill rebuild-projection``)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.conversations import filling, numbers, queries
from quill.conversations.appending import message_row
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant, Message
from quill.kit import ids
from quill.ports.fhir import SearchQuery, StoredResource
from quill.ports.fhir_communication import ConversationFacts, conversation_facts, is_header, message_facts
from quill.unit import RequestFacts, Services, Unit, open_unit

SEARCH_PAGE = 500


class NumberGivenTwice(Exception):
    """Two records claim one number; the tables are as they were.

    It takes another Quill that writes to the same FHIR server. Whose the number is cannot be told from the records, and
    leaving one out would look as if it were not there.
    """

    def __init__(self, number: int, one: str, other: str) -> None:
        super().__init__(
            f"Communication/{one} and Communication/{other} both have the number {number}; does another Quill write "
            "to the same FHIR server? Remove the one that is not of this clinic, and run this again."
        )


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuilding found.

    Attributes:
        conversations: how many there are now.
        messages: how many there are now.
        ignored: Communications that are not Quill's, are broken, or belong to a beginning that came to nothing.
    """

    conversations: int
    messages: int
    ignored: int


async def rebuild_projection(services: Services) -> Rebuilt:
    """Replace every conversation, participant and message by what FHIR holds, in one transaction.

    Numbers stay what they were, because FHIR holds them. How far people have read is kept for the messages that are
    still there; without it everything of others counts as unread. Until the end readers see the tables as they were.

    Raises:
        Unavailable: 502 or 503, the FHIR store does not answer; the tables are as they were.
        NumberGivenTwice: two conversations or two messages claim one number.
    """
    facts = RequestFacts(request_id=ids.new_uuid(), source="rebuild")
    async with open_unit(services, facts) as unit:
        markers = await queries.read_markers(unit.session)
        await _empty(unit)
        known = await _rebuild_conversations(unit)
        found, ignored = await _rebuild_messages(unit, known)
        begun = await _drop_without_messages(unit)
        await _drop_ended(unit)
        await _restore_markers(unit, markers)
        await filling.settle(unit.session)
        highest_conversation, highest_message = await queries.highest_numbers(unit.session)
        await numbers.skip_to(unit.session, "conversation", highest_conversation)
        await numbers.skip_to(unit.session, "message", highest_message)
        audit.record(unit, Actor.job("rebuild-projection"), Act.PROJECTION_REBUILD, subject="conversations")
        return Rebuilt(len(known) - begun, found, ignored + begun)


async def _empty(unit: Unit) -> None:
    for table in (Message, ConversationParticipant, ConversationOrganisation, Conversation):
        await unit.session.execute(sa.delete(table).execution_options(synchronize_session=False))


async def _rebuild_conversations(unit: Unit) -> dict[str, int]:
    """Add the conversations; returns their numbers by the ids of their headers."""
    known: dict[str, int] = {}
    given: dict[int, str] = {}
    block: list[tuple[ConversationFacts, int]] = []
    async for stored in _communications(unit):
        facts = conversation_facts(stored.document) if is_header(stored.document) else None
        if facts is None:
            continue
        known[facts.fhir_id] = facts.number
        _check_given_once(given, facts.number, facts.fhir_id)
        block.append((facts, stored.version))
        if len(block) >= filling.BLOCK_ROWS:
            await filling.insert_conversations(unit.session, block)
            block = []
    await filling.insert_conversations(unit.session, block)
    return known


async def _rebuild_messages(unit: Unit, known: dict[str, int]) -> tuple[int, int]:
    """Add the messages; returns how many, and how many Communications are neither header nor message."""
    found = ignored = 0
    numbers_of: dict[str, int] = {}
    given: dict[int, str] = {}
    amended: list[tuple[int, str]] = []
    block: list[dict[str, Any]] = []
    async for stored in _communications(unit):
        if stored.id in known:
            continue
        facts = message_facts(stored.document)
        conversation_id = known.get(facts.conversation_fhir_id) if facts is not None else None
        if facts is None or conversation_id is None:
            ignored += 1
            continue
        found += 1
        numbers_of[facts.fhir_id] = facts.number
        _check_given_once(given, facts.number, facts.fhir_id)
        if facts.amends_fhir_id is not None:
            amended.append((facts.number, facts.amends_fhir_id))
        # What it amends may come later, so that is filled in at the end.
        block.append(message_row(facts, conversation_id, created_at=facts.sent_at, amends_id=None))
        if len(block) >= filling.BLOCK_ROWS:
            await filling.insert(unit.session, Message, block)
            block = []
    await filling.insert(unit.session, Message, block)
    pairs = [{"b_id": number, "b_amends": numbers_of[fhir_id]} for number, fhir_id in amended if fhir_id in numbers_of]
    if pairs:
        statement = (
            sa.update(Message).where(Message.id == sa.bindparam("b_id")).values(amends_id=sa.bindparam("b_amends"))
        )
        await (await unit.session.connection()).execute(statement, pairs)
    return found, ignored


def _check_given_once(given: dict[int, str], number: int, fhir_id: str) -> None:
    other = given.setdefault(number, fhir_id)
    if other != fhir_id:
        raise NumberGivenTwice(number, other, fhir_id)


async def _drop_without_messages(unit: Unit) -> int:
    """Take out the headers whose first message never arrived: whoever began them was told that it failed."""
    empty = await queries.conversations_without_messages(unit.session)
    for block in filling.blocks(empty):
        for table, number in (
            (ConversationParticipant, ConversationParticipant.conversation_id),
            (ConversationOrganisation, ConversationOrganisation.conversation_id),
            (Conversation, Conversation.id),
        ):
            statement = sa.delete(table).where(number.in_(block))
            await unit.session.execute(statement.execution_options(synchronize_session=False))
    return len(empty)


async def _drop_ended(unit: Unit) -> None:
    """Take out the people whose access ended and whom a header names still."""
    statement = sa.delete(ConversationParticipant).where(queries.participations_that_are_over())
    await unit.session.execute(statement.execution_options(synchronize_session=False))


async def _restore_markers(unit: Unit, markers: Any) -> None:
    """Set how far people had read, where the message is still in the conversation."""
    is_there = sa.exists().where(
        Message.id == sa.bindparam("b_message"), Message.conversation_id == ConversationParticipant.conversation_id
    )
    statement = (
        sa.update(ConversationParticipant)
        .where(
            ConversationParticipant.conversation_id == sa.bindparam("b_conversation"),
            ConversationParticipant.user_id == sa.bindparam("b_user"),
            is_there,
        )
        .values(last_read_message_id=sa.bindparam("b_message"), last_read_at=sa.bindparam("b_at"))
    )
    connection = await unit.session.connection()
    for block in filling.blocks(markers):
        await connection.execute(
            statement,
            [
                {
                    "b_conversation": row.conversation_id,
                    "b_user": row.user_id,
                    "b_message": row.last_read_message_id,
                    "b_at": row.last_read_at,
                }
                for row in block
            ],
        )


async def _communications(unit: Unit) -> AsyncIterator[StoredResource]:
    cursor = None
    while True:
        page = await unit.fhir.search("Communication", SearchQuery(), limit=SEARCH_PAGE, cursor=cursor)
        for stored in page.resources:
            yield stored
        cursor = page.next_cursor
        if cursor is None:
            return
