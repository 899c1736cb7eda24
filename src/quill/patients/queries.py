"""Every SELECT about patients."""

import datetime
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity import service as identity
from quill.identity.terms import ActorShape, actor_values
from quill.kit.ids import PatientId
from quill.kit.text import like_pattern
from quill.patients.models import PatientDocument, PatientFollowing, PatientIdentifier, PatientIndex

_INDEX = cast("sa.Table", PatientIndex.__table__)
_DOCUMENT = cast("sa.Table", PatientDocument.__table__)
_IDENTIFIER = cast("sa.Table", PatientIdentifier.__table__)
_SUBJECT = sa.bindparam("subject", type_=sa.String(64))

Row: TypeAlias = sa.Row[*tuple[Any, ...]]
_Select: TypeAlias = sa.Select[*tuple[Any, ...]]

Scope: TypeAlias = Callable[[ActorShape], sa.ColumnElement[bool]]
"""A condition on ``patient_index`` that tells whom a caller of a shape may see."""


def everybody(actor: ActorShape) -> sa.ColumnElement[bool]:
    """Let every patient through."""
    del actor
    return sa.true()


def related_one_by_one(actor: ActorShape) -> sa.ColumnElement[bool]:
    """Let the patients through whom the caller is related to, asking that of each; for a large circle."""
    return identity.is_related(actor, _INDEX.c.patient_id)


def related_gathered(actor: ActorShape) -> sa.ColumnElement[bool]:
    """Let the same through, gathering them first; for a small circle."""
    return _INDEX.c.patient_id.in_(identity.related_patients(actor))


FOLLOWING = "changes"
"""The name of the one row that says how far changes are followed."""


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


async def lock_version(session: AsyncSession, patient_id: PatientId) -> int | None:
    """Return the version the list holds of a patient, its row locked: serialises projections of one patient."""
    statement = sa.select(PatientIndex.version).where(PatientIndex.patient_id == patient_id).with_for_update()
    return await session.scalar(statement)


async def lock_index_row(session: AsyncSession, patient_id: PatientId) -> PatientIndex | None:
    """Return a patient's row of the list, locked: serialises activations of one patient."""
    return await session.get(PatientIndex, patient_id, with_for_update=True, populate_existing=True)


_ACTIVITY = sa.select(_INDEX.c.is_active).where(_INDEX.c.patient_id == _SUBJECT)


async def find_activity(session: AsyncSession, patient_id: PatientId) -> bool | None:
    """Return whether a patient's record is active, or ``None`` when Quill knows no such patient."""
    return await session.scalar(_ACTIVITY, {"subject": patient_id})


def activity_of(patient_id: sa.ColumnElement[str]) -> sa.ScalarSelect[bool]:
    """Return ``find_activity`` of the patient a column names, as an expression."""
    return sa.select(_INDEX.c.is_active).where(_INDEX.c.patient_id == patient_id).scalar_subquery()


_DOCUMENT_OF = (
    sa.select(_INDEX.c.version, _DOCUMENT.c.document)
    .join(_DOCUMENT, _DOCUMENT.c.patient_id == _INDEX.c.patient_id)
    .where(_INDEX.c.patient_id == _SUBJECT)
)


async def find_document(session: AsyncSession, patient_id: PatientId) -> tuple[int, str] | None:
    """Return the version and the text of a patient's resource as last projected."""
    row = (await session.execute(_DOCUMENT_OF, {"subject": patient_id})).first()
    return (row.version, row.document) if row is not None else None


async def holder_of_nhs_number(session: AsyncSession, nhs_number: str) -> str | None:
    """Return the id of the live patient who holds an NHS number."""
    return await session.scalar(
        sa.select(PatientIndex.patient_id).where(PatientIndex.nhs_number == nhs_number, PatientIndex.is_active)
    )


async def holders_of_identifiers(
    session: AsyncSession, folded: Sequence[str], *, but: PatientId
) -> set[tuple[str, str]]:
    """Return which identifiers with these folded values other live patients hold, as system and value."""
    statement = (
        sa.select(PatientIdentifier.system, PatientIdentifier.value)
        .join(PatientIndex, PatientIndex.patient_id == PatientIdentifier.patient_id)
        .where(PatientIdentifier.value_folded.in_(folded), PatientIdentifier.patient_id != but, PatientIndex.is_active)
    )
    return {(row.system, row.value) for row in await session.execute(statement)}


