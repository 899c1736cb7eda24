"""Every SELECT about patients."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.ids import PatientId
from quill.patients.models import PatientIndex


async def lock_index_row(session: AsyncSession, patient_id: PatientId) -> PatientIndex | None:
    """Return a patient's row of the list, locked: serialises projections of one patient."""
    return await session.get(PatientIndex, patient_id, with_for_update=True, populate_existing=True)


async def find_activity(session: AsyncSession, patient_id: PatientId) -> bool | None:
    """Return whether a patient's record is active, or ``None`` when Quill knows no such patient."""
    return await session.scalar(sa.select(PatientIndex.is_active).where(PatientIndex.patient_id == patient_id))


async def holder_of_nhs_number(session: AsyncSession, nhs_number: str) -> str | None:
    """Return the id of the live patient who holds an NHS number."""
    return await session.scalar(
        sa.select(PatientIndex.patient_id).where(PatientIndex.nhs_number == nhs_number, PatientIndex.is_active)
    )
