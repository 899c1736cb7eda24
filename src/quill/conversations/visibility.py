"""Which conversations somebody may read: the one rule, as a condition, and where to look for them in order.

Source: decisions, rules 17 and 24.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from quill.access import service as access
from quill.actor import Actor
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant
from quill.identity import service as identity
from quill.kit.database import UtcDateTime
from quill.kit.ids import PatientId

# Core tables, and aliases made once: a condition is built anew for every request, and ORM attributes cost much more.
CONVERSATION = Conversation.__table__
PARTICIPANT = ConversationParticipant.__table__
OWNER = ConversationOrganisation.__table__
_ANY_PARTICIPANT = PARTICIPANT.alias("any_participant")
_ANY_OWNER = OWNER.alias("any_owner")
_subject: sa.ColumnElement[str] = CONVERSATION.c.patient_id

MOST_BRANCHES = 40
"""Organisations looked through one by one; SQLite takes at most 500 parts of a compound SELECT (SQLite, limits)."""


def visible_conversations(actor: Actor) -> sa.ColumnElement[bool]:
    """Return the condition that the actor may read a conversation; the only place this is decided.

    The actor must still be tied to the patient, and take part, work in one of the conversation's organisations, or be
    an admin. The patient, and people the patient let in, also read what either of them takes part in, never talk among
    staff.
    """
    if actor.is_admin:
        return sa.true()
    return sa.and_(
        access.is_related(actor, _subject),
        sa.or_(
            _takes_part(actor),
            _works_there(actor),
            sa.and_(access.is_personally_related(actor, _subject), _patient_takes_part()),
        ),
    )


def about_related_patients(actor: Actor) -> sa.ColumnElement[bool]:
    """Return the condition that a conversation is about a patient the actor is tied to, readable or not."""
    return access.is_related(actor, _subject)


def everything() -> sa.ColumnElement[bool]:
    """Return the condition that lets every conversation through; for acts whose right was decided elsewhere."""
    return sa.true()


def _takes_part(actor: Actor) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        _ANY_PARTICIPANT.c.conversation_id == CONVERSATION.c.id, _ANY_PARTICIPANT.c.user_id == actor.user_id
    )


def _works_there(actor: Actor) -> sa.ColumnElement[bool]:
    if not actor.organisation_ids:
        return sa.false()
    return sa.exists().where(
        _ANY_OWNER.c.conversation_id == CONVERSATION.c.id, _ANY_OWNER.c.organisation_id.in_(actor.organisation_ids)
    )


def _patient_takes_part() -> sa.ColumnElement[bool]:
    return sa.exists().where(
        _ANY_PARTICIPANT.c.conversation_id == CONVERSATION.c.id,
        _ANY_PARTICIPANT.c.user_id == identity.PERSON_ID,
        _subject == identity.PERSON_PATIENT_ID,
    )


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


def newest_visible(actor: Actor, wanted: Wanted) -> sa.Select[*tuple[Any, ...]]:
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


def _branches(actor: Actor, wanted: Wanted) -> Iterator[sa.Select[*tuple[Any, ...]]]:
    yield _branch(actor, wanted, PARTICIPANT, PARTICIPANT.c.user_id == actor.user_id)
    yield _branch(actor, wanted, CONVERSATION, _subject.in_(identity.granted_patients(actor)))
    if actor.patient_id is not None:
        yield _branch(actor, wanted, CONVERSATION, _subject == actor.patient_id)
    ways = min(len(actor.organisation_ids), MOST_BRANCHES)
    for way in range(ways):
        some = actor.organisation_ids[way::ways]
        column = OWNER.c.organisation_id
        yield _branch(actor, wanted, OWNER, column == some[0] if len(some) == 1 else column.in_(some))


def _branch(
    actor: Actor, wanted: Wanted, way: sa.FromClause, condition: sa.ColumnElement[bool]
) -> sa.Select[*tuple[Any, ...]]:
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
        statement = statement.where(_subject == wanted.patient_id)
    if wanted.status is not None:
        statement = statement.where(CONVERSATION.c.status == wanted.status)
    if wanted.after is not None:
        instant, last = wanted.after
        statement = statement.where(sa.tuple_(active_at, number) < sa.tuple_(sa.literal(instant, UtcDateTime()), last))
    return statement.order_by(active_at.desc(), number.desc()).limit(wanted.limit)
