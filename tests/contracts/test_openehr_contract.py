"""What every openEHR store promises; one suite for the embedded one, the remote one and a real EHRbase.

Nothing is assumed of what the store already holds: subjects and object ids are fresh in every test.
"""

import asyncio
import copy
import datetime
from collections.abc import Callable

import pytest

from quill.errors import (
    InvalidCursor,
    InvalidRecord,
    LetterNotFound,
    OpenEhrRefused,
    QuillError,
    StaleEdit,
)
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid, new_uuid
from quill.letters.composition import TEMPLATE_ID, operational_template, read_letter
from quill.ports.openehr import CompositionPage, OpenEhrStore, StoredComposition, Subject
from tests.contracts.conftest import OpenStore
from tests.contracts.openehr_records import NINE_O_CLOCK, letter, object_id_of

pytestmark = pytest.mark.anyio


async def test_unknown_subject_has_no_ehr(openehr_store: OpenEhrStore) -> None:
    assert await openehr_store.find_ehr(new_uuid()) is None


async def test_ensured_ehr_is_found_and_stays_the_same(openehr_store: OpenEhrStore) -> None:
    subject_id = new_uuid()
    made = await openehr_store.ensure_ehr(subject_id)
    assert await openehr_store.find_ehr(subject_id) == made
    assert await openehr_store.ensure_ehr(subject_id) == made
    assert await openehr_store.ensure_ehr(new_uuid()) != made


async def test_two_callers_ensuring_one_ehr_at_once_get_the_same(open_store: OpenStore) -> None:
    subject_id = new_uuid()

    async def ensure() -> str:
        async with open_store() as store:
            return await store.ensure_ehr(subject_id)

    assert len(set(await asyncio.gather(*(ensure() for _ in range(5))))) == 1


async def test_ensured_template_is_listed_once(openehr_store: OpenEhrStore) -> None:
    await openehr_store.ensure_template(TEMPLATE_ID, operational_template())
    names = await openehr_store.list_templates()
    assert names.count(TEMPLATE_ID) == 1
    assert names == sorted(names)


@pytest.mark.parametrize("text", ["", "not xml", "<template/>", "<?xml version='1.0'?><other><a/></other>"])
async def test_text_that_is_no_template_is_refused(openehr_store: OpenEhrStore, text: str) -> None:
    name = f"contract-{new_uuid()}"
    with pytest.raises(InvalidRecord):
        await openehr_store.ensure_template(name, text)
    assert name not in await openehr_store.list_templates()


