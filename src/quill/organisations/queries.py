"""Every SELECT about organisations."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.ids import OrganisationId, UserId
from quill.organisations.models import JoinRequest, Organisation, OrganisationFeature

SORT_KEY = sa.func.lower(Organisation.name)
"""Organisations are listed by name whatever its case; the number decides between equal names."""


async def find_organisation(session: AsyncSession, organisation_id: OrganisationId) -> sa.Row[Any] | None:
    """Return an organisation's columns."""
    result = await session.execute(_organisation_select().where(Organisation.id == organisation_id))
    return result.first()


async def lock_organisation(session: AsyncSession, organisation_id: OrganisationId) -> Organisation | None:
    """Return an organisation's row, locked: serialises edits of it."""
    return await session.get(Organisation, organisation_id, with_for_update=True, populate_existing=True)


async def organisation_page(
    session: AsyncSession, *, after: tuple[object, ...] | None, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return organisations that come after a name and number, in that order."""
    statement = _organisation_select().order_by(SORT_KEY, Organisation.id).limit(limit)
    if after is not None:
        statement = statement.where(sa.tuple_(SORT_KEY, Organisation.id) > sa.tuple_(*after))
    return (await session.execute(statement)).all()


async def count_organisations(session: AsyncSession) -> int:
    """Return how many organisations there are."""
    return await session.scalar(sa.select(sa.func.count()).select_from(Organisation)) or 0


async def ids_by_name(session: AsyncSession, name: str) -> list[int]:
    """Return the numbers of the organisations with exactly this name."""
    rows = await session.scalars(sa.select(Organisation.id).where(Organisation.name == name).order_by(Organisation.id))
    return list(rows)


async def organisations_named(session: AsyncSession, ids: Collection[int]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return the organisations with these numbers, in order of their numbers."""
    result = await session.execute(
        sa.select(Organisation.id, Organisation.name, Organisation.type)
        .where(Organisation.id.in_(ids))
        .order_by(Organisation.id)
    )
    return result.all()


def _organisation_select() -> sa.Select[*tuple[Any, ...]]:
    return sa.select(
        Organisation.id,
        Organisation.name,
        Organisation.type,
        Organisation.location,
        Organisation.created_at,
        Organisation.updated_at,
        SORT_KEY.label("sort_key"),
    )


_FEATURE = cast("sa.Table", OrganisationFeature.__table__)
_FEATURES_OF = (
    sa.select(_FEATURE.c.feature_key)
    .where(_FEATURE.c.organisation_id == sa.bindparam("of_organisation"))
    .order_by(_FEATURE.c.feature_key)
)


async def features_of(session: AsyncSession, organisation_id: OrganisationId) -> list[str]:
    """Return the keys of an organisation's features, in order."""
    return list(await session.scalars(_FEATURES_OF, {"of_organisation": organisation_id}))


async def feature_rows(session: AsyncSession, organisation_id: OrganisationId) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return an organisation's features with who switched them on and when, in order of their keys."""
    result = await session.execute(
        sa.select(
            OrganisationFeature.feature_key,
            OrganisationFeature.enabled_at,
            OrganisationFeature.enabled_by_user_id.label("enabled_by"),
        )
        .where(OrganisationFeature.organisation_id == organisation_id)
        .order_by(OrganisationFeature.feature_key)
    )
    return result.all()


async def find_pending_join_request(
    session: AsyncSession, user_id: UserId, organisation_id: OrganisationId
) -> int | None:
    """Return the number of somebody's undecided request to an organisation."""
    return await session.scalar(
        sa.select(JoinRequest.id).where(
            JoinRequest.user_id == user_id,
            JoinRequest.organisation_id == organisation_id,
            JoinRequest.decided_at.is_(None),
        )
    )


async def lock_join_request(
    session: AsyncSession, organisation_id: OrganisationId, request_id: int
) -> JoinRequest | None:
    """Return an organisation's join request, locked: serialises decisions, so that one of them counts."""
    statement = (
        sa.select(JoinRequest)
        .where(JoinRequest.id == request_id, JoinRequest.organisation_id == organisation_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).first()


async def join_request_page(
    session: AsyncSession, organisation_id: OrganisationId, is_approved: bool | None, *, after: int, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return an organisation's join requests with a number above another, in order.

    Args:
        session: where to look.
        organisation_id: whose.
        is_approved: those approved or declined; ``None`` means the undecided ones.
        after: number to continue after.
        limit: rows wanted.
    """
    result = await session.execute(
        sa.select(JoinRequest.id, JoinRequest.user_id, JoinRequest.requested_at, JoinRequest.decided_at)
        .where(
            JoinRequest.organisation_id == organisation_id,
            JoinRequest.is_approved.is_(is_approved),
            JoinRequest.id > after,
        )
        .order_by(JoinRequest.id)
        .limit(limit)
    )
    return result.all()
