"""Every SELECT about invites."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.external.models import ExternalInvite
from quill.kit.ids import PatientId, UserId


async def find_by_token(session: AsyncSession, token_hash: str) -> ExternalInvite | None:
    """Return the invite a token belongs to."""
    return (await session.scalars(_by_token(token_hash))).first()


async def lock_by_token(session: AsyncSession, token_hash: str) -> ExternalInvite | None:
    """Return the invite a token belongs to, locked: of acceptances at the same moment one finds it open."""
    statement = _by_token(token_hash).with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(statement)).first()


def _by_token(token_hash: str) -> sa.Select[ExternalInvite]:
    return sa.select(ExternalInvite).where(ExternalInvite.token_hash == token_hash)


async def lock_invite(session: AsyncSession, patient_id: PatientId, invite_id: int) -> ExternalInvite | None:
    """Return a patient's invite, locked: it is either accepted or withdrawn, never both."""
    statement = (
        sa.select(ExternalInvite)
        .where(ExternalInvite.id == invite_id, ExternalInvite.patient_id == patient_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).first()


async def invite_page(
    session: AsyncSession, patient_id: PatientId, *, before: int | None, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return a patient's invites, newest first, those with a number below another."""
    statement = sa.select(
        ExternalInvite.id,
        ExternalInvite.email,
        ExternalInvite.user_type,
        ExternalInvite.invited_by_user_id,
        ExternalInvite.created_at,
        ExternalInvite.expires_at,
        ExternalInvite.accepted_at,
        ExternalInvite.accepted_by_user_id,
        ExternalInvite.withdrawn_at,
        ExternalInvite.withdrawn_by_user_id,
    ).where(ExternalInvite.patient_id == patient_id)
    if before is not None:
        statement = statement.where(ExternalInvite.id < before)
    return (await session.execute(statement.order_by(ExternalInvite.id.desc()).limit(limit))).all()


def pending_for(patient_id: PatientId, user_id: UserId, email_folded: str) -> sa.ColumnElement[bool]:
    """Return the condition that an open invite is somebody's: sent to the address, or to one accepted with before.

    The latter because an address may have been changed since, and whoever reads the old one could come back by it.
    """
    accepted = (
        sa.select(ExternalInvite.email_folded)
        .where(ExternalInvite.patient_id == patient_id, ExternalInvite.accepted_by_user_id == user_id)
        .scalar_subquery()
    )
    return sa.and_(
        ExternalInvite.patient_id == patient_id,
        ExternalInvite.accepted_at.is_(None),
        ExternalInvite.withdrawn_at.is_(None),
        sa.or_(ExternalInvite.email_folded == email_folded, ExternalInvite.email_folded.in_(accepted)),
    )
