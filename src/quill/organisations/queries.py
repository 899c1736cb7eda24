"""Every SELECT about organisations."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.ids import OrganisationId
from quill.organisations.models import OrganisationFeature


async def features_of(session: AsyncSession, organisation_id: OrganisationId) -> list[str]:
    """Return the keys of an organisation's features, in order."""
    rows = await session.scalars(
        sa.select(OrganisationFeature.feature_key)
        .where(OrganisationFeature.organisation_id == organisation_id)
        .order_by(OrganisationFeature.feature_key)
    )
    return list(rows)
