"""What every openEHR store promises to whoever copies all of it, and to uids from before it was copied."""

import pytest

from quill.adapters.openehr.template import read_template
from quill.errors import InvalidCursor, OpenEhrRefused, StaleEdit
from quill.kit.ids import CompositionUid, new_uuid
from quill.letters.composition import TEMPLATE_ID
from quill.ports.openehr import OpenEhrStore
from tests.contracts.conftest import FORMER_SYSTEM
from tests.contracts.openehr_records import letter, object_id_of

pytestmark = pytest.mark.anyio


async def test_version_uid_from_before_the_records_moved_finds_the_version_of_that_number(
    openehr_store: OpenEhrStore, ehr_id: str
) -> None:
    first = await openehr_store.write(ehr_id, letter(body="First"))
    second = await openehr_store.write(ehr_id, letter(body="Second"), replacing=first.uid)
    former = f"{object_id_of(first)}::{FORMER_SYSTEM}"
    assert await openehr_store.find(ehr_id, CompositionUid(f"{former}::1")) == first
    assert await openehr_store.find(ehr_id, CompositionUid(f"{former}::2")) == second
    assert await openehr_store.find(ehr_id, CompositionUid(f"{former}::3")) is None
    with pytest.raises(StaleEdit):
        await openehr_store.write(ehr_id, letter(body="Third"), replacing=CompositionUid(f"{former}::2"))


async def test_ehrs_are_listed_page_by_page_with_their_patients(openehr_store: OpenEhrStore) -> None:
    subjects = [new_uuid() for _ in range(3)]
    made = {await openehr_store.ensure_ehr(subject_id): subject_id for subject_id in subjects}
    found: list[tuple[str, str]] = []
    page = await openehr_store.list_ehrs(limit=2)
    while True:
        found += page.ehrs
        if page.next_cursor is None:
            break
        page = await openehr_store.list_ehrs(limit=200, cursor=page.next_cursor)
    assert {ehr: subject for ehr, subject in found if ehr in made} == made
    assert [ehr for ehr, _ in found] == sorted({ehr for ehr, _ in found})
    with pytest.raises(InvalidCursor):
        await openehr_store.list_ehrs(cursor="nonsense")


async def test_ehr_is_made_under_the_id_asked_for(openehr_store: OpenEhrStore) -> None:
    wanted, subject_id = new_uuid(), new_uuid()
    assert await openehr_store.ensure_ehr(subject_id, wanted) == wanted
    assert await openehr_store.ensure_ehr(subject_id, new_uuid()) == wanted
    with pytest.raises(OpenEhrRefused):
        await openehr_store.ensure_ehr(new_uuid(), wanted)


async def test_every_composition_of_an_ehr_is_listed_by_its_object_id(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    assert await openehr_store.list_objects(ehr_id) == []
    first = await openehr_store.write(ehr_id, letter())
    other = await openehr_store.write(ehr_id, letter())
    await openehr_store.write(ehr_id, letter(body="Again"), replacing=first.uid)
    assert await openehr_store.list_objects(ehr_id) == sorted([object_id_of(first), object_id_of(other)])
    assert await openehr_store.list_objects(new_uuid()) == []


async def test_system_id_is_the_middle_of_version_uids(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    stored = await openehr_store.write(ehr_id, letter())
    assert stored.uid.split("::")[1] == await openehr_store.system_id(ehr_id)
    with pytest.raises(OpenEhrRefused):
        await openehr_store.system_id(new_uuid())


async def test_template_is_given_back_as_one_of_the_same_id(openehr_store: OpenEhrStore) -> None:
    content = await openehr_store.find_template(TEMPLATE_ID)
    assert content is not None
    assert read_template(content).template_id == TEMPLATE_ID
    assert await openehr_store.find_template(f"unknown-{new_uuid()}") is None
