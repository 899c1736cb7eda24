"""Conversations, people and messages as they are shown and changed."""

import datetime
import functools
from collections.abc import Collection
from typing import Any, TypeAlias, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.conversations.models import ConversationParticipant, Message, ParticipationEnd
from quill.conversations.queries.rows import ConversationRow, MessageRow, ParticipantRow, Select, select_into
from quill.conversations.visibility import CONVERSATION, OWNER, PARTICIPANT, Rule, visible_conversations
from quill.identity import service as identity
from quill.identity.terms import ActorShape, actor_values
from quill.kit.database import UtcDateTime
from quill.kit.ids import ConversationId, MessageId, PatientId, UserId

Row: TypeAlias = sa.Row[*tuple[Any, ...]]


Mark: TypeAlias = tuple[datetime.datetime, int]
"""A place in an order by time: the instant and the number of a row."""


_HIGHEST_NUMBER = 2**31 - 1

MARK: sa.ColumnElement[Any] = sa.tuple_(
    sa.bindparam("mark_instant", type_=UtcDateTime()), sa.bindparam("mark_number", type_=sa.BigInteger())
)
"""The mark a statement made once is executed with, by ``mark_values``."""

CONVERSATION_ID = sa.bindparam("in_conversation", type_=sa.Integer())
MESSAGE_ID = sa.bindparam("the_message", type_=sa.BigInteger())
FHIR_ID = sa.bindparam("the_fhir_id", type_=sa.String(64))
READER_ID = sa.bindparam("reader_id", type_=sa.Integer())

_KINDS_OF_READERS = (Level.ADMIN, Level.STAFF, Level.PATIENT)
"""Those between whom the rule tells, each with whoever reaches it and not the one before."""

MESSAGE = cast("sa.Table", Message.__table__)
_MESSAGE_KEY: sa.ColumnElement[Any] = sa.tuple_(MESSAGE.c.created_at, MESSAGE.c.id)
MINE = PARTICIPANT.alias("mine")
_CONVERSATIONS = select_into(
    ConversationRow,
    CONVERSATION.c.id,
    CONVERSATION.c.fhir_conversation_id,
    CONVERSATION.c.patient_id,
    CONVERSATION.c.subject,
    CONVERSATION.c.status,
    CONVERSATION.c.status_changed_at,
    CONVERSATION.c.status_changed_by_user_id,
    CONVERSATION.c.created_by_user_id,
    CONVERSATION.c.created_at,
    CONVERSATION.c.updated_at,
    CONVERSATION.c.include_patient_as_participant,
    CONVERSATION.c.last_message_preview,
    CONVERSATION.c.last_message_at,
    MINE.c.role.label("my_role"),
    MINE.c.unread_count.label("my_unread_count"),
)
_PEOPLE = (
    select_into(
        ParticipantRow,
        PARTICIPANT.c.conversation_id,
        PARTICIPANT.c.user_id,
        PARTICIPANT.c.role,
        PARTICIPANT.c.joined_at,
        PARTICIPANT.c.added_by_user_id,
        identity.PERSON_USERNAME.label("username"),
        identity.PERSON_DISPLAY_NAME.label("display_name"),
    )
    .where(PARTICIPANT.c.user_id == identity.PERSON_ID)
    .order_by(PARTICIPANT.c.conversation_id, PARTICIPANT.c.joined_at, PARTICIPANT.c.user_id)
)
_MESSAGES = select_into(
    MessageRow,
    MESSAGE.c.id,
    MESSAGE.c.fhir_communication_id,
    MESSAGE.c.conversation_id,
    MESSAGE.c.sender_id,
    MESSAGE.c.body,
    MESSAGE.c.amends_id,
    MESSAGE.c.created_at,
    identity.PERSON_USERNAME.label("sender_username"),
    identity.PERSON_DISPLAY_NAME.label("sender_display_name"),
).where(MESSAGE.c.sender_id == identity.PERSON_ID)


def is_number(conversation_id: ConversationId) -> bool:
    """Tell whether a conversation may have this number; PostgreSQL refuses to compare its column with a higher one."""
    return 0 < conversation_id <= _HIGHEST_NUMBER


def mark_values(mark: Mark | None) -> dict[str, Any]:
    """Return what a statement with a ``MARK`` is executed with; nothing when there is none."""
    return {} if mark is None else {"mark_instant": mark[0], "mark_number": mark[1]}


