"""Many conversations at once: rows in blocks, and what follows from them set by a few statements over all.

What a single message does to counters, previews and status when it is projected (``projection``), ``settle`` works out
afterwards from the rows themselves; tests hold the two against each other.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.conversations import queries
from quill.conversations.appending import PREVIEW_CHARACTERS
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant, Message
from quill.conversations.projection import conversation_row, participant_row
from quill.ports.fhir_communication import ConversationFacts

BLOCK_ROWS = 1000
"""Rows sent to the database at once."""


async def insert(session: AsyncSession, table: type[Any], rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a table, in blocks."""
    # The core table: through the mapper each row would cost several times as much.
    statement = sa.insert(cast("sa.Table", table.__table__))
    for block in blocks(rows):
        await session.execute(statement, block)


def blocks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield the rows a block at a time."""
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]


async def insert_conversations(session: AsyncSession, found: Sequence[tuple[ConversationFacts, int]]) -> None:
    """Add conversations, each with the version of its header, and their people and organisations."""
    await insert(
        session, Conversation, [conversation_row(facts) | {"header_version": version} for facts, version in found]
    )
    await insert(
        session,
        ConversationParticipant,
        [
            participant_row(facts.number, participant, active_at=facts.created_at)
            for facts, _ in found
            for participant in facts.participants
        ],
    )
    await insert(
        session,
        ConversationOrganisation,
        [
            {"conversation_id": facts.number, "organisation_id": owner, "active_at": facts.created_at}
            for facts, _ in found
            for owner in facts.organisation_ids
        ],
    )


async def settle(session: AsyncSession, numbers: Collection[int] | None = None) -> None:
    """Set what follows from the messages: previews, times, status, order of the lists, and what is unread.

    Args:
        session: the transaction.
        numbers: which conversations; every one when ``None``.
    """
    for statement in (*_of_conversations(), *_of_places_in_lists()):
        table = statement.table.c
        number = table.id if "id" in table else table.conversation_id
        chosen = statement if numbers is None else statement.where(number.in_(numbers))
        await session.execute(chosen.execution_options(synchronize_session=False))


def _of_conversations() -> Iterator[sa.Update]:
    yield sa.update(Conversation).values(
        last_message_at=queries.of_newest_message(Message.created_at),
        last_message_preview=queries.of_newest_message(sa.func.substr(Message.body, 1, PREVIEW_CHARACTERS)),
    )
    replied = sa.exists().where(
        Message.conversation_id == Conversation.id,
        Message.sender_id != Conversation.created_by_user_id,
        Message.created_at > Conversation.status_changed_at,
    )
    is_later = Conversation.last_message_at > Conversation.status_changed_at
    yield sa.update(Conversation).values(
        updated_at=sa.case((is_later, Conversation.last_message_at), else_=Conversation.status_changed_at),
        status=sa.case(
            (sa.and_(Conversation.status == "new", replied), "active"),
            (sa.and_(Conversation.status == "resolved", is_later), "active"),
            else_=Conversation.status,
        ),
    )


def _of_places_in_lists() -> Iterator[sa.Update]:
    yield sa.update(ConversationParticipant).values(
        unread_count=queries.unread_messages(), active_at=queries.activity_of(ConversationParticipant.conversation_id)
    )
    yield sa.update(ConversationOrganisation).values(
        active_at=queries.activity_of(ConversationOrganisation.conversation_id)
    )
