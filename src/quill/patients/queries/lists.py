"""The patient list: its pages and its total, for whoever asks and however many there are."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity import service as identity
from quill.identity.terms import ActorShape, actor_values
from quill.kit.text import like_pattern
from quill.patients.models import NAME_NUMBER, NAME_SEARCH, PatientDocument, PatientIdentifier, PatientIndex
from quill.patients.naming import TRIGRAM, full_text_query, needle

_INDEX = cast("sa.Table", PatientIndex.__table__)
_DOCUMENT = cast("sa.Table", PatientDocument.__table__)
_IDENTIFIER = cast("sa.Table", PatientIdentifier.__table__)
_MATCHES = NAME_SEARCH.c.names.op("MATCH", is_comparison=True)(sa.bindparam("names", type_=sa.Text()))
MOST = sa.bindparam("most", type_=sa.Integer())
AFTER = sa.tuple_(sa.bindparam("after_name", type_=sa.String()), sa.bindparam("after_id", type_=sa.String()))
"""How many rows, and after which place in the list, as ``piece_values`` tells."""
_FIRST = sa.bindparam("first", type_=sa.Integer())

Row: TypeAlias = sa.Row[*tuple[Any, ...]]
_Select: TypeAlias = sa.Select[*tuple[Any, ...]]
ListedT = TypeVar("ListedT", bound=sa.Select[*tuple[Any, ...]])
_Index: TypeAlias = Literal["trigrams", "full text"] | None

Scope: TypeAlias = Callable[[ActorShape, sa.ColumnElement[str]], sa.ColumnElement[bool]]
"""A condition on a column of patients' ids that tells whom a caller of a shape may see."""


