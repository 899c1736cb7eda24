"""Grants: somebody from outside the organisations may see one patient's record, until that is revoked.

Reading counts active grants of active accounts at every request, so ending one shows at the next.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.identity.models import ExternalAccess, UserAccount
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
    if await holds_access(unit.session, user_id, patient_id):
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
        if not await holds_access(unit.session, user_id, patient_id):
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
        .where(_is_active(patient_id), ExternalAccess.user_id == user_id)
        .values(revoked_at=clock.now(), revoked_by_user_id=ended_by)
        .returning(ExternalAccess.id)
        .execution_options(synchronize_session=False)
    )
    return await session.scalar(statement) is not None


async def holds_access(session: AsyncSession, user_id: UserId, patient_id: PatientId) -> bool:
    """Tell whether somebody has an active grant for a patient."""
    holds = sa.exists().where(_is_active(patient_id), ExternalAccess.user_id == user_id)
    return bool(await session.scalar(sa.select(holds)))


async def grants_page(
    session: AsyncSession, patient_id: PatientId, *, after: int, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return the active grants for a patient with who holds them, in order of their numbers.

    Args:
        session: where to look.
        patient_id: for whose record.
        after: number of a grant to continue after.
        limit: rows wanted.
    """
    result = await session.execute(
        sa.select(
            ExternalAccess.id,
            ExternalAccess.user_id,
            UserAccount.username,
            UserAccount.full_name,
            UserAccount.email,
            UserAccount.permission_level,
            UserAccount.is_active,
            ExternalAccess.granted_at,
            ExternalAccess.granted_by_user_id,
            ExternalAccess.access_level,
        )
        .join(UserAccount, UserAccount.id == ExternalAccess.user_id)
        .where(_is_active(patient_id), ExternalAccess.id > after)
        .order_by(ExternalAccess.id)
        .limit(limit)
    )
    return result.all()


def _is_active(patient_id: PatientId) -> sa.ColumnElement[bool]:
    return sa.and_(ExternalAccess.patient_id == patient_id, ExternalAccess.revoked_at.is_(None))