async def display_names(session: AsyncSession, patient_ids: Sequence[PatientId]) -> dict[PatientId, str]:
    """Return what to call each of these patients; one Quill does not know is missing."""
    statement = sa.select(PatientIndex.patient_id, PatientIndex.display_name).where(
        PatientIndex.patient_id.in_(patient_ids)
    )
    return {PatientId(row.patient_id): row.display_name for row in await session.execute(statement)}


async def newest_projection(session: AsyncSession) -> datetime.datetime | None:
    """Return the instant of the newest version the list holds of anybody, or ``None`` while it is empty."""
    return await session.scalar(sa.select(sa.func.max(PatientIndex.last_updated)))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the text of a list's statement depends on; ``_values`` gives what it is executed with.

    Attributes:
        actor: who asks.
        scope: whom the actor may see.
        words: how many words are looked for.
        searched: how many are looked for beside an identifier; ``None`` when nothing is.
        identifier: ``value`` or ``system|value``, as far as one is looked for.
        birth_date: ``part`` or ``whole``, as far as one is looked for.
        include_inactive: whether deactivated records are listed too.
    """

    actor: ActorShape
    scope: Scope
    words: int
    searched: int | None
    identifier: Literal["value", "system|value"] | None
    birth_date: Literal["part", "whole"] | None
    include_inactive: bool

    @classmethod
    def of(cls, actor: Actor, scope: Scope, filters: Filters) -> "_Shape":
        identifier, date = filters.identifier, filters.birth_date
        return cls(
            actor=ActorShape.of(actor),
            scope=scope,
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
        **{f"word_{place}": like_pattern(word) for place, word in enumerate(filters.words)},
        **{f"searched_word_{place}": like_pattern(word) for place, word in enumerate(searched)},
        "searched_identifier": searched_identifier,
        "identifier_system": system,
        "identifier_value": identifier,
        "born": filters.birth_date,
    }
    return actor_values(actor) | {name: value for name, value in values.items() if value is not None}


async def page(
    session: AsyncSession, actor: Actor, scope: Scope, filters: Filters, after: tuple[str, str] | None, limit: int
) -> Sequence[Row]:
    """Return one page of the patients in a scope that meet the filters, by sort name and id, with the documents.

    There is one row more than asked for when the list does not end there.
    """
    values = _values(actor, filters) | {"most": limit + 1}
    if after is not None:
        values |= {"after_name": after[0], "after_id": after[1]}
    statement = _page(_Shape.of(actor, scope, filters), is_continued=after is not None)
    return (await session.execute(statement, values)).all()


async def count(session: AsyncSession, actor: Actor, scope: Scope, filters: Filters) -> int:
    """Return how many patients in a scope meet the filters."""
    statement = _count(_Shape.of(actor, scope, filters))
    return int(await session.scalar(statement, _values(actor, filters)) or 0)


# How many words are looked for is up to callers, so not every shape there ever was is kept.
@functools.lru_cache(maxsize=200)
def _page(shape: _Shape, *, is_continued: bool) -> _Select:
    """Select a page of ``_matching``.

    The rows are found first and the documents fetched for them alone, so what a search passes over is never read.
    """
    statement = _matching(shape, _INDEX.c.patient_id, _INDEX.c.sort_name, _INDEX.c.is_active)
    if is_continued:
        key = sa.tuple_(_INDEX.c.sort_name, _INDEX.c.patient_id)
        last = sa.tuple_(sa.bindparam("after_name", type_=sa.String()), sa.bindparam("after_id", type_=sa.String()))
        statement = statement.where(key > last)
    most = sa.bindparam("most", type_=sa.Integer())
    found = statement.order_by(_INDEX.c.sort_name, _INDEX.c.patient_id).limit(most).subquery()
    return (
        sa.select(found.c.patient_id, found.c.sort_name, found.c.is_active, _DOCUMENT.c.document)
        .join(_DOCUMENT, _DOCUMENT.c.patient_id == found.c.patient_id)
        .order_by(found.c.sort_name, found.c.patient_id)
    )


@functools.lru_cache(maxsize=200)
def _count(shape: _Shape) -> sa.Select[int]:
    return sa.select(sa.func.count()).select_from(_matching(shape, _INDEX.c.patient_id).subquery())


def _matching(shape: _Shape, *columns: sa.ColumnElement[Any]) -> _Select:
    """Select columns of the patients in a scope that meet the filters."""
    statement = sa.select(*columns).where(shape.scope(shape.actor))
    if not shape.include_inactive:
        statement = statement.where(_INDEX.c.is_active)
    for place in range(shape.words):
        statement = statement.where(_named(f"word_{place}"))
    if shape.searched is not None:
        words = [_named(f"searched_word_{place}") for place in range(shape.searched)]
        by_name = sa.and_(*words) if words else sa.false()
        statement = statement.where(sa.or_(by_name, _INDEX.c.patient_id.in_(_holders("searched_identifier"))))
    if shape.identifier is not None:
        holders = _holders("identifier_value")
        if shape.identifier == "system|value":
            holders = holders.where(_IDENTIFIER.c.system == sa.bindparam("identifier_system"))
        statement = statement.where(_INDEX.c.patient_id.in_(holders))
    if shape.birth_date is not None:
        statement = statement.where(_born(is_whole=shape.birth_date == "whole"))
    return statement


def _named(value: str) -> sa.ColumnElement[bool]:
    return _INDEX.c.search_text.like(sa.bindparam(value), escape="\\")


def _holders(value: str) -> sa.Select[str]:
    return sa.select(_IDENTIFIER.c.patient_id).where(_IDENTIFIER.c.value_folded == sa.bindparam(value))


def _born(*, is_whole: bool) -> sa.ColumnElement[bool]:
    # A search for a year or a month finds every day in it (FHIR R4, search, ``date``).
    date = sa.bindparam("born", type_=sa.String(10))
    return _INDEX.c.birth_date == date if is_whole else _INDEX.c.birth_date.startswith(date)


class FollowPosition(NamedTuple):
    """From where the FHIR server's changes are followed; ``None`` from the beginning."""

    since: str | None


