"""How far changes made straight in the FHIR server have been followed."""

import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from quill.patients.models import PatientFollowing

FOLLOWING = "changes"
"""The name of the one row that says how far changes are followed."""


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
