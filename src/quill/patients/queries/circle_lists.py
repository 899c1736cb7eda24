"""The whole list of a caller who works in few organisations, walked in the order that is kept for each of them.

Nobody is passed over who is not listed, so a page takes the time of its rows and a total that of what is counted,
whatever else there is in the clinic.
"""

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity import service as identity
from quill.identity.terms import ActorShape, Count, actor_values
from quill.patients.models import OrganisationPatientName, PatientIndex
from quill.patients.queries.lists import AFTER, MOST, Filters, Row, in_order, piece_values, with_documents

_INDEX = cast("sa.Table", PatientIndex.__table__)
_NAME = cast("sa.Table", OrganisationPatientName.__table__)

MOST_ORGANISATIONS = 8
"""In so many a caller may work: each takes a look into the index of its own, and a part of the statement's text."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the text of a statement depends on.

    Attributes:
        actor: who asks.
        organisations: in how many the actor works.
        is_sqlite: whether SQLite answers it, which PostgreSQL does otherwise.
        is_continued: whether the page begins after a place in the list.
    """

    actor: ActorShape
    organisations: int
    is_sqlite: bool
    is_continued: bool = False

    @classmethod
    def of(cls, session: AsyncSession, actor: Actor, *, is_continued: bool = False) -> "_Shape":
        is_sqlite = session.get_bind().dialect.name == "sqlite"
        return cls(ActorShape.of(actor), len(actor.organisation_ids), is_sqlite, is_continued)


def has_circle_list(actor: Actor, filters: Filters) -> bool:
    """Tell whether a caller's list is kept in order: it is narrowed by nothing, and of few organisations."""
    return filters.is_whole and len(actor.organisation_ids) <= MOST_ORGANISATIONS


async def circle_page(session: AsyncSession, actor: Actor, after: tuple[str, str] | None, limit: int) -> Sequence[Row]:
    """Return one page of the active patients a caller may see, as ``page`` returns them."""
    shape = _Shape.of(session, actor, is_continued=after is not None)
    return (await session.execute(_page(shape), _values(actor) | piece_values(after, limit))).all()


async def circle_count(session: AsyncSession, actor: Actor, most: int) -> int | None:
    """Return how many active patients a caller may see; ``None`` when they are more than ``most``."""
    shape = _Shape.of(session, actor)
    found = int(await session.scalar(_count(shape), _values(actor) | {"most": most + 1}) or 0)
    return found if found <= most else None


def _values(actor: Actor) -> dict[str, Any]:
    places = {_place(number): organisation_id for number, organisation_id in enumerate(actor.organisation_ids)}
    return actor_values(actor) | places


def _place(number: int) -> str:
    return f"organisation_{number}"


@functools.cache
def _page(shape: _Shape) -> sa.Select[*tuple[Any, ...]]:
    found = _listed(shape).subquery()
    return with_documents(sa.select(found.c.patient_id, found.c.sort_name, sa.true().label("is_active")).subquery())


@functools.cache
def _count(shape: _Shape) -> sa.Select[int]:
    """Select how many there are, up to ``most``: the sizes of all parts without those who were counted again."""
    sizes = [sa.select(sa.func.count()).select_from(_first(part).subquery()) for part in _parts(shape)]
    columns = [size.scalar_subquery().label(f"size_{number}") for number, size in enumerate(sizes)]
    # Kept, so that none is counted twice: for the comparison and for the sum.
    counted = sa.select(*columns).cte("counted").prefix_with("MATERIALIZED", dialect="postgresql")
    total: sa.ColumnElement[int] = functools.reduce(operator.add, counted.c)
    if shape.organisations > 1:
        total = total - _counted_again(shape)
    is_large = sa.or_(*(size >= MOST for size in counted.c))
    return sa.select(sa.case((is_large, MOST), else_=total)).select_from(counted)


def _counted_again(shape: _Shape) -> sa.ScalarSelect[int]:
    works_there = shape.actor.works_in(_NAME.c.organisation_id)
    of_several = sa.and_(
        works_there, _NAME.c.is_active == sa.true(), _NAME.c.patient_id.in_(identity.in_several(shape.actor))
    )
    times, patients = sa.func.count(), sa.func.count(sa.distinct(_NAME.c.patient_id))
    return sa.select(times - patients).where(of_several).scalar_subquery()


def _parts(shape: _Shape) -> list[sa.Select[str, str]]:
    parts = [_part(shape, _of_organisation(number), _NAME) for number in range(shape.organisations)]
    return [*parts, _part(shape, _of_nobody_else(shape), _INDEX)]


def _listed(shape: _Shape) -> sa.Select[str, str] | sa.CompoundSelect[str, str]:
    """Select up to ``most`` of the list: what is each organisation's, and what is theirs otherwise, put together.

    Both databases go through the parts side by side, each in the order of its index, and no further than they have to:
    SQLite where an ordered ``UNION`` puts them together, PostgreSQL where each is ordered and limited by itself.
    """
    parts = _parts(shape)
    is_distinct = shape.organisations > 1
    if shape.is_sqlite:
        whole = sa.union(*parts) if is_distinct else sa.union_all(*parts)
        return whole.order_by("sort_name", "patient_id").limit(MOST)
    firsts = [sa.select(_first(part).subquery()) for part in parts]
    together = sa.union_all(*firsts).subquery()
    listed = sa.select(together).distinct() if is_distinct else sa.select(together)
    return listed.order_by(together.c.sort_name, together.c.patient_id).limit(MOST)


def _part(shape: _Shape, condition: sa.ColumnElement[bool], table: sa.Table) -> sa.Select[str, str]:
    # Not the bare column: SQLite would not look that up in an index.
    part = sa.select(table.c.patient_id, table.c.sort_name).where(condition, table.c.is_active == sa.true())
    return part.where(sa.tuple_(table.c.sort_name, table.c.patient_id) > AFTER) if shape.is_continued else part


def _first(part: sa.Select[str, str]) -> sa.Select[str, str]:
    return in_order(part).limit(MOST)


def _of_organisation(number: int) -> sa.ColumnElement[bool]:
    return _NAME.c.organisation_id == sa.bindparam(_place(number), type_=sa.Integer())


def _of_nobody_else(shape: _Shape) -> sa.ColumnElement[bool]:
    """Return the condition that a patient is the caller's by grant or as their own record, and in no other way."""
    alone = replace(shape.actor, organisations=Count.NONE)
    is_listed = _INDEX.c.patient_id.in_(identity.related_patients(alone))
    if not shape.organisations:
        return is_listed
    return sa.and_(is_listed, sa.not_(identity.shares_organisation(shape.actor, _INDEX.c.patient_id)))
