"""Many conversations at once: rows in blocks, and what follows from them set by a few statements over all.

What a single message does to counters, previews and status when it is projected (``projection``), ``settle`` works out
afterwards from the rows themselves; tests hold the two against each other.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant, Message
from quill.conversations.projection import PREVIEW_CHARACTERS, conversation_row, participant_row
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
    in_it = Message.conversation_id == Conversation.id
    newest = sa.select(Message).where(in_it).order_by(Message.created_at.desc(), Message.id.desc()).limit(1)
    yield sa.update(Conversation).values(
        last_message_at=newest.with_only_columns(Message.created_at).scalar_subquery(),
        last_message_preview=newest.with_only_columns(
            sa.func.substr(Message.body, 1, PREVIEW_CHARACTERS)
        ).scalar_subquery(),
    )
    replied = sa.exists().where(
        in_it,
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
    participant, marker = ConversationParticipant, aliased(Message)
    is_after_marker = sa.exists().where(
        marker.id == participant.last_read_message_id,
        sa.tuple_(Message.created_at, Message.id) > sa.tuple_(marker.created_at, marker.id),
    )
    unread = sa.select(sa.func.count()).where(
        Message.conversation_id == participant.conversation_id,
        Message.sender_id != participant.user_id,
        sa.or_(participant.last_read_message_id.is_(None), is_after_marker),
    )
    yield sa.update(participant).values(
        unread_count=unread.correlate(participant).scalar_subquery(), active_at=_activity(participant.conversation_id)
    )
    yield sa.update(ConversationOrganisation).values(active_at=_activity(ConversationOrganisation.conversation_id))


def _activity(number: sa.ColumnElement[int] | Any) -> sa.ScalarSelect[Any]:
    return sa.select(Conversation.updated_at).where(Conversation.id == number).scalar_subquery()