def conversation_select(actor: ActorShape) -> Select:
    """Select conversations, each with the actor's own participation: ``my_role`` is ``None`` without one."""
    return _CONVERSATIONS.outerjoin_from(
        CONVERSATION, MINE, sa.and_(MINE.c.conversation_id == CONVERSATION.c.id, actor.is_user(MINE.c.user_id))
    )


@functools.cache
def conversation_where(actor: ActorShape, rule: Rule) -> Select:
    """Select one conversation, if a rule of ``visibility`` lets the actor have it."""
    return conversation_select(actor).where(CONVERSATION.c.id == CONVERSATION_ID, rule(actor))


async def find_where(
    session: AsyncSession, actor: Actor, conversation_id: ConversationId, rule: Rule
) -> ConversationRow | None:
    """Return a conversation if a rule of ``visibility`` lets the actor have it."""
    if not is_number(conversation_id):
        return None
    statement = conversation_where(ActorShape.of(actor), rule)
    row = (await session.execute(statement, actor_values(actor) | {"in_conversation": conversation_id})).first()
    return ConversationRow(*row) if row is not None else None


@functools.cache
def _readable(actor: ActorShape) -> sa.Select[int]:
    return sa.select(CONVERSATION.c.id).where(CONVERSATION.c.id == CONVERSATION_ID, visible_conversations(actor))


async def may_read(session: AsyncSession, actor: Actor, conversation_id: ConversationId) -> bool:
    """Tell whether the actor may read a conversation."""
    values = actor_values(actor) | {"in_conversation": conversation_id}
    return await session.scalar(_readable(ActorShape.of(actor)), values) is not None


_PARTICIPANTS = _PEOPLE.where(
    PARTICIPANT.c.conversation_id.in_(sa.bindparam("in_conversations", type_=sa.Integer(), expanding=True))
)


@functools.cache
def _readers_among() -> sa.CompoundSelect[*tuple[Any, ...]]:
    """Return the select of those who may read a conversation among people of three kinds; made once."""
    return sa.union_all(*(_readers_of_kind(level) for level in _KINDS_OF_READERS))


def _readers_of_kind(level: Level) -> Select:
    anybody = identity.Anybody(level)
    is_meant = anybody.user_id.in_(sa.bindparam(level.value, type_=sa.Integer(), expanding=True))
    return (
        sa.select(anybody.user_id)
        .join_from(CONVERSATION, anybody.table, is_meant)
        .where(CONVERSATION.c.id == CONVERSATION_ID, visible_conversations(anybody))
    )


async def readers_among(
    session: AsyncSession, actors: Collection[Actor], conversation_id: ConversationId
) -> set[UserId]:
    """Return those of some actors who may read a conversation; one statement, however many they are."""
    kinds: dict[str, list[int]] = {level.value: [] for level in _KINDS_OF_READERS}
    for actor in actors:
        kind = next(level for level in _KINDS_OF_READERS if actor.level.reaches(level))
        kinds[kind.value].append(actor.person_id)
    rows = await session.scalars(_readers_among(), {"in_conversation": conversation_id, **kinds})
    return {UserId(number) for number in rows}


async def participants(session: AsyncSession, conversation_ids: Collection[int]) -> list[ParticipantRow]:
    """Return who takes part in some conversations, in the order of joining; one statement for a whole page."""
    rows = (await session.execute(_PARTICIPANTS, {"in_conversations": list(conversation_ids)})).all()
    return [ParticipantRow(*row) for row in rows]


_PARTICIPANT_IDS = (
    sa.select(PARTICIPANT.c.user_id)
    .where(PARTICIPANT.c.conversation_id == CONVERSATION_ID)
    .order_by(PARTICIPANT.c.user_id)
)


async def participant_ids(session: AsyncSession, conversation_id: ConversationId) -> list[int]:
    """Return who takes part, by id."""
    return list(await session.scalars(_PARTICIPANT_IDS, {"in_conversation": conversation_id}))