async def test_first_version_is_found_by_version_uid_and_by_object_id(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    before = clock.now() - datetime.timedelta(minutes=1)
    stored = await openehr_store.write(ehr_id, letter(body="# Heading\n\n*Text* 🩺"))
    object_id, _system, version = stored.uid.split("::")
    assert (stored.version, version, stored.ehr_id) == (1, "1", ehr_id)
    assert stored.document["uid"]["value"] == stored.uid
    assert stored.committed_at.utcoffset() == datetime.timedelta()
    assert before < stored.committed_at < before + datetime.timedelta(minutes=2)
    assert await openehr_store.find(ehr_id, stored.uid) == stored
    assert await openehr_store.find(ehr_id, CompositionUid(object_id)) == stored
    assert await openehr_store.versions(ehr_id, stored.uid) == [stored]
    assert read_letter(stored.document).body == "# Heading\n\n*Text* 🩺"


async def test_caller_keeps_its_own_document_untouched(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    document = letter()
    original = copy.deepcopy(document)
    await openehr_store.write(ehr_id, document)
    assert document == original


async def test_object_id_the_caller_minted_is_honoured(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    object_id = new_uuid()
    stored = await openehr_store.write(ehr_id, letter(object_id=object_id))
    assert stored.uid.startswith(f"{object_id}::")


async def test_repeated_commit_is_harmless(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    document = letter(object_id=new_uuid())
    first = await openehr_store.write(ehr_id, document)
    assert await openehr_store.write(ehr_id, document) == first
    assert await openehr_store.versions(ehr_id, first.uid) == [first]


async def test_first_commit_repeated_after_an_amendment_is_harmless(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    document = letter(object_id=new_uuid())
    first = await openehr_store.write(ehr_id, document)
    second = await openehr_store.write(ehr_id, letter(body="Amended."), replacing=first.uid)
    assert await openehr_store.write(ehr_id, document) == first
    assert await openehr_store.find(ehr_id, object_id_of(first)) == second


async def test_object_id_with_other_content_is_refused(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    object_id = new_uuid()
    stored = await openehr_store.write(ehr_id, letter(object_id=object_id))
    with pytest.raises(StaleEdit):
        await openehr_store.write(ehr_id, letter(object_id=object_id, body="Something else."))
    assert await openehr_store.versions(ehr_id, stored.uid) == [stored]


async def test_object_id_of_another_ehr_is_refused(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    document = letter(object_id=new_uuid())
    stored = await openehr_store.write(ehr_id, document)
    other_ehr = await openehr_store.ensure_ehr(new_uuid())
    with pytest.raises(StaleEdit):
        await openehr_store.write(other_ehr, document)
    assert await openehr_store.find(other_ehr, stored.uid) is None


async def test_one_object_id_committed_at_once_makes_one_version(open_store: OpenStore) -> None:
    async with open_store() as store:
        ehr_id = await store.ensure_ehr(new_uuid())
    document = letter(object_id=new_uuid())

    async def commit() -> StoredComposition:
        async with open_store() as store:
            return await store.write(ehr_id, document)

    results = await asyncio.gather(*(commit() for _ in range(4)))
    assert {each.uid for each in results} == {results[0].uid}


async def test_commit_to_an_unknown_ehr_is_trouble(openehr_store: OpenEhrStore) -> None:
    with pytest.raises(OpenEhrRefused):
        await openehr_store.write(new_uuid(), letter())


async def test_amendment_becomes_the_newest_and_keeps_the_first(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    first = await openehr_store.write(ehr_id, letter())
    second = await openehr_store.write(ehr_id, letter(body="Amended."), replacing=first.uid)
    assert second.version == 2
    assert object_id_of(second) == object_id_of(first)
    assert second.uid.endswith("::2")
    assert second.document["uid"]["value"] == second.uid
    assert await openehr_store.find(ehr_id, object_id_of(first)) == second
    assert await openehr_store.find(ehr_id, first.uid) == first
    assert await openehr_store.versions(ehr_id, first.uid) == [second, first]
    assert await openehr_store.versions(ehr_id, object_id_of(first)) == [second, first]


async def test_document_that_was_read_can_be_written_back(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    first = await openehr_store.write(ehr_id, letter())
    second = await openehr_store.write(ehr_id, first.document | {"name": letter("New")["name"]}, replacing=first.uid)
    assert second.version == 2
    assert read_letter(second.document).title == "New"


async def test_repeated_amendment_is_harmless(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    first = await openehr_store.write(ehr_id, letter())
    second = await openehr_store.write(ehr_id, letter(body="Amended."), replacing=first.uid)
    assert await openehr_store.write(ehr_id, letter(body="Amended."), replacing=first.uid) == second
    assert len(await openehr_store.versions(ehr_id, first.uid)) == 2


async def test_stale_amendment_is_refused_and_changes_nothing(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    first = await openehr_store.write(ehr_id, letter())
    second = await openehr_store.write(ehr_id, letter(body="Amended."), replacing=first.uid)
    with pytest.raises(StaleEdit):
        await openehr_store.write(ehr_id, letter(body="Lost update."), replacing=first.uid)
    assert await openehr_store.versions(ehr_id, first.uid) == [second, first]


async def test_amending_a_version_that_is_yet_to_come_is_refused(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    first = await openehr_store.write(ehr_id, letter())
    with pytest.raises(StaleEdit):
        await openehr_store.write(ehr_id, letter(), replacing=CompositionUid(first.uid.removesuffix("1") + "5"))


async def test_two_writers_amending_one_version_exactly_one_wins(open_store: OpenStore) -> None:
    async with open_store() as store:
        ehr_id = await store.ensure_ehr(new_uuid())
        first = await store.write(ehr_id, letter())

    async def amend(body: str) -> StoredComposition | QuillError:
        try:
            async with open_store() as store:
                return await store.write(ehr_id, letter(body=body), replacing=first.uid)
        except StaleEdit as refusal:
            return refusal

    outcomes = await asyncio.gather(*(amend(f"Writer {n}.") for n in range(4)))
    winners = [each for each in outcomes if isinstance(each, StoredComposition)]
    assert len(winners) == 1
    async with open_store() as store:
        assert await store.versions(ehr_id, first.uid) == [winners[0], first]


async def test_amending_anothers_composition_is_not_found(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    stored = await openehr_store.write(ehr_id, letter())
    other_ehr = await openehr_store.ensure_ehr(new_uuid())
    with pytest.raises(LetterNotFound):
        await openehr_store.write(other_ehr, letter(body="Intruder."), replacing=stored.uid)
    assert await openehr_store.versions(ehr_id, stored.uid) == [stored]


@pytest.mark.parametrize("uid", ["{fresh}::contract.test::1", "nonsense", "../ehr", ""])
async def test_amending_what_is_not_there_is_not_found(openehr_store: OpenEhrStore, ehr_id: str, uid: str) -> None:
    with pytest.raises(LetterNotFound):
        await openehr_store.write(ehr_id, letter(), replacing=CompositionUid(uid.format(fresh=new_uuid())))


async def test_other_ehr_does_not_see_the_composition(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    stored = await openehr_store.write(ehr_id, letter())
    other_ehr = await openehr_store.ensure_ehr(new_uuid())
    for uid in (stored.uid, object_id_of(stored)):
        assert await openehr_store.find(other_ehr, uid) is None
        assert await openehr_store.versions(other_ehr, uid) == []
    assert (await openehr_store.list_compositions(other_ehr, TEMPLATE_ID)).summaries == []


@pytest.mark.parametrize(
    "tail", ["", "::contract.test::1", "::contract.test::99999999999999999999", "::contract.test", "/x", "%00", "\x00"]
)
async def test_uid_that_names_nothing_finds_nothing(openehr_store: OpenEhrStore, ehr_id: str, tail: str) -> None:
    uid = CompositionUid(new_uuid() + tail)
    assert await openehr_store.find(ehr_id, uid) is None
    assert await openehr_store.versions(ehr_id, uid) == []


async def test_ehr_is_meant_by_its_subject_as_well_as_by_its_id(openehr_store: OpenEhrStore) -> None:
    subject, other = Subject(new_uuid()), Subject(new_uuid())
    ehr_id = await openehr_store.ensure_ehr(subject.subject_id)
    await openehr_store.ensure_ehr(other.subject_id)
    first = await openehr_store.write(ehr_id, letter(title="First"))
    second = await openehr_store.write(ehr_id, letter(title="Second"), replacing=first.uid)
    for uid in (first.uid, second.uid, object_id_of(first)):
        found = await openehr_store.find(subject, uid)
        assert found is not None
        assert found == await openehr_store.find(ehr_id, uid)
    assert await openehr_store.versions(subject, first.uid) == [second, first]
    listed = await openehr_store.list_compositions(subject, TEMPLATE_ID)
    assert listed == await openehr_store.list_compositions(ehr_id, TEMPLATE_ID)
    assert [summary.uid for summary in listed.summaries] == [second.uid]
    # Not by another patient, nor by one who has no EHR, nor is an id taken for a subject or a subject for an id.
    for nobody in (other, Subject(new_uuid()), Subject(ehr_id), Subject(""), subject.subject_id):
        assert await openehr_store.find(nobody, first.uid) is None
        assert await openehr_store.versions(nobody, first.uid) == []
        assert await openehr_store.list_compositions(nobody, TEMPLATE_ID) == CompositionPage()


async def test_version_uid_of_another_system_finds_nothing(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    stored = await openehr_store.write(ehr_id, letter())
    foreign = CompositionUid(f"{object_id_of(stored)}::another.system::1")
    assert await openehr_store.find(ehr_id, foreign) is None


async def test_store_answers(openehr_store: OpenEhrStore) -> None:
    await openehr_store.ping()


def broken(change: Callable[[Document], object]) -> Document:
    document = letter()
    change(document)
    return document


@pytest.mark.parametrize(
    "document",
    [
        broken(lambda it: it.update(_type="OBSERVATION")),
        broken(lambda it: it.pop("name")),
        broken(lambda it: it.pop("composer")),
        broken(lambda it: it.pop("language")),
        broken(lambda it: it.pop("archetype_details")),
        broken(lambda it: it["archetype_details"]["template_id"].update(value="no_such_template.v9")),
        broken(lambda it: it["context"]["start_time"].update(value="yesterday")),
        broken(lambda it: it["category"]["defining_code"].update(code_string="431")),
        broken(lambda it: it.pop("context")),
        broken(lambda it: it.update(content=[])),
        broken(lambda it: it["content"].append(it["content"][0])),
        broken(lambda it: it["content"][0]["data"]["items"][0].update(archetype_node_id="at0009")),
    ],
)
async def test_composition_that_breaks_its_specification_is_refused(
    openehr_store: OpenEhrStore, ehr_id: str, document: Document
) -> None:
    with pytest.raises(InvalidRecord):
        await openehr_store.write(ehr_id, document)
    first = await openehr_store.write(ehr_id, letter())
    with pytest.raises(InvalidRecord):
        await openehr_store.write(ehr_id, document, replacing=first.uid)
    assert await openehr_store.versions(ehr_id, first.uid) == [first]


async def all_pages(store: OpenEhrStore, ehr_id: str, limit: int) -> list[CompositionPage]:
    pages = [await store.list_compositions(ehr_id, TEMPLATE_ID, limit=limit)]
    while pages[-1].next_cursor is not None:
        pages.append(await store.list_compositions(ehr_id, TEMPLATE_ID, limit=limit, cursor=pages[-1].next_cursor))
    return pages


async def test_list_of_an_empty_ehr_is_empty(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    assert await openehr_store.list_compositions(ehr_id, TEMPLATE_ID) == CompositionPage()


async def test_list_shows_the_newest_version_of_each(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    first = await openehr_store.write(ehr_id, letter("Before"))
    second = await openehr_store.write(ehr_id, letter("After", author_name="B. Author"), replacing=first.uid)
    (summary,) = (await openehr_store.list_compositions(ehr_id, TEMPLATE_ID)).summaries
    assert (summary.uid, summary.version, summary.title) == (second.uid, 2, "After")
    assert (summary.started_at, summary.composer_name) == (NINE_O_CLOCK, "B. Author")


async def test_list_is_newest_first_whatever_the_time_zone(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    west = datetime.timezone(datetime.timedelta(hours=-8))
    times = [
        NINE_O_CLOCK,
        datetime.datetime(2026, 3, 2, 8, 30, tzinfo=west),
        NINE_O_CLOCK + datetime.timedelta(hours=1),
    ]
    for number, started_at in enumerate(times):
        document = letter(f"Letter {number}")
        document["context"]["start_time"]["value"] = started_at.isoformat()
        await openehr_store.write(ehr_id, document)
    summaries = (await openehr_store.list_compositions(ehr_id, TEMPLATE_ID)).summaries
    assert [each.title for each in summaries] == ["Letter 1", "Letter 2", "Letter 0"]
    assert all(each.started_at.utcoffset() == datetime.timedelta() for each in summaries)


async def test_pages_hold_every_composition_once(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    written = set()
    for number in range(7):
        # Pairs share their instant, so a page also ends between two that differ only by object id.
        started_at = NINE_O_CLOCK + datetime.timedelta(microseconds=number // 2)
        written.add((await openehr_store.write(ehr_id, letter(f"{number}", started_at=started_at))).uid)
    pages = await all_pages(openehr_store, ehr_id, 3)
    assert [len(each.summaries) for each in pages] == [3, 3, 1]
    rows = [row for page in pages for row in page.summaries]
    assert {row.uid for row in rows} == written
    assert [row.started_at for row in rows] == sorted((row.started_at for row in rows), reverse=True)
    (whole,) = await all_pages(openehr_store, ehr_id, 7)
    assert whole.summaries == rows


async def test_composition_written_between_pages_shifts_nothing(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    for number in range(4):
        await openehr_store.write(ehr_id, letter(started_at=NINE_O_CLOCK + datetime.timedelta(minutes=number)))
    everything = (await openehr_store.list_compositions(ehr_id, TEMPLATE_ID)).summaries
    page = await openehr_store.list_compositions(ehr_id, TEMPLATE_ID, limit=2)
    await openehr_store.write(ehr_id, letter(started_at=NINE_O_CLOCK + datetime.timedelta(days=1)))
    rest = await openehr_store.list_compositions(ehr_id, TEMPLATE_ID, limit=2, cursor=page.next_cursor)
    assert page.summaries + rest.summaries == everything


async def test_list_of_another_template_is_empty(openehr_store: OpenEhrStore, ehr_id: str) -> None:
    await openehr_store.write(ehr_id, letter())
    assert (await openehr_store.list_compositions(ehr_id, "another_template.v1")).summaries == []


@pytest.mark.parametrize("cursor", ["", "nonsense", "WzFd", "WyJ4IiwieSJd", "😀"])
async def test_foreign_cursor_is_refused(openehr_store: OpenEhrStore, ehr_id: str, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await openehr_store.list_compositions(ehr_id, TEMPLATE_ID, cursor=cursor)
