"""The list of conversations somebody may read, a page at a time."""

import datetime
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.conversations.queries.reading import MARK, Mark, conversation_select, mark_values
from quill.conversations.queries.rows import ConversationRow, Select
from quill.conversations.visibility import CONVERSATION, OWNER, PARTICIPANT, visible_conversations
from quill.identity import service as identity
from quill.identity.terms import ActorShape, actor_values
from quill.kit.ids import PatientId

MOST_BRANCHES = 40
"""Organisations looked through one by one; SQLite takes at most 500 parts of a compound SELECT (SQLite, limits)."""

_LIMIT = sa.bindparam("most", type_=sa.Integer())


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
    after: Mark | None = None
    status: str | None = None
    patient_id: PatientId | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the text of a list's statement depends on; every value is one of ``_values``.

    Attributes:
        actor: whose list.
        ways: how many branches look through organisations.
        is_shared: whether a branch looks through more than one organisation.
        is_continued: whether the page comes after another.
        has_status: whether the list is narrowed to a status.
        has_patient: whether it is narrowed to a patient.
    """

    actor: ActorShape
    ways: int
    is_shared: bool
    is_continued: bool
    has_status: bool
    has_patient: bool

    @classmethod
    def of(cls, actor: Actor, wanted: Wanted) -> "_Shape":
        is_direct = actor.is_admin or wanted.patient_id is not None
        return cls(
            actor=ActorShape.of(actor),
            ways=0 if is_direct else _ways(actor),
            is_shared=not is_direct and len(actor.organisation_ids) > MOST_BRANCHES,
            is_continued=wanted.after is not None,
            has_status=wanted.status is not None,
            has_patient=wanted.patient_id is not None,
        )


def _ways(actor: Actor) -> int:
    return min(len(actor.organisation_ids), MOST_BRANCHES)


def _values(actor: Actor, wanted: Wanted) -> dict[str, Any]:
    """Return what a statement of the same actor's and list's shape is executed with; one for every name in it."""
    ways = _ways(actor)
    shares = (actor.organisation_ids[way::ways] for way in range(ways))
    if len(actor.organisation_ids) <= MOST_BRANCHES:
        branches: dict[str, Any] = {_branch_name(way): share[0] for way, share in enumerate(shares)}
    else:
        branches = {_branch_name(way): list(share) for way, share in enumerate(shares)}
    filters = {"only_status": wanted.status, "only_patient": wanted.patient_id}
    return {
        **actor_values(actor),
        **branches,
        **mark_values(wanted.after),
        **{name: value for name, value in filters.items() if value is not None},
        "most": wanted.limit,
    }


def _branch_name(way: int) -> str:
    return f"organisation_of_branch_{way}"


async def visible_page(session: AsyncSession, actor: Actor, wanted: Wanted) -> list[ConversationRow]:
    """Return a page of what the actor may read, newest activity first."""
    rows = (await session.execute(_visible_page(_Shape.of(actor, wanted)), _values(actor, wanted))).all()
    return [ConversationRow(*row) for row in rows]


def newest_visible(actor: Actor, wanted: Wanted) -> Select:
    """Return the select by which ``visible_page`` finds the ids of a page, newest activity first, with its values."""
    return _newest_visible(_Shape.of(actor, wanted)).params(_values(actor, wanted))


# Made for as many shapes as are in use at a time: one with many organisations is large.
@functools.lru_cache(maxsize=200)
def _visible_page(shape: _Shape) -> Select:
    found = _newest_visible(shape).subquery()
    statement = conversation_select(shape.actor).join(found, found.c.id == CONVERSATION.c.id)
    return statement.order_by(found.c.active_at.desc(), found.c.id.desc())


def _newest_visible(shape: _Shape) -> Select:
    """Return the select of the ids of a page, newest activity first.

    An index gives them in order, so a page costs a page: the conversations' own for an admin or one patient, otherwise
    those of the actor's participations and organisations, merged. Where they are looked for never decides what may be
    read: each branch carries the whole condition.
    """
    if shape.actor.is_admin or shape.has_patient:
        return _branch(shape, CONVERSATION, sa.true())
    branches = [branch.subquery() for branch in _branches(shape)]
    # UNION drops the repetitions: many conversations are reached by more than one way.
    found = sa.union(*(sa.select(branch.c.active_at, branch.c.id) for branch in branches)).subquery()
    return sa.select(found.c.active_at, found.c.id).order_by(found.c.active_at.desc(), found.c.id.desc()).limit(_LIMIT)


def _branches(shape: _Shape) -> Iterator[Select]:
    actor = shape.actor
    yield _branch(shape, PARTICIPANT, actor.is_user(PARTICIPANT.c.user_id))
    yield _branch(shape, CONVERSATION, CONVERSATION.c.patient_id.in_(identity.granted_patients(actor)))
    if actor.has_record:
        yield _branch(shape, CONVERSATION, actor.is_own_record(CONVERSATION.c.patient_id))
    for way in range(shape.ways):
        share = sa.bindparam(_branch_name(way), type_=sa.Integer(), expanding=shape.is_shared)
        column = OWNER.c.organisation_id
        yield _branch(shape, OWNER, column.in_(share) if shape.is_shared else column == share)


def _branch(shape: _Shape, way: sa.FromClause, condition: sa.ColumnElement[bool]) -> Select:
    """Return the select of one way to the newest conversations: the first of a page it leads to."""
    active_at: sa.ColumnElement[datetime.datetime]
    number: sa.ColumnElement[int]
    if way is CONVERSATION:
        active_at, number = CONVERSATION.c.updated_at, CONVERSATION.c.id
        statement = sa.select(active_at.label("active_at"), number.label("id"))
    else:
        active_at, number = way.c.active_at, way.c.conversation_id
        statement = sa.select(active_at.label("active_at"), number.label("id")).join_from(
            way, CONVERSATION, CONVERSATION.c.id == number
        )
    statement = statement.where(condition, visible_conversations(shape.actor))
    if shape.has_patient:
        statement = statement.where(CONVERSATION.c.patient_id == sa.bindparam("only_patient"))
    if shape.has_status:
        statement = statement.where(CONVERSATION.c.status == sa.bindparam("only_status"))
    if shape.is_continued:
        statement = statement.where(sa.tuple_(active_at, number) < MARK)
    return statement.order_by(active_at.desc(), number.desc()).limit(_LIMIT)
