"""Decisions and writes about organisations."""

from quill.actor import Actor
from quill.organisations import queries
from quill.unit import Reader


async def enabled_features(reader: Reader, actor: Actor) -> list[str]:
    """Return the features the actor's clients may show: those of the primary organisation, or none."""
    if actor.primary_organisation_id is None:
        return []
    return await queries.features_of(reader.session, actor.primary_organisation_id)
