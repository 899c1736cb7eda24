"""What comparing a projection with its record store found, for ``quill reconcile``."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from quill.ports.fhir import ResourceType, SearchQuery, StoredResource
from quill.unit import Services

PAGE = 500


@dataclass(slots=True)
class Comparison:
    """One kind of record, store against projection.

    Attributes:
        kind: the plural of what is compared, such as ``patients``.
        in_store: records the store holds.
        unlisted: ids the store holds and the projection does not.
        outdated: ids whose projection is of an older version.
        lost: ids the projection holds and the store does not: records that are gone.
        mended: how many of the unlisted and outdated ones were projected.
        unmendable: ids that could not be.
    """

    kind: str
    in_store: int = 0
    unlisted: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    mended: int = 0
    unmendable: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Tell whether store and projection agree by now."""
        return not self.lost and self.mended == len(self.unlisted) + len(self.outdated)


async def every_resource(services: Services, resource_type: ResourceType) -> AsyncIterator[list[StoredResource]]:
    """Yield the current resources of a type, a page at a time, by last update.

    Raises:
        Unavailable: 503 or 502, the store does not answer.
    """
    cursor = None
    while True:
        async with services.database.reading() as session:
            store = services.fhir_for(session)
            page = await store.search(resource_type, SearchQuery(), limit=PAGE, cursor=cursor)
        yield page.resources
        cursor = page.next_cursor
        if cursor is None:
            return
