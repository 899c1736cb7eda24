"""Grants: somebody from outside the organisations may see one patient's record, until that is revoked.

Reading counts active grants of active accounts at every request, so ending one shows at the next.
"""

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.identity import queries
from quill.identity.models import ExternalAccess
from quill.kit import clock
from quill.kit.ids import PatientId, UserId
from quill.unit import Unit

FULL = "full"
"""The one kind of access there is."""


async def grant_access(unit: Unit, user_id: UserId, patient_id: PatientId, *, granted_by: UserId | None) -> bool:
    """Let somebody see a patient's record, whatever the person's level.

    Returns:
        Whether it is new; ``False`` when the person had an active grant already, which stays as it is.
    """
    if await queries.holds_access(unit.session, user_id, patient_id):
        return False
    grant = ExternalAccess(
        user_id=user_id,
        patient_id=patient_id,
        access_level=FULL,
        granted_by_user_id=granted_by,
        granted_at=clock.now(),
    )
    try:
        async with unit.session.begin_nested():
            unit.session.add(grant)
    except IntegrityError:
        # Another invite of the same person was accepted at the same moment.
        if not await queries.holds_access(unit.session, user_id, patient_id):
            raise
        return False
    return True


async def end_access(session: AsyncSession, user_id: UserId, patient_id: PatientId, *, ended_by: UserId | None) -> bool:
    """End somebody's active grant for a patient.

    Returns:
        Whether there was one.
    """
    statement = (
        sa.update(ExternalAccess)
        .where(queries.is_active_grant(patient_id), ExternalAccess.user_id == user_id)
        .values(revoked_at=clock.now(), revoked_by_user_id=ended_by)
        .returning(ExternalAccess.id)
        .execution_options(synchronize_session=False)
    )
    return await session.scalar(statement) is not None
