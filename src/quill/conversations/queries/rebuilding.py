"""All rows at once: what a rebuilding asks, what follows from the messages, and PostgreSQL's sequences."""

import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from quill.conversations.models import Conversation, ConversationParticipant, Message
from quill.conversations.queries.reading import Row
from quill.conversations.visibility import CONVERSATION, PARTICIPANT

_MESSAGE = Message.__table__


async def read_markers(session: AsyncSession) -> Sequence[Row]:
    """Return how far everybody has read everywhere, for a rebuilding that must not forget it."""
    statement = sa.select(
        PARTICIPANT.c.conversation_id,
        PARTICIPANT.c.user_id,
        PARTICIPANT.c.last_read_message_id,
        PARTICIPANT.c.last_read_at,
    )
    return (await session.execute(statement.where(PARTICIPANT.c.last_read_message_id.is_not(None)))).all()


async def highest_numbers(session: AsyncSession) -> tuple[int, int]:
    """Return the highest number of a conversation and of a message."""
    row = (
        await session.execute(
            sa.select(
                sa.select(sa.func.max(CONVERSATION.c.id)).scalar_subquery().label("conversation"),
                sa.select(sa.func.max(_MESSAGE.c.id)).scalar_subquery().label("message"),
            )
        )
    ).one()
    return row.conversation or 0, row.message or 0


async def header_versions(session: AsyncSession) -> dict[str, int]:
    """Return the version of the FHIR header each conversation was last brought up to date with, by its id."""
    statement = sa.select(Conversation.fhir_conversation_id, Conversation.header_version)
    return {row.fhir_conversation_id: row.header_version for row in await session.execute(statement)}


async def message_fhir_ids(session: AsyncSession) -> Sequence[str]:
    """Return the FHIR ids of all messages."""
    return (await session.scalars(sa.select(Message.fhir_communication_id))).all()


async def conversations_without_messages(session: AsyncSession) -> list[int]:
    """Return the conversations nothing was said in."""
    has_message = sa.exists().where(_MESSAGE.c.conversation_id == CONVERSATION.c.id)
    return list(await session.scalars(sa.select(CONVERSATION.c.id).where(~has_message)))


def of_newest_message(value: sa.ColumnElement[Any] | InstrumentedAttribute[Any]) -> sa.ScalarSelect[Any]:
    """Return something of a conversation's newest message, within a statement about conversations."""
    newest = sa.select(value).where(Message.conversation_id == Conversation.id)
    return newest.order_by(Message.created_at.desc(), Message.id.desc()).limit(1).scalar_subquery()


def unread_messages() -> sa.ScalarSelect[int]:
    """Return how many messages of others stand after the marker, within a statement about participations."""
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
    return unread.correlate(participant).scalar_subquery()


def activity_of(number: InstrumentedAttribute[int]) -> sa.ScalarSelect[datetime.datetime]:
    """Return when something happened last in the conversation a column names, within a statement about its table."""
    return sa.select(Conversation.updated_at).where(Conversation.id == number).scalar_subquery()


# Asked for every message, so it is made once.
_NEXT_VALUES = sa.select(
    sa.func.nextval(sa.func.pg_get_serial_sequence(sa.bindparam("of_table", type_=sa.String()), "id"))
).select_from(sa.func.generate_series(1, sa.bindparam("how_many", type_=sa.Integer())))


async def next_values(session: AsyncSession, table: str, count: int) -> list[int]:
    """Take numbers from the sequence of a table's ids; PostgreSQL only."""
    return sorted(await session.scalars(_NEXT_VALUES, {"of_table": table, "how_many": count}))


async def set_value(session: AsyncSession, table: str, last: int) -> None:
    """Let the sequence of a table's ids go on after a number; PostgreSQL only."""
    await session.execute(sa.select(sa.func.setval(_sequence(table), last)))


def _sequence(table: str) -> sa.Function[str]:
    return sa.func.pg_get_serial_sequence(table, "id")
