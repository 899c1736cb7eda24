"""What both stores promise to whoever copies all of them."""

import pytest

from quill.errors import InvalidCursor
from quill.kit.documents import Document
from quill.kit.ids import new_uuid
from quill.ports.fhir import StoredResource
from quill.ports.fhir_content import content_digest, says_the_same
from tests.contracts.conftest import OpenFhir

pytestmark = pytest.mark.anyio


def order(patient_id: str, words: str) -> Document:
    return {
        "resourceType": "MedicationRequest",
        "id": new_uuid(),
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": words},
        "subject": {"identifier": {"value": patient_id}},
    }


async def everything(open_fhir: OpenFhir) -> dict[tuple[str, int], StoredResource]:
    found: dict[tuple[str, int], StoredResource] = {}
    cursor: str | None = None
    while True:
        async with open_fhir() as store:
            page = await store.all_versions("MedicationRequest", limit=2, cursor=cursor)
        found |= {(version.id, version.version): version for version in page.resources}
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_every_version_of_every_resource_is_listed_deletions_too(open_fhir: OpenFhir) -> None:
    kept, gone = order(new_uuid(), "Paracetamol"), order(new_uuid(), "Codeine")
    for document in (kept, gone, kept | {"status": "completed"}):
        async with open_fhir() as store:
            await store.write(document)
    async with open_fhir() as store:
        await store.delete("MedicationRequest", gone["id"])
    found = await everything(open_fhir)
    mine = {place: version for place, version in found.items() if place[0] in {kept["id"], gone["id"]}}
    assert set(mine) == {(each["id"], number) for each in (kept, gone) for number in (1, 2)}
    assert [place for place, version in mine.items() if version.is_deleted] == [(gone["id"], 2)]
    assert says_the_same(kept, mine[kept["id"], 1].document)
    assert content_digest(kept) == content_digest(mine[kept["id"], 1].document) != content_digest(gone)
    assert mine[kept["id"], 2].document["status"] == "completed"
    assert all(version.last_updated.tzinfo is not None for version in mine.values())


async def test_cursor_of_another_list_is_refused(open_fhir: OpenFhir) -> None:
    with pytest.raises(InvalidCursor):
        async with open_fhir() as store:
            await store.all_versions("Patient", cursor="nonsense")
