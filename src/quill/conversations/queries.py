"""Every SELECT about conversations; which of them somebody may read is decided in ``visibility``."""

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from quill.actor import Actor
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant, Message
from quill.conversations.visibility import Wanted, newest_visible, visible_conversations
from quill.identity import service as identity
from quill.kit.database import UtcDateTime
from quill.kit.ids import ConversationId, MessageId, PatientId, UserId

Row: TypeAlias = sa.Row[*tuple[Any, ...]]
Select: TypeAlias = sa.Select[*tuple[Any, ...]]


def _conversation_select(actor: Actor) -> Select:
    """Select conversations, each with the actor's own participation: ``my_role`` is ``None`` without one."""
    mine = aliased(ConversationParticipant)
    return sa.select(
        Conversation.id,
        Conversation.fhir_conversation_id,
        Conversation.patient_id,
        Conversation.subject,
        Conversation.status,
        Conversation.status_changed_at,
        Conversation.status_changed_by_user_id,
        Conversation.created_by_user_id,
        Conversation.created_at,
        Conversation.updated_at,
        Conversation.include_patient_as_participant,
        Conversation.last_message_preview,
        Conversation.last_message_at,
        mine.role.label("my_role"),
        mine.unread_count.label("my_unread_count"),
    ).outerjoin(mine, sa.and_(mine.conversation_id == Conversation.id, mine.user_id == actor.user_id))


async def find_where(
    session: AsyncSession, actor: Actor, conversation_id: ConversationId, condition: sa.ColumnElement[bool]
) -> Row | None:
    """Return a conversation if a condition of ``visibility`` holds."""
    statement = _conversation_select(actor).where(Conversation.id == conversation_id, condition)
    return (await session.execute(statement)).first()


async def visible_page(session: AsyncSession, actor: Actor, wanted: Wanted) -> Sequence[Row]:
    """Return a page of what the actor may read, newest activity first."""
    found = newest_visible(actor, wanted).subquery()
    statement = _conversation_select(actor).join(found, found.c.id == Conversation.id)
    rows: Sequence[Row] = (await session.execute(statement.order_by(found.c.active_at.desc(), found.c.id.desc()))).all()
    return rows


async def may_read(session: AsyncSession, actor: Actor, conversation_id: ConversationId) -> bool:
    """Tell whether the actor may read a conversation."""
    statement = sa.select(Conversation.id).where(Conversation.id == conversation_id, visible_conversations(actor))
    return await session.scalar(statement) is not None


async def participants(session: AsyncSession, conversation_ids: Collection[int]) -> Sequence[Row]:
    """Return who takes part in some conversations, in the order of joining; one statement for a whole page."""
    statement = (
        sa.select(
            ConversationParticipant.conversation_id,
            ConversationParticipant.user_id,
            ConversationParticipant.role,
            ConversationParticipant.joined_at,
            ConversationParticipant.added_by_user_id,
            identity.PERSON_USERNAME.label("username"),
            identity.PERSON_DISPLAY_NAME.label("display_name"),
        )
        .where(
            ConversationParticipant.conversation_id.in_(conversation_ids),
            ConversationParticipant.user_id == identity.PERSON_ID,
        )
        .order_by(
            ConversationParticipant.conversation_id, ConversationParticipant.joined_at, ConversationParticipant.user_id
        )
    )
    rows: Sequence[Row] = (await session.execute(statement)).all()
    return rows


async def participant_ids(session: AsyncSession, conversation_id: ConversationId) -> list[int]:
    """Return who takes part, by id."""
    statement = sa.select(ConversationParticipant.user_id).where(
        ConversationParticipant.conversation_id == conversation_id
    )
    return list(await session.scalars(statement.order_by(ConversationParticipant.user_id)))


def _message_select() -> Select:
    return sa.select(
        Message.id,
        Message.fhir_communication_id,
        Message.conversation_id,
        Message.sender_id,
        Message.body,
        Message.amends_id,
        Message.created_at,
        identity.PERSON_USERNAME.label("sender_username"),
        identity.PERSON_DISPLAY_NAME.label("sender_display_name"),
    ).where(Message.sender_id == identity.PERSON_ID)


async def newest_messages(
    session: AsyncSession, conversation_id: ConversationId, *, before: tuple[Any, int] | None, limit: int
) -> Sequence[Row]:
    """Return messages newest first, from before a sort key (``created_at``, id) on."""
    statement = _message_select().where(Message.conversation_id == conversation_id)
    if before is not None:
        instant, number = before
        statement = statement.where(
            sa.tuple_(Message.created_at, Message.id) < sa.tuple_(sa.literal(instant, UtcDateTime()), number)
        )
    statement = statement.order_by(Message.created_at.desc(), Message.id.desc()).limit(limit)
    return (await session.execute(statement)).all()