_NEWEST_MESSAGES = (
    _MESSAGES.where(MESSAGE.c.conversation_id == CONVERSATION_ID)
    .order_by(MESSAGE.c.created_at.desc(), MESSAGE.c.id.desc())
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
_OLDER_MESSAGES = _NEWEST_MESSAGES.where(_MESSAGE_KEY < MARK)


async def newest_messages(
    session: AsyncSession, conversation_id: ConversationId, *, before: Mark | None, limit: int
) -> list[MessageRow]:
    """Return messages newest first, from before a sort key (``created_at``, id) on."""
    statement = _NEWEST_MESSAGES if before is None else _OLDER_MESSAGES
    values = {"in_conversation": conversation_id, "most": limit} | mark_values(before)
    return [MessageRow(*row) for row in (await session.execute(statement, values)).all()]


_ONE_MESSAGE = _MESSAGES.where(MESSAGE.c.id == MESSAGE_ID)


async def message(session: AsyncSession, message_id: MessageId) -> MessageRow:
    """Return one message that is known to exist."""
    return MessageRow(*(await session.execute(_ONE_MESSAGE, {"the_message": message_id})).one())


_PLACE: Select = sa.select(
    MESSAGE.c.id,
    MESSAGE.c.conversation_id,
    MESSAGE.c.sender_id,
    MESSAGE.c.created_at,
    MESSAGE.c.fhir_communication_id,
).where(MESSAGE.c.id == MESSAGE_ID)


async def find_place(session: AsyncSession, message_id: MessageId) -> Row | None:
    """Return where a message stands: its conversation, sender, time and FHIR id."""
    return (await session.execute(_PLACE, {"the_message": message_id})).first()


_MESSAGE_TIME = sa.select(MESSAGE.c.created_at).where(MESSAGE.c.fhir_communication_id == FHIR_ID)
_CONVERSATION_NUMBER = sa.select(CONVERSATION.c.id).where(CONVERSATION.c.fhir_conversation_id == FHIR_ID)


async def find_time_of_message(session: AsyncSession, fhir_id: str) -> datetime.datetime | None:
    """Return the time of a message that has been projected already."""
    return await session.scalar(_MESSAGE_TIME, {"the_fhir_id": fhir_id})


async def find_number_of_conversation(session: AsyncSession, fhir_id: str) -> int | None:
    """Return the number of a conversation that has been projected already."""
    return await session.scalar(_CONVERSATION_NUMBER, {"the_fhir_id": fhir_id})


COUNT_OF_OTHERS = sa.select(sa.func.count()).where(
    MESSAGE.c.conversation_id == CONVERSATION_ID, MESSAGE.c.sender_id != READER_ID
)
"""How many messages of others there are for a reader."""
COUNT_AFTER = COUNT_OF_OTHERS.where(_MESSAGE_KEY > MARK)
"""How many of them stand after a mark."""


async def count_of_others(session: AsyncSession, conversation_id: ConversationId, user_id: UserId) -> int:
    """Return how many messages of others there are for somebody who has read nothing yet."""
    return await session.scalar(COUNT_OF_OTHERS, {"in_conversation": conversation_id, "reader_id": user_id}) or 0


async def participations(session: AsyncSession, user_id: UserId, patient_id: PatientId) -> list[ConversationId]:
    """Return the conversations about a patient that somebody takes part in."""
    statement = (
        sa.select(CONVERSATION.c.id)
        .join(PARTICIPANT, PARTICIPANT.c.conversation_id == CONVERSATION.c.id)
        .where(PARTICIPANT.c.user_id == user_id, CONVERSATION.c.patient_id == patient_id)
        .order_by(CONVERSATION.c.id)
    )
    return [ConversationId(number) for number in await session.scalars(statement)]


async def participation_ends(session: AsyncSession, patient_id: PatientId) -> dict[int, datetime.datetime]:
    """Return until when any part taken in conversations about a patient is over, by person."""
    statement = sa.select(ParticipationEnd.user_id, ParticipationEnd.ended_at)
    rows = await session.execute(statement.where(ParticipationEnd.patient_id == patient_id))
    return {row.user_id: row.ended_at for row in rows}


def participations_that_are_over() -> sa.ColumnElement[bool]:
    """Return the condition on a participation that the person's access to the patient ended since."""
    return sa.exists().where(
        CONVERSATION.c.id == ConversationParticipant.conversation_id,
        ParticipationEnd.patient_id == CONVERSATION.c.patient_id,
        ParticipationEnd.user_id == ConversationParticipant.user_id,
        ParticipationEnd.ended_at >= ConversationParticipant.joined_at,
    )


async def organisation_ids(session: AsyncSession, conversation_id: ConversationId) -> list[int]:
    """Return whose conversation it is."""
    statement = sa.select(OWNER.c.organisation_id).where(OWNER.c.conversation_id == conversation_id)
    return list(await session.scalars(statement.order_by(OWNER.c.organisation_id)))
