"""Rows that are locked to be changed, and what is asked together with the lock so that it costs no statement more."""

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.conversations.models import Conversation, ParticipationEnd
from quill.conversations.queries.reading import (
    CONVERSATION_ID,
    COUNT_AFTER,
    FHIR_ID,
    MESSAGE,
    MESSAGE_ID,
    MINE,
    READER_ID,
    Row,
    conversation_where,
    is_number,
)
from quill.conversations.queries.rows import ConversationRow, Select
from quill.conversations.visibility import CONVERSATION, OWNER, PARTICIPANT, Rule
from quill.identity.terms import ActorShape, actor_values
from quill.kit.database import UtcDateTime
from quill.kit.ids import ConversationId, MessageId, PatientId, UserId
from quill.patients import service as patients

# These locks leave the key alone, so that PostgreSQL's own looks at it, for rows that refer to it, need not wait.
_LOCK_CONVERSATION = (
    sa.select(Conversation)
    .where(CONVERSATION.c.id == CONVERSATION_ID)
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)


async def lock_conversation(session: AsyncSession, conversation_id: ConversationId) -> Conversation | None:
    """Return a conversation's row, locked: its messages become visible one by one, in the order of their times."""
    return (await session.scalars(_LOCK_CONVERSATION, {"in_conversation": conversation_id})).first()


_HOLD_CONVERSATION = (
    sa.select(CONVERSATION.c.id).where(CONVERSATION.c.id == CONVERSATION_ID).with_for_update(key_share=True)
)


async def hold_conversation(session: AsyncSession, conversation_id: ConversationId) -> None:
    """Lock a conversation's row as ``lock_conversation`` does, for who need not look at it."""
    await session.execute(_HOLD_CONVERSATION, {"in_conversation": conversation_id})


@functools.cache
def _writable_where(actor: ActorShape, rule: Rule) -> Select:
    is_active = patients.activity_of(CONVERSATION.c.patient_id).label("patient_is_active")
    return conversation_where(actor, rule).add_columns(is_active).with_for_update(of=CONVERSATION, key_share=True)


@functools.cache
def _writable_with_number(actor: ActorShape, rule: Rule) -> Select:
    # From a common table expression, so that the number is taken once the lock is had, and for who takes part.
    locked = _writable_where(actor, rule).cte("locked")
    number = sa.func.nextval(sa.func.pg_get_serial_sequence(MESSAGE.name, MESSAGE.c.id.name))
    return sa.select(*locked.c, sa.case((locked.c.my_role.is_not(None), number)).label("message_number"))


async def lock_where(
    session: AsyncSession, actor: Actor, conversation_id: ConversationId, rule: Rule, *, takes_number: bool = False
) -> ConversationRow | None:
    """Return what ``find_where`` does and ``patient_is_active``, the conversation locked as by ``lock_conversation``.

    The conversation is as the lock found it; rule, participation and patient are as they were before waiting for it.

    Args:
        session: the transaction.
        actor: whose participation.
        conversation_id: which one.
        rule: which conversations count.
        takes_number: whether a message is to be written, whose number PostgreSQL's sequence gives at the same time.
    """
    if not is_number(conversation_id):
        return None
    has_sequence = takes_number and session.get_bind().dialect.name == "postgresql"
    statement = (_writable_with_number if has_sequence else _writable_where)(ActorShape.of(actor), rule)
    row = (await session.execute(statement, actor_values(actor) | {"in_conversation": conversation_id})).first()
    return ConversationRow(*row) if row is not None else None


_SAID_AT = sa.bindparam("said_at", type_=UtcDateTime())
_IS_REPLY = sa.and_(
    CONVERSATION.c.status == "new", CONVERSATION.c.created_by_user_id != sa.bindparam("sent_by", type_=sa.Integer())
)
MAKE_NEWEST = (
    sa.update(CONVERSATION)
    .where(
        CONVERSATION.c.id == CONVERSATION_ID,
        sa.or_(CONVERSATION.c.last_message_at.is_(None), CONVERSATION.c.last_message_at < _SAID_AT),
        ~sa.exists().where(MESSAGE.c.fhir_communication_id == FHIR_ID),
    )
    .values(
        last_message_at=_SAID_AT,
        last_message_preview=sa.bindparam("preview"),
        updated_at=sa.case((CONVERSATION.c.updated_at < _SAID_AT, _SAID_AT), else_=CONVERSATION.c.updated_at),
        # Decisions, rule 26: any message revives what was resolved, a reply begins what is new.
        status=sa.case((sa.or_(CONVERSATION.c.status == "resolved", _IS_REPLY), "active"), else_=CONVERSATION.c.status),
    )
    .returning(CONVERSATION.c.updated_at)
)
"""Lets a conversation tell of a message as its newest, and locks it; unless the message is there, or not the newest."""


def _showing(place: sa.Table) -> sa.Update:
    is_there = place.c.conversation_id == CONVERSATION_ID
    return sa.update(place).where(is_there).values(active_at=sa.bindparam("shown_at"))


