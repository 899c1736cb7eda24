"""Which conversations somebody may read: the one rule, as a condition, and where to look for them in order.

Source: decisions, rules 17 and 24.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from quill.access import service as access
from quill.actor import Actor
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant
from quill.identity import service as identity
from quill.kit.database import UtcDateTime
from quill.kit.ids import PatientId

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


_subject: sa.ColumnElement[str] = Conversation.__table__.c.patient_id


def _takes_part(actor: Actor) -> sa.ColumnElement[bool]:
    participant = aliased(ConversationParticipant)
    return sa.exists().where(participant.conversation_id == Conversation.id, participant.user_id == actor.user_id)


def _works_there(actor: Actor) -> sa.ColumnElement[bool]:
    if not actor.organisation_ids:
        return sa.false()
    owner = aliased(ConversationOrganisation)
    return sa.exists().where(
        owner.conversation_id == Conversation.id, owner.organisation_id.in_(actor.organisation_ids)
    )


def _patient_takes_part() -> sa.ColumnElement[bool]:
    participant = aliased(ConversationParticipant)
    return sa.exists().where(
        participant.conversation_id == Conversation.id,
        participant.user_id == identity.PERSON_ID,
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
        return _branch(actor, wanted, Conversation.updated_at, sa.true())
    branches = [branch.subquery() for branch in _branches(actor, wanted)]
    # UNION drops the repetitions: many conversations are reached by more than one way.
    found = sa.union(*(sa.select(branch.c.active_at, branch.c.id) for branch in branches)).subquery()
    return (
        sa.select(found.c.active_at, found.c.id)
        .order_by(found.c.active_at.desc(), found.c.id.desc())
        .limit(wanted.limit)
    )


def _branches(actor: Actor, wanted: Wanted) -> Iterator[sa.Select[*tuple[Any, ...]]]:
    participant, owner = aliased(ConversationParticipant), aliased(ConversationOrganisation)
    yield _branch(actor, wanted, participant.active_at, participant.user_id == actor.user_id, participant)
    yield _branch(actor, wanted, Conversation.updated_at, _subject.in_(identity.granted_patients(actor)))
    if actor.patient_id is not None:
        yield _branch(actor, wanted, Conversation.updated_at, _subject == actor.patient_id)
    ways = min(len(actor.organisation_ids), MOST_BRANCHES)
    for way in range(ways):
        some = actor.organisation_ids[way::ways]
        condition = owner.organisation_id == some[0] if len(some) == 1 else owner.organisation_id.in_(some)
        yield _branch(actor, wanted, owner.active_at, condition, owner)


def _branch(
    actor: Actor,
    wanted: Wanted,
    active_at: Any,
    condition: sa.ColumnElement[bool],
    through: type[ConversationParticipant] | type[ConversationOrganisation] | None = None,
) -> sa.Select[*tuple[Any, ...]]:
    """Return the select of one way to the newest conversations: the first ``limit`` it leads to."""
    number = Conversation.id if through is None else through.conversation_id
    statement = sa.select(active_at.label("active_at"), number.label("id")).where(
        condition, visible_conversations(actor)
    )
    if through is not None:
        statement = statement.join_from(through, Conversation, Conversation.id == through.conversation_id)
    if wanted.patient_id is not None:
        statement = statement.where(_subject == wanted.patient_id)
    if wanted.status is not None:
        statement = statement.where(Conversation.status == wanted.status)
    if wanted.after is not None:
        instant, last = wanted.after
        statement = statement.where(sa.tuple_(active_at, number) < sa.tuple_(sa.literal(instant, UtcDateTime()), last))
    return statement.order_by(active_at.desc(), number.desc()).limit(wanted.limit)
