"""What an organisation's clients may show. Features gate no clinical call."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import OrganisationNotFound, Unprocessable
from quill.identity.catalogue import FEATURES
from quill.kit import clock
from quill.kit.ids import OrganisationId
from quill.organisations import queries
from quill.organisations.models import OrganisationFeature
from quill.unit import Reader, Unit


async def enabled_features(reader: Reader, actor: Actor) -> list[str]:
    """Return the features the actor's clients may show: those of the primary organisation, or none."""
    if actor.primary_organisation_id is None:
        return []
    return await queries.features_of(reader.session, actor.primary_organisation_id)


async def list_features(
    reader: Reader, actor: Actor, organisation_id: OrganisationId
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return the features switched on: key, since when, and by whom if that account still exists.

    Raises:
        OrganisationNotFound: 404.
    """
    if await queries.find_organisation(reader.session, organisation_id) is None:
        raise OrganisationNotFound
    audit.record(reader, actor, Act.FEATURE_READ, subject=f"organisation:{organisation_id}")
    return await queries.feature_rows(reader.session, organisation_id)


async def switch_feature(
    unit: Unit, actor: Actor, organisation_id: OrganisationId, feature_key: str, *, is_enabled: bool
) -> bool:
    """Switch a feature on or off; doing so twice changes nothing. Who did it when stays in the audit trail.

    Returns:
        Whether it was the other way before.

    Raises:
        OrganisationNotFound: 404.
        Unprocessable: 422, there is no such feature.
    """
    # The lock makes two switches at the same moment follow each other.
    if await queries.lock_organisation(unit.session, organisation_id) is None:
        raise OrganisationNotFound
    if feature_key not in FEATURES:
        message = "Unknown feature"
        raise Unprocessable(
            message, errors=[{"loc": ["path", "feature_key"], "msg": message, "type": "not_in_catalogue"}]
        )
    if is_enabled == (feature_key in await queries.features_of(unit.session, organisation_id)):
        return False
    if is_enabled:
        unit.session.add(
            OrganisationFeature(
                organisation_id=organisation_id,
                feature_key=feature_key,
                enabled_at=clock.now(),
                enabled_by_user_id=actor.user_id,
            )
        )
        await unit.session.flush()
    else:
        await unit.session.execute(
            sa.delete(OrganisationFeature).where(
                OrganisationFeature.organisation_id == organisation_id, OrganisationFeature.feature_key == feature_key
            )
        )
    audit.record(
        unit,
        actor,
        Act.FEATURE_CHANGE,
        subject=f"organisation:{organisation_id}/feature:{feature_key}",
        reason="enabled" if is_enabled else "disabled",
    )
    return True
