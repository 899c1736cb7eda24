"""Every SELECT about patients."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.ids import PatientId
from quill.kit.text import like_pattern
from quill.patients.models import PatientDocument, PatientFollowing, PatientIdentifier, PatientIndex

Scope = sa.ColumnElement[bool]
"""A condition on ``patient_index`` that tells whom a caller may see."""

EVERYBODY: Scope = sa.true()

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


async def find_activity(session: AsyncSession, patient_id: PatientId) -> bool | None:
    """Return whether a patient's record is active, or ``None`` when Quill knows no such patient."""
    return await session.scalar(sa.select(PatientIndex.is_active).where(PatientIndex.patient_id == patient_id))


async def find_document(session: AsyncSession, patient_id: PatientId) -> tuple[int, str] | None:
    """Return the version and the text of a patient's resource as last projected."""
    statement = (
        sa.select(PatientIndex.version, PatientDocument.document)
        .join(PatientDocument, PatientDocument.patient_id == PatientIndex.patient_id)
        .where(PatientIndex.patient_id == patient_id)
    )
    row = (await session.execute(statement)).first()
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


def matching(scope: Scope, filters: Filters) -> sa.Select[str, str, bool]:
    """Select id, sort name and activity of the patients in a scope that meet the filters."""
    statement = sa.select(PatientIndex.patient_id, PatientIndex.sort_name, PatientIndex.is_active).where(scope)
    if not filters.include_inactive:
        statement = statement.where(PatientIndex.is_active)
    for word in filters.words:
        statement = statement.where(_named(word))
    if filters.words_or_identifier is not None:
        words, value = filters.words_or_identifier
        by_name = sa.and_(*map(_named, words)) if words else sa.false()
        statement = statement.where(sa.or_(by_name, _identified(None, value)))
    if filters.identifier is not None:
        statement = statement.where(_identified(*filters.identifier))
    if filters.birth_date is not None:
        statement = statement.where(_born(filters.birth_date))
    return statement


def page(
    statement: sa.Select[str, str, bool], after: tuple[str, str] | None, limit: int
) -> sa.Select[str, str, bool, str]:
    """Select one page of a selection by sort name and id with the documents, and one row more to tell whether it ends.

    The rows are found first and the documents fetched for them alone, so what a search passes over is never read.
    """
    if after is not None:
        key = sa.tuple_(PatientIndex.sort_name, PatientIndex.patient_id)
        statement = statement.where(key > sa.tuple_(*after))
    found = statement.order_by(PatientIndex.sort_name, PatientIndex.patient_id).limit(limit + 1).subquery()
    return (
        sa.select(found.c.patient_id, found.c.sort_name, found.c.is_active, PatientDocument.document)
        .join(PatientDocument, PatientDocument.patient_id == found.c.patient_id)
        .order_by(found.c.sort_name, found.c.patient_id)
    )


async def count(session: AsyncSession, statement: sa.Select[str, str, bool]) -> int:
    """Return how many rows a selection has."""
    inner = statement.with_only_columns(PatientIndex.patient_id).subquery()
    return int(await session.scalar(sa.select(sa.func.count()).select_from(inner)) or 0)


def _named(word: str) -> sa.ColumnElement[bool]:
    return PatientIndex.search_text.like(like_pattern(word), escape="\\")


def _identified(system: str | None, value: str) -> sa.ColumnElement[bool]:
    holders = sa.select(PatientIdentifier.patient_id).where(PatientIdentifier.value_folded == value)
    if system is not None:
        holders = holders.where(PatientIdentifier.system == system)
    return PatientIndex.patient_id.in_(holders)


def _born(date: str) -> sa.ColumnElement[bool]:
    # A search for a year or a month finds every day in it (FHIR R4, search, ``date``).
    is_whole = len(date) == len("YYYY-MM-DD")
    return PatientIndex.birth_date == date if is_whole else PatientIndex.birth_date.startswith(date)


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