async def message(session: AsyncSession, message_id: MessageId) -> Row:
    """Return one message that is known to exist."""
    return (await session.execute(_message_select().where(Message.id == message_id))).one()


async def find_place(session: AsyncSession, message_id: MessageId) -> Row | None:
    """Return where a message stands: its conversation, sender, time and FHIR id."""
    statement = sa.select(
        Message.id, Message.conversation_id, Message.sender_id, Message.created_at, Message.fhir_communication_id
    )
    return (await session.execute(statement.where(Message.id == message_id))).first()


async def find_number_of_message(session: AsyncSession, fhir_id: str) -> int | None:
    """Return the number of a message that has been projected already."""
    return await session.scalar(sa.select(Message.id).where(Message.fhir_communication_id == fhir_id))


async def find_number_of_conversation(session: AsyncSession, fhir_id: str) -> int | None:
    """Return the number of a conversation that has been projected already."""
    return await session.scalar(sa.select(Conversation.id).where(Conversation.fhir_conversation_id == fhir_id))


async def newest_place(session: AsyncSession, conversation_id: ConversationId) -> Row | None:
    """Return id and time of a conversation's newest message."""
    statement = sa.select(Message.id, Message.created_at).where(Message.conversation_id == conversation_id)
    return (await session.execute(statement.order_by(Message.created_at.desc(), Message.id.desc()).limit(1))).first()


async def count_after(
    session: AsyncSession, conversation_id: ConversationId, user_id: UserId, after: tuple[Any, int] | None
) -> int:
    """Return how many messages of others stand after a sort key (``created_at``, id); all of them without one."""
    statement = sa.select(sa.func.count()).where(
        Message.conversation_id == conversation_id, Message.sender_id != user_id
    )
    if after is not None:
        instant, number = after
        statement = statement.where(
            sa.tuple_(Message.created_at, Message.id) > sa.tuple_(sa.literal(instant, UtcDateTime()), number)
        )
    return await session.scalar(statement) or 0


async def lock_conversation(session: AsyncSession, conversation_id: ConversationId) -> Conversation | None:
    """Return a conversation's row, locked: its messages become visible one by one, in the order of their times."""
    return await session.get(Conversation, conversation_id, with_for_update=True, populate_existing=True)


async def lock_participant(
    session: AsyncSession, conversation_id: ConversationId, user_id: UserId
) -> ConversationParticipant | None:
    """Return a participation, locked: a message is counted before or after a reading, never lost between."""
    return await session.get(
        ConversationParticipant, (conversation_id, user_id), with_for_update=True, populate_existing=True
    )


async def participations(session: AsyncSession, user_id: UserId, patient_id: PatientId) -> list[ConversationId]:
    """Return the conversations about a patient that somebody takes part in."""
    statement = (
        sa.select(Conversation.id)
        .join(ConversationParticipant, ConversationParticipant.conversation_id == Conversation.id)
        .where(ConversationParticipant.user_id == user_id, Conversation.patient_id == patient_id)
        .order_by(Conversation.id)
    )
    return [ConversationId(number) for number in await session.scalars(statement)]


async def organisation_ids(session: AsyncSession, conversation_id: ConversationId) -> list[int]:
    """Return whose conversation it is."""
    statement = sa.select(ConversationOrganisation.organisation_id).where(
        ConversationOrganisation.conversation_id == conversation_id
    )
    return list(await session.scalars(statement.order_by(ConversationOrganisation.organisation_id)))


async def read_markers(session: AsyncSession) -> Sequence[Row]:
    """Return how far everybody has read everywhere, for a rebuilding that must not forget it."""
    statement = sa.select(
        ConversationParticipant.conversation_id,
        ConversationParticipant.user_id,
        ConversationParticipant.last_read_message_id,
        ConversationParticipant.last_read_at,
    )
    return (await session.execute(statement.where(ConversationParticipant.last_read_message_id.is_not(None)))).all()


async def highest_numbers(session: AsyncSession) -> tuple[int, int]:
    """Return the highest number of a conversation and of a message."""
    row = (
        await session.execute(
            sa.select(
                sa.select(sa.func.max(Conversation.id)).scalar_subquery().label("conversation"),
                sa.select(sa.func.max(Message.id)).scalar_subquery().label("message"),
            )
        )
    ).one()
    return row.conversation or 0, row.message or 0