async def insert_follow_position(session: AsyncSession) -> None:
    """Make the one row when it is not there yet, whoever else does at this moment."""
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert(PatientFollowing)
    await session.execute(insert.values(name=FOLLOWING).on_conflict_do_nothing())


async def take_follow_position(
    session: AsyncSession, owner: str, now: datetime.datetime, lease_until: datetime.datetime
) -> FollowPosition | None:
    """Take the position under a lease and return it; ``None`` while another owner's lease lasts."""
    is_free = (PatientFollowing.lease_until.is_(None)) | (PatientFollowing.lease_until < now)
    statement = (
        sa.update(PatientFollowing)
        .where(PatientFollowing.name == FOLLOWING, is_free | (PatientFollowing.owner == owner))
        .values(owner=owner, lease_until=lease_until)
        .returning(PatientFollowing.since)
    )
    row = (await session.execute(statement)).first()
    return FollowPosition(row.since) if row is not None else None


def keep_follow_position(owner: str, since: str | None, lease_until: datetime.datetime | None) -> sa.Update:
    """Move the position on, unless somebody else has taken it meanwhile."""
    return (
        sa.update(PatientFollowing)
        .where(PatientFollowing.name == FOLLOWING, PatientFollowing.owner == owner)
        .values(since=since, lease_until=lease_until)
    )


async def known_versions(session: AsyncSession, patient_ids: Sequence[str]) -> dict[str, int]:
    """Return the versions the list holds of the patients given that it knows."""
    statement = sa.select(PatientIndex.patient_id, PatientIndex.version).where(PatientIndex.patient_id.in_(patient_ids))
    return {row.patient_id: row.version for row in await session.execute(statement)}


async def known_times(session: AsyncSession, patient_ids: Sequence[str]) -> dict[str, tuple[int, datetime.datetime]]:
    """Return version and last update the list holds of the patients given that it knows."""
    statement = sa.select(PatientIndex.patient_id, PatientIndex.version, PatientIndex.last_updated).where(
        PatientIndex.patient_id.in_(patient_ids)
    )
    return {row.patient_id: (row.version, row.last_updated) for row in await session.execute(statement)}


def mark_deleted(patient_id: PatientId, version: int) -> sa.UpdateBase:
    """Take a patient whose resource was deleted out of the lists; returns the id when there was something to do."""
    return (
        sa.update(PatientIndex)
        .where(PatientIndex.patient_id == patient_id, PatientIndex.version < version)
        .values(is_active=False, version=version)
        .returning(PatientIndex.patient_id)
    )


async def active_ids(session: AsyncSession) -> Sequence[str]:
    """Return the ids of all patients whose records are active."""
    return (await session.scalars(sa.select(PatientIndex.patient_id).where(PatientIndex.is_active))).all()
