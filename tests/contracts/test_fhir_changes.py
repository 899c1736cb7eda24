"""What every FHIR store promises about telling what changed in it, whoever changed it."""

import asyncio

import pytest

from quill.errors import InvalidCursor
from quill.kit.ids import new_uuid
from quill.ports.fhir import ResourceType, SearchQuery, StoredResource
from tests.contracts.conftest import OpenFhir
from tests.contracts.fhir_records import communication, delete, found_ids, identified, patient, write

pytestmark = pytest.mark.anyio


async def read_all(
    open_fhir: OpenFhir, since: str | None, limit: int = 1000, resource_type: ResourceType = "Patient"
) -> tuple[list[StoredResource], str]:
    """Read until there is no more; return what was told and the position."""
    told: list[StoredResource] = []
    has_more = True
    while has_more:
        async with open_fhir() as store:
            page = await store.changes(resource_type, since, limit=limit)
        told += page.resources
        since, has_more = page.position, page.has_more
    assert since is not None
    return told, since


async def test_from_the_beginning_everything_there_is_is_told(open_fhir: OpenFhir) -> None:
    written = [await write(open_fhir, patient()) for _ in range(3)]
    told, _ = await read_all(open_fhir, None)
    assert [each for each in told if each in written] == written


async def test_what_was_written_and_deleted_since_is_told_as_it_is_now(open_fhir: OpenFhir) -> None:
    old, edited, gone, back = (patient() for _ in range(4))
    for document in (old, gone, edited, back):
        await write(open_fhir, document)
    await delete(open_fhir, back)
    _, position = await read_all(open_fhir, None)
    new = await write(open_fhir, patient())
    second = await write(open_fhir, {**edited, "active": True})
    await delete(open_fhir, gone)
    third = await write(open_fhir, back)
    told, _ = await read_all(open_fhir, position)
    now = {each.id: each for each in told}
    assert [now[each.id] for each in (new, second, third)] == [new, second, third]
    deletion = now[gone["id"]]
    assert (deletion.version, deletion.is_deleted, set(deletion.document)) == (
        2,
        True,
        {"resourceType", "id", "meta"},
    )
    assert deletion.last_updated > new.last_updated


async def test_changes_are_told_oldest_first_and_page_by_page(open_fhir: OpenFhir) -> None:
    _, position = await read_all(open_fhir, None)
    written = [await write(open_fhir, patient()) for _ in range(7)]
    await delete(open_fhir, {"resourceType": "Patient", "id": written[3].id})
    told, _ = await read_all(open_fhir, position, limit=2)
    ours = [each for each in told if each.id in {one.id for one in written}]
    assert [each.id for each in ours if not each.is_deleted] == [each.id for each in written if each != written[3]]
    assert [each.id for each in ours if each.is_deleted] == [written[3].id]


async def test_nothing_that_happens_while_reading_is_missed(open_fhir: OpenFhir) -> None:
    _, position = await read_all(open_fhir, None)
    documents = [patient() for _ in range(15)]

    async def change() -> None:
        for document in documents:
            await write(open_fhir, document)
        for document in documents[::3]:
            await delete(open_fhir, document)

    changing = asyncio.create_task(change())
    newest: dict[str, StoredResource] = {}
    while True:
        is_last = changing.done()
        told, position = await read_all(open_fhir, position, limit=10)
        newest |= {each.id: each for each in told if each.version >= newest.get(each.id, each).version}
        if is_last:
            break
    await changing
    assert {document["id"] for document in documents} <= newest.keys()
    assert all(newest[document["id"]].is_deleted is (document in documents[::3]) for document in documents)


async def test_a_position_stays_good(open_fhir: OpenFhir) -> None:
    _, position = await read_all(open_fhir, None)
    first = await write(open_fhir, patient())
    once, _ = await read_all(open_fhir, position)
    second = await write(open_fhir, patient())
    again, _ = await read_all(open_fhir, position)
    assert first in once
    assert first in again
    assert second in again


async def test_only_the_type_asked_for_is_told(open_fhir: OpenFhir) -> None:
    about, message = patient(), communication()
    _, position = await read_all(open_fhir, None, resource_type="Communication")
    await write(open_fhir, about)
    await write(open_fhir, message)
    told, _ = await read_all(open_fhir, position, resource_type="Communication")
    assert message["id"] in {each.id for each in told}
    assert {each.resource_type for each in told} == {"Communication"}


async def test_a_search_repeated_at_once_sees_what_was_written_in_between(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    query = SearchQuery(identifier=number)
    assert await found_ids(open_fhir, query) == []
    written = await write(open_fhir, patient(**identified(number)))
    assert await found_ids(open_fhir, query) == [written.id]


@pytest.mark.parametrize("position", ["", "nonsense", "WzEsMl0", "WyJhIiwxXQ", "W10", "ü"])
async def test_a_position_of_another_list_is_refused(open_fhir: OpenFhir, position: str) -> None:
    async with open_fhir() as store:
        with pytest.raises(InvalidCursor):
            await store.changes("Patient", position)