def everybody(actor: ActorShape, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Let every patient through."""
    del actor, patient_id
    return sa.true()


def related_one_by_one(actor: ActorShape, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Let the patients through whom the caller is related to, asking that of each; for a large circle."""
    return identity.is_related(actor, patient_id)


def related_gathered(actor: ActorShape, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Let the same through, gathering them first; for a small circle."""
    return patient_id.in_(identity.related_patients(actor))


class Way(Enum):
    """How a list comes by its rows; what is in it is the same."""

    PLAIN = "plain"
    """As the database finds best without looking names up: there are none to be found, or the circle is small."""
    BY_NAME = "by name"
    """Looking up by their trigrams everybody who is called so, and asking then whom of them the caller may see."""
    IN_ORDER = "in order"
    """Walking the list until the page is full, which is soon: what is looked for is part of very many names."""


FEW = 5000
"""So many of one name are looked up and sorted in 10 ms. When there are more, one of 20 in a list of 100,000 is such a
one, and a page of 50 is found among the next thousand."""

TIMES_A_PAGE = 10
"""So many times a page are sorted out of those who are called so, and fill it if every tenth patient is in the circle:
the first 50 of 2,500 hits in 2.1 ms instead of 2.9. Where they do not, finding and sorting all takes 2 ms once more."""

MOST_COUNTED = 500
"""How many found by name are counted in passing where the caller may see many patients."""

_EVERY = 2**31 - 2
"""More patients than there are."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; words and identifiers are folded already, every condition given must hold.

    Attributes:
        words: each must be part of some name.
        words_or_identifier: words as above, or else an identifier's value.
        identifier: system (``None`` for any) and value.
        birth_date: ``YYYY``, ``YYYY-MM`` or ``YYYY-MM-DD``.
        include_inactive: whether deactivated records are listed too.
    """

    words: Sequence[str] = ()
    words_or_identifier: tuple[Sequence[str], str] | None = None
    identifier: tuple[str | None, str] | None = None
    birth_date: str | None = None
    include_inactive: bool = False

    @property
    def is_whole(self) -> bool:
        """Tell whether the list is that of all active patients, narrowed by nothing."""
        return not any((self.words, self.words_or_identifier, self.identifier, self.birth_date, self.include_inactive))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the text of a list's statement depends on; ``_values`` gives what it is executed with.

    Attributes:
        actor: who asks.
        scope: whom the actor may see.
        index: by what names are looked up first, if they are.
        words: how many words are looked for.
        searched: how many are looked for beside an identifier; ``None`` when nothing is.
        identifier: ``value`` or ``system|value``, as far as one is looked for.
        birth_date: ``part`` or ``whole``, as far as one is looked for.
        include_inactive: whether deactivated records are listed too.
    """

    actor: ActorShape
    scope: Scope
    index: _Index
    words: int
    searched: int | None
    identifier: Literal["value", "system|value"] | None
    birth_date: Literal["part", "whole"] | None
    include_inactive: bool

    @classmethod
    def of(cls, actor: Actor, scope: Scope, filters: Filters, index: _Index) -> "_Shape":
        identifier, date = filters.identifier, filters.birth_date
        return cls(
            actor=ActorShape.of(actor),
            scope=scope,
            index=index,
            words=len(filters.words),
            searched=None if filters.words_or_identifier is None else len(filters.words_or_identifier[0]),
            identifier=None if identifier is None else "value" if identifier[0] is None else "system|value",
            birth_date=None if date is None else "whole" if len(date) == len("YYYY-MM-DD") else "part",
            include_inactive=filters.include_inactive,
        )


def _values(actor: Actor, filters: Filters) -> dict[str, Any]:
    searched, searched_identifier = filters.words_or_identifier or ((), None)
    system, identifier = filters.identifier or (None, None)
    values = {
        **_word_values("word", filters.words),
        **_word_values("searched_word", searched),
        "names": full_text_query([*filters.words, *searched]),
        "searched_identifier": searched_identifier,
        "identifier_system": system,
        "identifier_value": identifier,
        "born": filters.birth_date,
    }
    return actor_values(actor) | {name: value for name, value in values.items() if value is not None}


def _word_values(name: str, words: Sequence[str]) -> dict[str, str]:
    return {f"{name}_{place}": like_pattern(needle(word)) for place, word in enumerate(words)}


async def way_to(session: AsyncSession, scope: Scope, filters: Filters) -> Way:
    """Return how to come by the rows of a list; one statement, when only one or two letters of names are given."""
    words = [*filters.words, *(filters.words_or_identifier or ((), ""))[0]]
    if scope is related_gathered or not words:
        return Way.PLAIN
    if max(len(word) for word in words) >= TRIGRAM:
        return Way.BY_NAME
    values = _word_values("word", words) | {"names": full_text_query(words), "most": FEW + 1}
    found = int(await session.scalar(_counting_called(len(words), _index_of(session, Way.BY_NAME)), values) or 0)
    return Way.IN_ORDER if found > FEW else Way.BY_NAME


def _index_of(session: AsyncSession, way: Way) -> _Index:
    if way is not Way.BY_NAME:
        return None
    return "full text" if session.get_bind().dialect.name == "sqlite" else "trigrams"


@functools.lru_cache(maxsize=20)
def _counting_called(words: int, index: _Index) -> sa.Select[int]:
    if index == "full text":
        called = sa.select(NAME_SEARCH.c.rowid).where(_MATCHES)
    else:
        called = sa.select(_INDEX.c.patient_id).where(*_called("word", words, index))
    return sa.select(sa.func.count()).select_from(called.limit(MOST).subquery())


async def page(
    session: AsyncSession,
    actor: Actor,
    scope: Scope,
    filters: Filters,
    after: tuple[str, str] | None,
    limit: int,
    way: Way = Way.PLAIN,
) -> Sequence[Row]:
    """Return one page of the patients in a scope that meet the filters, by sort name and id, with the documents.

    There is one row more than asked for when the list does not end there.
    """
    values = _values(actor, filters) | piece_values(after, limit) | {"first": TIMES_A_PAGE * (limit + 1)}
    statement = _page(_Shape.of(actor, scope, filters, _index_of(session, way)), is_continued=after is not None)
    return (await session.execute(statement, values)).all()


async def count(
    session: AsyncSession,
    actor: Actor,
    scope: Scope,
    filters: Filters,
    way: Way = Way.PLAIN,
    *,
    is_exact: bool = False,
) -> int | None:
    """Return how many patients in a scope meet the filters; ``None`` when they are too many for that.

    Found by name, more than ``MOST_COUNTED`` are, unless it is to be exact; found in order, they always are.
    """
    if way is Way.IN_ORDER:
        return None
    most = _EVERY if is_exact else MOST_COUNTED
    statement = _count(_Shape.of(actor, scope, filters, _index_of(session, way)))
    values = _values(actor, filters)
    if way is Way.PLAIN:
        return int(await session.scalar(statement, values) or 0)
    found = int(await session.scalar(statement, values | {"most": most + 1}) or 0)
    return found if found <= most else None


# How many words are looked for is up to callers, so not every shape there ever was is kept.
@functools.lru_cache(maxsize=200)
def _page(shape: _Shape, *, is_continued: bool) -> _Select:
    """Select a page of ``_matching``.

    The rows are found first and the documents fetched for them alone, so what a search passes over is never read.
    """
    if shape.index == "trigrams":
        return with_documents(_first_seen(shape, _called_so(shape, is_continued=is_continued)).subquery())
    return with_documents(in_order(_matching(shape, is_continued=is_continued)).limit(MOST).subquery())


def _first_seen(shape: _Shape, called: _Select) -> _Select:
    """Select a page of those who are called so and whom the caller may see.

    Asking for rights takes longer than finding, and sorting all as long as finding. So the first are sorted out, and
    asked for until the page is full; only where they do not fill it, everybody is. SQLite would sort twice.
    """
    # What looks like nothing, OFFSET, keeps PostgreSQL from walking the list in its order instead of looking up.
    some = called.offset(0).subquery()
    called = in_order(sa.select(some))
    if shape.scope is everybody:
        return called.limit(MOST)
    first = _seen(shape, called.limit(_FIRST)).cte("first_seen")
    is_short = sa.select(sa.func.count()).select_from(first).scalar_subquery() < MOST
    every = _seen(shape, called.offset(0)).where(is_short).subquery()
    return in_order(sa.select(sa.union(sa.select(first), sa.select(every)).subquery())).limit(MOST)


def _seen(shape: _Shape, called: _Select) -> _Select:
    some = called.subquery()
    return in_order(sa.select(some).where(shape.scope(shape.actor, some.c.patient_id))).limit(MOST)


def in_order(listed: ListedT) -> ListedT:
    """Put patients in the order of the list."""
    return listed.order_by(listed.selected_columns.sort_name, listed.selected_columns.patient_id)


def piece_values(after: tuple[str, str] | None, limit: int) -> dict[str, Any]:
    """Return the values for so many rows after a place, and one more, which tells whether the list goes on."""
    place = {"after_name": after[0], "after_id": after[1]} if after is not None else {}
    return {"most": limit + 1} | place


def with_documents(found: sa.Subquery) -> _Select:
    """Select the rows of a page as they are returned, in their order, from what was found for it."""
    return (
        sa.select(found.c.patient_id, found.c.sort_name, found.c.is_active, _DOCUMENT.c.document)
        .join(_DOCUMENT, _DOCUMENT.c.patient_id == found.c.patient_id)
        .order_by(found.c.sort_name, found.c.patient_id)
    )


@functools.lru_cache(maxsize=200)
def _count(shape: _Shape) -> sa.Select[int]:
    matching = _matching(shape)
    if shape.index is not None:
        matching = matching.limit(MOST)
    return sa.select(sa.func.count()).select_from(matching.subquery())


def _matching(shape: _Shape, *, is_continued: bool = False) -> _Select:
    """Select the patients in a scope that meet the filters."""
    if shape.index is not None:
        called = _called_so(shape, is_continued=is_continued).subquery()
        return sa.select(called).where(shape.scope(shape.actor, called.c.patient_id))
    listed = _listed(shape, is_continued=is_continued)
    if shape.searched is not None:
        by_name = sa.and_(*_called("searched_word", shape.searched, None)) if shape.searched else sa.false()
        listed = listed.where(sa.or_(by_name, _INDEX.c.patient_id.in_(_holders("searched_identifier"))))
    return listed.where(shape.scope(shape.actor, _INDEX.c.patient_id))


def _listed(shape: _Shape, *, is_continued: bool) -> _Select:
    """Select the patients that meet all filters but ``search``, whoever may see them."""
    listed = sa.select(_INDEX.c.patient_id, _INDEX.c.sort_name, _INDEX.c.is_active).where(*_conditions(shape))
    if not is_continued:
        return listed
    return listed.where(sa.tuple_(_INDEX.c.sort_name, _INDEX.c.patient_id) > AFTER)


def _called_so(shape: _Shape, *, is_continued: bool) -> _Select:
    """Select those who are called so, or have the identifier, looking names up and whoever may see them."""
    listed = _listed(shape, is_continued=is_continued)
    searched = _called("searched_word", shape.searched or 0, shape.index)
    called = listed.where(*searched)
    if shape.index == "full text":
        numbers = NAME_SEARCH.join(NAME_NUMBER, NAME_NUMBER.c.number == NAME_SEARCH.c.rowid)
        called = called.select_from(numbers.join(_INDEX, _INDEX.c.patient_id == NAME_NUMBER.c.patient_id))
        called = called.where(_MATCHES)
    if shape.searched is None:
        return called
    # A statement of its own, because no index serves an "or"; nobody is found by both.
    holding = listed.where(_INDEX.c.patient_id.in_(_holders("searched_identifier")))
    if shape.searched == 0:
        return holding
    both = sa.union_all(called, holding.where(sa.not_(sa.and_(*searched)))).subquery()
    return sa.select(both)


def _conditions(shape: _Shape) -> list[sa.ColumnElement[bool]]:
    """Return what must hold of everybody who is listed, whom the caller may see aside."""
    conditions = _called("word", shape.words, shape.index)
    if not shape.include_inactive:
        conditions.append(_INDEX.c.is_active)
    if shape.identifier is not None:
        holders = _holders("identifier_value")
        if shape.identifier == "system|value":
            holders = holders.where(_IDENTIFIER.c.system == sa.bindparam("identifier_system"))
        conditions.append(_INDEX.c.patient_id.in_(holders))
    if shape.birth_date is not None:
        conditions.append(_born(is_whole=shape.birth_date == "whole"))
    return conditions


def _called(name: str, words: int, index: _Index) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that each of so many words is part of a name; none when there are none.

    What is compared with the text decides. An index only narrows where that is done.
    """
    # Where it should not be used, PostgreSQL must not think it could: it does not know how common a word is.
    text = _INDEX.c.search_text if index is not None else _INDEX.c.search_text.concat(sa.literal_column("''"))
    return [text.like(sa.bindparam(f"{name}_{place}"), escape="\\") for place in range(words)]


def _holders(value: str) -> sa.Select[str]:
    return sa.select(_IDENTIFIER.c.patient_id).where(_IDENTIFIER.c.value_folded == sa.bindparam(value))


def _born(*, is_whole: bool) -> sa.ColumnElement[bool]:
    # A search for a year or a month finds every day in it (FHIR R4, search, ``date``).
    date = sa.bindparam("born", type_=sa.String(10))
    return _INDEX.c.birth_date == date if is_whole else _INDEX.c.birth_date.startswith(date)
