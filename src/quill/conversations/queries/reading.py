"""Conversations, people and messages as they are shown and changed."""

import datetime
import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.conversations.models import Conversation, ConversationParticipant, Message, ParticipationEnd
from quill.conversations.visibility import CONVERSATION, OWNER, PARTICIPANT, visible_conversations
from quill.identity import service as identity
from quill.kit.database import UtcDateTime
from quill.kit.ids import ConversationId, MessageId, PatientId, UserId

Row: TypeAlias = sa.Row[*tuple[Any, ...]]
Select: TypeAlias = sa.Select[*tuple[Any, ...]]


HIGHEST_NUMBER = 2**31 - 1
"""No conversation has a higher one; PostgreSQL refuses to compare its column with more."""

MOST_BRANCHES = 40
"""Organisations looked through one by one; SQLite takes at most 500 parts of a compound SELECT (SQLite, limits)."""

_KINDS_OF_READERS = (Level.ADMIN, Level.STAFF, Level.PATIENT)
"""Those between whom the rule tells, each with whoever reaches it and not the one before."""

_MESSAGE = Message.__table__
_MINE = PARTICIPANT.alias("mine")
_CONVERSATIONS: Select = sa.select(
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
    _MINE.c.role.label("my_role"),
    _MINE.c.unread_count.label("my_unread_count"),
)
_PEOPLE: Select = (
    sa.select(
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
_MESSAGES: Select = sa.select(
    _MESSAGE.c.id,
    _MESSAGE.c.fhir_communication_id,
    _MESSAGE.c.conversation_id,
    _MESSAGE.c.sender_id,
    _MESSAGE.c.body,
    _MESSAGE.c.amends_id,
    _MESSAGE.c.created_at,
    identity.PERSON_USERNAME.label("sender_username"),
    identity.PERSON_DISPLAY_NAME.label("sender_display_name"),
).where(_MESSAGE.c.sender_id == identity.PERSON_ID)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list is to hold.

    Attributes:
        limit: how many rows.
        after: the sort key, ``updated_at`` and id, of the row before.
        status: only conversations of this status.
        patient_id: only conversations about this patient.
    """

    limit: int
    after: tuple[datetime.datetime, int] | None = None
    status: str | None = None
    patient_id: PatientId | None = None


def _conversation_select(actor: Actor) -> Select:
    """Select conversations, each with the actor's own participation: ``my_role`` is ``None`` without one."""
    return _CONVERSATIONS.outerjoin_from(
        CONVERSATION, _MINE, sa.and_(_MINE.c.conversation_id == CONVERSATION.c.id, _MINE.c.user_id == actor.user_id)
    )


async def find_where(
    session: AsyncSession, actor: Actor, conversation_id: ConversationId, condition: sa.ColumnElement[bool]
) -> Row | None:
    """Return a conversation if a condition of ``visibility`` holds."""
    statement = _conversation_select(actor).where(CONVERSATION.c.id == conversation_id, condition)
    return (await session.execute(statement)).first()


async def visible_page(session: AsyncSession, actor: Actor, wanted: Wanted) -> Sequence[Row]:
    """Return a page of what the actor may read, newest activity first."""
    found = newest_visible(actor, wanted).subquery()
    statement = _conversation_select(actor).join(found, found.c.id == CONVERSATION.c.id)
    rows: Sequence[Row] = (await session.execute(statement.order_by(found.c.active_at.desc(), found.c.id.desc()))).all()
    return rows


def newest_visible(actor: Actor, wanted: Wanted) -> Select:
    """Return the select of the ids of a page, newest activity first.

    An index gives them in order, so a page costs a page: the conversations' own for an admin or one patient, otherwise
    those of the actor's participations and organisations, merged. Where they are looked for never decides what may be
    read: each branch carries the whole condition.
    """
    if actor.is_admin or wanted.patient_id is not None:
        return _branch(actor, wanted, CONVERSATION, sa.true())
    branches = [branch.subquery() for branch in _branches(actor, wanted)]
    # UNION drops the repetitions: many conversations are reached by more than one way.
    found = sa.union(*(sa.select(branch.c.active_at, branch.c.id) for branch in branches)).subquery()
    return (
        sa.select(found.c.active_at, found.c.id)
        .order_by(found.c.active_at.desc(), found.c.id.desc())
        .limit(wanted.limit)
    )


def _branches(actor: Actor, wanted: Wanted) -> Iterator[Select]:
    yield _branch(actor, wanted, PARTICIPANT, PARTICIPANT.c.user_id == actor.user_id)
    yield _branch(actor, wanted, CONVERSATION, CONVERSATION.c.patient_id.in_(identity.granted_patients(actor)))
    if actor.patient_id is not None:
        yield _branch(actor, wanted, CONVERSATION, CONVERSATION.c.patient_id == actor.patient_id)
    ways = min(len(actor.organisation_ids), MOST_BRANCHES)
    for way in range(ways):
        some = actor.organisation_ids[way::ways]
        column = OWNER.c.organisation_id
        yield _branch(actor, wanted, OWNER, column == some[0] if len(some) == 1 else column.in_(some))


def _branch(actor: Actor, wanted: Wanted, way: sa.FromClause, condition: sa.ColumnElement[bool]) -> Select:
    """Return the select of one way to the newest conversations: the first ``limit`` it leads to."""
    if way is CONVERSATION:
        active_at, number = CONVERSATION.c.updated_at, CONVERSATION.c.id
        statement = sa.select(active_at.label("active_at"), number.label("id"))
    else:
        active_at, number = way.c.active_at, way.c.conversation_id
        statement = sa.select(active_at.label("active_at"), number.label("id")).join_from(
            way, CONVERSATION, CONVERSATION.c.id == number
        )
    statement = statement.where(condition, visible_conversations(actor))
    if wanted.patient_id is not None:
        statement = statement.where(CONVERSATION.c.patient_id == wanted.patient_id)
    if wanted.status is not None:
        statement = statement.where(CONVERSATION.c.status == wanted.status)
    if wanted.after is not None:
        instant, last = wanted.after
        statement = statement.where(sa.tuple_(active_at, number) < sa.tuple_(sa.literal(instant, UtcDateTime()), last))
    return statement.order_by(active_at.desc(), number.desc()).limit(wanted.limit)


async def may_read(session: AsyncSession, actor: Actor, conversation_id: ConversationId) -> bool:
    """Tell whether the actor may read a conversation."""
    statement = sa.select(CONVERSATION.c.id).where(CONVERSATION.c.id == conversation_id, visible_conversations(actor))
    return await session.scalar(statement) is not None


@functools.cache
def _readers_among() -> sa.CompoundSelect[*tuple[Any, ...]]:
    """Return the select of those who may read a conversation among people of three kinds; made once."""
    return sa.union_all(*(_readers_of_kind(level) for level in _KINDS_OF_READERS))


def _readers_of_kind(level: Level) -> Select:
    anybody = identity.anybody(level)
    is_meant = anybody.user_id.in_(sa.bindparam(level.value, expanding=True))
    return (
        sa.select(anybody.user_id)
        .join_from(CONVERSATION, anybody.table, is_meant)
        .where(CONVERSATION.c.id == sa.bindparam("conversation_id"), visible_conversations(anybody))
    )


async def readers_among(
    session: AsyncSession, actors: Collection[Actor], conversation_id: ConversationId
) -> set[UserId]:
    """Return those of some actors who may read a conversation; one statement, however many they are."""
    kinds: dict[str, list[int]] = {level.value: [] for level in _KINDS_OF_READERS}
    for actor in actors:
        kind = next(level for level in _KINDS_OF_READERS if actor.level.reaches(level))
        kinds[kind.value].append(actor.person_id)
    rows = await session.scalars(_readers_among(), {"conversation_id": conversation_id, **kinds})
    return {UserId(number) for number in rows}


async def participants(session: AsyncSession, conversation_ids: Collection[int]) -> Sequence[Row]:
    """Return who takes part in some conversations, in the order of joining; one statement for a whole page."""
    statement = _PEOPLE.where(PARTICIPANT.c.conversation_id.in_(conversation_ids))
    rows: Sequence[Row] = (await session.execute(statement)).all()
    return rows


async def participant_ids(session: AsyncSession, conversation_id: ConversationId) -> list[int]:
    """Return who takes part, by id."""
    statement = sa.select(PARTICIPANT.c.user_id).where(PARTICIPANT.c.conversation_id == conversation_id)
    return list(await session.scalars(statement.order_by(PARTICIPANT.c.user_id)))


async def newest_messages(
    session: AsyncSession, conversation_id: ConversationId, *, before: tuple[Any, int] | None, limit: int
) -> Sequence[Row]:
    """Return messages newest first, from before a sort key (``created_at``, id) on."""
    statement = _MESSAGES.where(_MESSAGE.c.conversation_id == conversation_id)
    if before is not None:
        instant, number = before
        statement = statement.where(
            sa.tuple_(_MESSAGE.c.created_at, _MESSAGE.c.id) < sa.tuple_(sa.literal(instant, UtcDateTime()), number)
        )
    statement = statement.order_by(_MESSAGE.c.created_at.desc(), _MESSAGE.c.id.desc()).limit(limit)
    return (await session.execute(statement)).all()


async def message(session: AsyncSession, message_id: MessageId) -> Row:
    """Return one message that is known to exist."""
    return (await session.execute(_MESSAGES.where(_MESSAGE.c.id == message_id))).one()


async def find_place(session: AsyncSession, message_id: MessageId) -> Row | None:
    """Return where a message stands: its conversation, sender, time and FHIR id."""
    statement = sa.select(
        _MESSAGE.c.id,
        _MESSAGE.c.conversation_id,
        _MESSAGE.c.sender_id,
        _MESSAGE.c.created_at,
        _MESSAGE.c.fhir_communication_id,
    )
    return (await session.execute(statement.where(_MESSAGE.c.id == message_id))).first()


async def find_number_of_message(session: AsyncSession, fhir_id: str) -> int | None:
    """Return the number of a message that has been projected already."""
    return await session.scalar(sa.select(_MESSAGE.c.id).where(_MESSAGE.c.fhir_communication_id == fhir_id))


async def find_number_of_conversation(session: AsyncSession, fhir_id: str) -> int | None:
    """Return the number of a conversation that has been projected already."""
    return await session.scalar(sa.select(CONVERSATION.c.id).where(CONVERSATION.c.fhir_conversation_id == fhir_id))


async def newest_place(session: AsyncSession, conversation_id: ConversationId) -> Row | None:
    """Return id and time of a conversation's newest message."""
    statement = sa.select(_MESSAGE.c.id, _MESSAGE.c.created_at).where(_MESSAGE.c.conversation_id == conversation_id)
    return (
        await session.execute(statement.order_by(_MESSAGE.c.created_at.desc(), _MESSAGE.c.id.desc()).limit(1))
    ).first()


async def count_after(
    session: AsyncSession, conversation_id: ConversationId, user_id: UserId, after: tuple[Any, int] | None
) -> int:
    """Return how many messages of others stand after a sort key (``created_at``, id); all of them without one."""
    statement = sa.select(sa.func.count()).where(
        _MESSAGE.c.conversation_id == conversation_id, _MESSAGE.c.sender_id != user_id
    )
    if after is not None:
        instant, number = after
        statement = statement.where(
            sa.tuple_(_MESSAGE.c.created_at, _MESSAGE.c.id) > sa.tuple_(sa.literal(instant, UtcDateTime()), number)
        )
    return await session.scalar(statement) or 0


async def lock_conversation(session: AsyncSession, conversation_id: ConversationId) -> Conversation | None:
    """Return a conversation's row, locked: its messages become visible one by one, in the order of their times.

    The lock leaves the key alone, so that PostgreSQL's own looks at it, for rows that refer to it, need not wait.
    """
    lock: Any = {"key_share": True}
    return await session.get(Conversation, conversation_id, with_for_update=lock, populate_existing=True)


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


async def lock_participation_end(
    session: AsyncSession, patient_id: PatientId, user_id: UserId
) -> ParticipationEnd | None:
    """Return when somebody's access to a patient ended last, locked."""
    return await session.get(ParticipationEnd, (patient_id, user_id), with_for_update=True, populate_existing=True)


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
