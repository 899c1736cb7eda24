"""The patient list after its records have moved to another store: same versions, other times."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from quill.kit import ids
from quill.patients import queries
from quill.patients.projection import project_patient
from quill.ports.fhir import FhirStore, SearchQuery, StoredResource
from quill.unit import RequestFacts, Services, open_unit

PAGE = 200


async def reproject(services: Services, open_store: Callable[[], AbstractAsyncContextManager[FhirStore]]) -> int:
    """Show every listed patient as a store has it, whose versions are those the list knows.

    Args:
        services: what the program runs on.
        open_store: opens the store that the list follows from now on.

    Returns:
        How many patients were shown otherwise before.

    Raises:
        Unavailable: 503 or 502, the store does not answer; those done so far are shown as it has them.
    """
    count = 0
    cursor: str | None = None
    while True:
        async with open_store() as store:
            page = await store.search("Patient", SearchQuery(), limit=PAGE, cursor=cursor)
        count += await _project(services, page.resources)
        cursor = page.next_cursor
        if cursor is None:
            return count


async def _project(services: Services, page: list[StoredResource]) -> int:
    async with services.database.reading() as session:
        known = await queries.known_times(session, [stored.id for stored in page])
    changed = [
        stored for stored in page if stored.id in known and known[stored.id] != (stored.version, stored.last_updated)
    ]
    if changed:
        async with open_unit(services, RequestFacts(f"reproject-{ids.new_uuid()}", "reproject")) as unit:
            for stored in changed:
                await project_patient(unit, stored)
    return len(changed)