INSERT_MESSAGE = sa.insert(MESSAGE)
SHOW_TO_OWNERS = _showing(OWNER)
SHOW_TO_PEOPLE = _showing(PARTICIPANT)
COUNT_AND_SHOW = SHOW_TO_PEOPLE.values(
    unread_count=PARTICIPANT.c.unread_count
    + sa.cast(PARTICIPANT.c.user_id != sa.bindparam("sent_by", type_=sa.Integer()), sa.Integer)
).returning(PARTICIPANT.c.user_id)
"""Counts a message for the others and shows its conversation to all; answers who takes part."""


def _add_message() -> sa.Select[int | None]:
    newest = MAKE_NEWEST.returning(CONVERSATION.c.id).cte("newest")
    its = [sa.bindparam(f"its_{column.name}", type_=column.type) for column in MESSAGE.c]
    said = INSERT_MESSAGE.from_select([column.name for column in MESSAGE.c], sa.select(*its).select_from(newest))
    to_owners = SHOW_TO_OWNERS.where(OWNER.c.conversation_id == newest.c.id).values(active_at=newest.c.updated_at)
    to_people = COUNT_AND_SHOW.where(PARTICIPANT.c.conversation_id == newest.c.id)
    counted = to_people.values(active_at=newest.c.updated_at).cte("counted")
    people = sa.select(counted.c.user_id).select_from(newest.outerjoin(counted, sa.true()))
    return people.add_cte(said.cte("said"), to_owners.cte("shown"))


ADD_MESSAGE = _add_message()
"""PostgreSQL's one statement for all of it, for who has locked the conversation; answers who takes part.

Nobody when the message is there or is not the newest; somebody without a name where nobody takes part.
"""

_PLACE = MESSAGE.alias("place")
_NEWEST = (
    sa.select(MESSAGE.c.id)
    .where(MESSAGE.c.conversation_id == CONVERSATION_ID)
    .order_by(MESSAGE.c.created_at.desc(), MESSAGE.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_LAST_READ_AT = sa.select(MESSAGE.c.created_at).where(MESSAGE.c.id == MINE.c.last_read_message_id).scalar_subquery()


@functools.cache
def _marker_where(actor: ActorShape, rule: Rule, *, names_message: bool) -> Select:
    is_place = _PLACE.c.id == (MESSAGE_ID if names_message else _NEWEST)
    columns: Select = sa.select(
        CONVERSATION.c.id,
        CONVERSATION.c.patient_id,
        MINE.c.last_read_message_id,
        _LAST_READ_AT.label("last_read_message_at"),
        _PLACE.c.id.label("place_id"),
        _PLACE.c.created_at.label("place_at"),
    )
    return (
        columns.join_from(
            CONVERSATION, MINE, sa.and_(MINE.c.conversation_id == CONVERSATION.c.id, actor.is_user(MINE.c.user_id))
        )
        .outerjoin(_PLACE, sa.and_(_PLACE.c.conversation_id == CONVERSATION.c.id, is_place))
        .where(CONVERSATION.c.id == CONVERSATION_ID, rule(actor))
        .with_for_update(of=MINE)
    )


async def lock_marker(
    session: AsyncSession, actor: Actor, conversation_id: ConversationId, message_id: MessageId | None, rule: Rule
) -> Row | None:
    """Return how far the actor has read, locked: a message is counted before or after a reading, never lost between.

    Args:
        session: the transaction.
        actor: whose marker.
        conversation_id: where.
        message_id: where the marker is to go; to the newest message when ``None``.
        rule: which conversations count.

    Returns:
        ``id`` and ``patient_id`` of the conversation; ``last_read_message_id`` with its time, which is ``None`` too
        where the marker was moved while this waited for the lock; ``place_id`` and ``place_at`` of the message the
        marker is to go to, ``None`` when it is not in the conversation. ``None`` when the actor takes no part in such a
        conversation.
    """
    if not is_number(conversation_id):
        return None
    values: dict[str, Any] = actor_values(actor) | {"in_conversation": conversation_id}
    if message_id is not None:
        values["the_message"] = message_id
    statement = _marker_where(ActorShape.of(actor), rule, names_message=message_id is not None)
    return (await session.execute(statement, values)).first()


MOVE_MARKER = (
    sa.update(PARTICIPANT)
    .where(PARTICIPANT.c.conversation_id == CONVERSATION_ID, PARTICIPANT.c.user_id == READER_ID)
    .values(
        last_read_message_id=sa.bindparam("mark_number"),
        last_read_at=sa.bindparam("read_at"),
        unread_count=COUNT_AFTER.scalar_subquery(),
    )
)
"""Moves a marker that is locked to a mark, and counts what stands after it as it is by then."""


async def lock_participation_end(
    session: AsyncSession, patient_id: PatientId, user_id: UserId
) -> ParticipationEnd | None:
    """Return when somebody's access to a patient ended last, locked."""
    return await session.get(ParticipationEnd, (patient_id, user_id), with_for_update=True, populate_existing=True)
