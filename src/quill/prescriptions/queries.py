"""Every SELECT about prescriptions."""

import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.database import UtcDateTime
from quill.kit.ids import PatientId
from quill.prescriptions.models import Prescription


async def lock_version(session: AsyncSession, prescription_id: str) -> int | None:
    """Return the version the list holds of a prescription, its row locked: serialises projections of one."""
    statement = sa.select(Prescription.version).where(Prescription.id == prescription_id).with_for_update()
    return await session.scalar(statement)


async def page_of_patient(
    session: AsyncSession, patient_id: PatientId, after: tuple[datetime.datetime, str] | None, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return a page of a patient's prescriptions, newest first, and one row more to tell whether it goes on."""
    statement = sa.select(
        Prescription.id,
        Prescription.status,
        Prescription.medication,
        Prescription.dose,
        Prescription.duration_days,
        Prescription.prescriber,
        Prescription.prescribed_at,
    ).where(Prescription.patient_id == patient_id)
    if after is not None:
        key = sa.tuple_(Prescription.prescribed_at, Prescription.id)
        statement = statement.where(key < sa.tuple_(sa.literal(after[0], UtcDateTime()), after[1]))
    ordered = statement.order_by(Prescription.prescribed_at.desc(), Prescription.id.desc()).limit(limit + 1)
    return (await session.execute(ordered)).all()


async def find(session: AsyncSession, prescription_id: str) -> sa.Row[*tuple[Any, ...]] | None:
    """Return what was prescribed, by whom and for whom, or ``None``."""
    statement = sa.select(
        Prescription.patient_id,
        Prescription.medication,
        Prescription.dose,
        Prescription.duration_days,
        Prescription.prescriber,
    ).where(Prescription.id == prescription_id)
    return (await session.execute(statement)).first()


async def known_versions(session: AsyncSession, prescription_ids: Sequence[str]) -> dict[str, int]:
    """Return the versions the lists hold of the prescriptions given that they know."""
    statement = sa.select(Prescription.id, Prescription.version).where(Prescription.id.in_(prescription_ids))
    return {row.id: row.version for row in await session.execute(statement)}


async def all_ids(session: AsyncSession) -> Sequence[str]:
    """Return the ids of all prescriptions."""
    return (await session.scalars(sa.select(Prescription.id))).all()
