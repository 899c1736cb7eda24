"""Single patients, and what is known of given ones."""

import datetime
from collections.abc import Sequence
from typing import cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.ids import PatientId
from quill.patients.models import PatientDocument, PatientIdentifier, PatientIndex

_INDEX = cast("sa.Table", PatientIndex.__table__)
_DOCUMENT = cast("sa.Table", PatientDocument.__table__)
_SUBJECT = sa.bindparam("subject", type_=sa.String(64))


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
