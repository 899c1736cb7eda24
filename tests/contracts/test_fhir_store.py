"""What every FHIR store promises, whichever stands behind the port.

The store under test may hold other records already: every test makes ids and identifiers of its own.
"""

import asyncio
import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from quill.errors import InvalidCursor, InvalidRecord, StaleEdit
from quill.kit.documents import Document, dumps, loads
from quill.kit.ids import new_uuid
from quill.ports.fhir import ResourceType, SearchQuery, StoredResource
from tests.contracts.conftest import OpenFhir

pytestmark = pytest.mark.anyio

SYSTEM = "https://quill.example/test-number"


def patient(**elements: object) -> Document:
    return {"resourceType": "Patient", "id": f"p-{new_uuid()}", **elements}


def communication(**elements: object) -> Document:
    return {"resourceType": "Communication", "id": f"c-{new_uuid()}", "status": "completed", **elements}


def identified(number: str, system: str = SYSTEM) -> dict[str, Any]:
    return {"identifier": [{"system": system, "value": number}]}


def content(document: Document) -> str:
    """Return a document's content as text, without what the store adds."""
    meta = {k: v for k, v in document.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
    bare = {k: v for k, v in document.items() if k != "meta"} | ({"meta": meta} if meta else {})
    return dumps(dict(sorted(bare.items())))


async def write(open_fhir: OpenFhir, document: Document, if_match: int | None = None) -> StoredResource:
    async with open_fhir() as store:
        return await store.write(document, if_match=if_match)


async def find(open_fhir: OpenFhir, document: Document) -> StoredResource | None:
    async with open_fhir() as store:
        return await store.find(document["resourceType"], document["id"])


async def delete(open_fhir: OpenFhir, document: Document) -> None:
    async with open_fhir() as store:
        await store.delete(document["resourceType"], document["id"])


async def history(open_fhir: OpenFhir, document: Document) -> list[StoredResource]:
    async with open_fhir() as store:
        return await store.history(document["resourceType"], document["id"])


async def found_ids(open_fhir: OpenFhir, query: SearchQuery, resource_type: ResourceType = "Patient") -> list[str]:
    async with open_fhir() as store:
        return [found.id for found in (await store.search(resource_type, query)).resources]


async def test_find_answers_none_for_what_never_was(open_fhir: OpenFhir) -> None:
    assert await find(open_fhir, patient()) is None


@pytest.mark.parametrize("wrong", ["", "not an id", "a/b", "x" * 65, "nul\x00", "\ud800"])
async def test_find_answers_none_for_what_cannot_be_an_id(open_fhir: OpenFhir, wrong: str) -> None:
    async with open_fhir() as store:
        assert await store.find("Patient", wrong) is None
        assert await store.history("Patient", wrong) == []
        await store.delete("Patient", wrong)


async def test_first_write_makes_version_one(open_fhir: OpenFhir) -> None:
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    document = patient(active=True)
    written = await write(open_fhir, document)
    assert (written.resource_type, written.id, written.version) == ("Patient", document["id"], 1)
    assert written.last_updated > before
    assert written.last_updated.utcoffset() == datetime.timedelta(0)
    assert written.document["meta"]["versionId"] == "1"
    assert datetime.datetime.fromisoformat(written.document["meta"]["lastUpdated"]) == written.last_updated
    assert await find(open_fhir, document) == written


async def test_write_leaves_the_callers_document_alone(open_fhir: OpenFhir) -> None:
    document = patient(meta={"tag": [{"code": "kept"}]})
    as_text = dumps(document)
    await write(open_fhir, document)
    assert dumps(document) == as_text


async def test_a_change_makes_the_next_version_later_than_the_one_before(open_fhir: OpenFhir) -> None:
    document = patient(gender="female")
    first = await write(open_fhir, document)
    second = await write(open_fhir, {**document, "gender": "other"})
    assert (first.version, second.version) == (1, 2)
    assert second.last_updated > first.last_updated
    assert await find(open_fhir, document) == second


async def test_an_element_left_out_is_gone(open_fhir: OpenFhir) -> None:
    document = patient(gender="female", birthDate="1970-01-01")
    await write(open_fhir, document)
    await write(open_fhir, {k: v for k, v in document.items() if k != "gender"})
    found = await find(open_fhir, document)
    assert found is not None
    assert "gender" not in found.document


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda document: document,
        lambda document: dict(reversed(document.items())),
        lambda document: {**document, "meta": {"versionId": "9", "lastUpdated": "2001-01-01T00:00:00Z"}},
    ],
    ids=["the same", "in another order", "with another version in meta"],
)
async def test_the_same_content_again_makes_no_version(
    open_fhir: OpenFhir, rewrite: Callable[[Document], Document]
) -> None:
    document = patient(gender="male", name=[{"family": "Ash", "given": ["Jo"]}])
    first = await write(open_fhir, document)
    assert await write(open_fhir, rewrite(document)) == first
    assert await write(open_fhir, first.document, if_match=1) == first
    assert len(await history(open_fhir, document)) == 1


async def test_unknown_elements_extensions_and_decimals_come_back_untouched(open_fhir: OpenFhir) -> None:
    text = """{"resourceType": "Patient", "id": "%s", "birthDate": "1980-02",
      "_birthDate": {"extension": [{"url": "http://quill.example/e", "valueDateTime": "1980-02-03T04:05:06.70Z"}]},
      "extension": [{"url": "http://quill.example/dose", "valueDecimal": 1.50},
                    {"url": "http://quill.example/nested", "extension": [{"url": "a", "valueDecimal": -0.10}]}],
      "name": [{"given": ["Zo\\u00eb", null], "_given": [null, {"id": "second"}],
                "family": "N\\u00fa\\u00f1ez \\ud83d\\ude00"}],
      "somethingNew": {"count": 3, "ratio": 2.00, "list": [true, "x", 12345678901234567.8901]}}"""
    document = loads(text % patient()["id"])
    await write(open_fhir, document)
    found = await find(open_fhir, document)
    assert found is not None
    assert content(found.document) == content(document)
    assert str(found.document["extension"][0]["valueDecimal"]) == "1.50"


async def test_more_precision_is_a_change(open_fhir: OpenFhir) -> None:
    document = patient(extension=[{"url": "http://quill.example/dose", "valueDecimal": Decimal("1.5")}])
    await write(open_fhir, document)
    finer = patient(
        **{**document, "extension": [{"url": "http://quill.example/dose", "valueDecimal": Decimal("1.50")}]}
    )
    await write(open_fhir, finer)
    found = await find(open_fhir, document)
    assert found is not None
    assert str(found.document["extension"][0]["valueDecimal"]) == "1.50"


async def test_tags_and_profiles_are_kept(open_fhir: OpenFhir) -> None:
    meta = {
        "profile": ["http://quill.example/profile"],
        "tag": [{"system": "http://quill.example/tags", "code": "demo"}],
        "security": [{"system": "http://quill.example/labels", "code": "R"}],
    }
    document = patient(meta=meta)
    await write(open_fhir, document)
    found = await find(open_fhir, document)
    assert found is not None
    assert {name: found.document["meta"].get(name) for name in meta} == meta


async def test_an_invalid_record_is_refused_and_nothing_is_kept(open_fhir: OpenFhir) -> None:
    document = patient(gender="X-marks-the-spot")
    with pytest.raises(InvalidRecord) as refused:
        await write(open_fhir, document)
    assert refused.value.errors[0]["loc"] == ["gender"]
    assert "X-marks" not in str(refused.value.errors)
    assert await find(open_fhir, document) is None


async def test_a_broken_block_keeps_nothing_where_writes_join_the_transaction(open_fhir: OpenFhir) -> None:
    document = patient()

    async def break_off() -> None:
        async with open_fhir() as store:
            await store.write(document)
            assert await store.find("Patient", document["id"]) is not None
            raise LookupError

    with pytest.raises(LookupError):
        await break_off()
    async with open_fhir() as store:
        assert (await store.find("Patient", document["id"]) is None) is store.joins_transaction


async def test_a_writer_with_the_current_version_is_let_through(open_fhir: OpenFhir) -> None:
    document = patient()
    await write(open_fhir, document, if_match=0)
    assert (await write(open_fhir, {**document, "active": True}, if_match=1)).version == 2
    assert (await write(open_fhir, {**document, "active": False}, if_match=2)).version == 3


@pytest.mark.parametrize("stale", [0, 1, 3])
async def test_a_writer_with_another_version_is_refused(open_fhir: OpenFhir, stale: int) -> None:
    document = patient()
    await write(open_fhir, document)
    second = await write(open_fhir, {**document, "active": True})
    with pytest.raises(StaleEdit):
        await write(open_fhir, {**document, "active": False}, if_match=stale)
    assert await find(open_fhir, document) == second


async def test_a_version_of_what_never_was_is_stale(open_fhir: OpenFhir) -> None:
    document = patient()
    with pytest.raises(StaleEdit):
        await write(open_fhir, document, if_match=1)
    assert await find(open_fhir, document) is None


@pytest.mark.parametrize("exists", [False, True], ids=["creating", "changing"])
async def test_of_several_writers_of_one_version_exactly_one_wins(open_fhir: OpenFhir, exists: bool) -> None:
    document = patient()
    if exists:
        await write(open_fhir, document)
    contenders = [{**document, "gender": gender} for gender in ("male", "female", "other", "unknown")]
    results = await asyncio.gather(
        *(write(open_fhir, contender, if_match=int(exists)) for contender in contenders), return_exceptions=True
    )
    won = [result for result in results if isinstance(result, StoredResource)]
    assert len(won) == 1
    assert sum(isinstance(result, StaleEdit) for result in results) == len(contenders) - 1
    assert await find(open_fhir, document) == won[0]


async def test_writers_without_a_version_follow_each_other(open_fhir: OpenFhir) -> None:
    document = patient()
    contenders = [{**document, "gender": gender} for gender in ("male", "female", "other", "unknown")]
    results = await asyncio.gather(*(write(open_fhir, contender) for contender in contenders))
    assert sorted(result.version for result in results) == [1, 2, 3, 4]
    kept = await history(open_fhir, document)
    assert [version.version for version in kept] == [4, 3, 2, 1]
    times = [version.last_updated for version in kept]
    assert times == sorted(set(times), reverse=True)


async def test_what_is_deleted_is_not_found_and_its_history_stays(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    document = patient(**identified(number))
    first = await write(open_fhir, document)
    await delete(open_fhir, document)
    assert await find(open_fhir, document) is None
    assert await found_ids(open_fhir, SearchQuery(identifier=f"{SYSTEM}|{number}")) == []
    deletion, created = await history(open_fhir, document)
    assert created == first
    assert (deletion.version, deletion.is_deleted) == (2, True)
    assert deletion.last_updated > first.last_updated


async def test_deleting_what_is_not_there_is_harmless(open_fhir: OpenFhir) -> None:
    document = patient()
    await delete(open_fhir, document)
    assert await history(open_fhir, document) == []
    await write(open_fhir, document)
    await delete(open_fhir, document)
    await delete(open_fhir, document)
    assert len(await history(open_fhir, document)) == 2


@pytest.mark.parametrize("if_match", [None, 0])
async def test_a_later_write_brings_back_what_was_deleted(open_fhir: OpenFhir, if_match: int | None) -> None:
    number = new_uuid()
    document = patient(**identified(number))
    await write(open_fhir, document)
    await delete(open_fhir, document)
    back = await write(open_fhir, document, if_match=if_match)
    assert back.version == 3
    assert await find(open_fhir, document) == back
    assert await found_ids(open_fhir, SearchQuery(identifier=number)) == [document["id"]]
    assert [version.is_deleted for version in await history(open_fhir, document)] == [False, True, False]


async def test_an_edit_of_what_was_deleted_meanwhile_is_stale(open_fhir: OpenFhir) -> None:
    document = patient()
    await write(open_fhir, document)
    await delete(open_fhir, document)
    with pytest.raises(StaleEdit):
        await write(open_fhir, {**document, "active": True}, if_match=1)
    assert await find(open_fhir, document) is None


async def test_history_holds_every_version_newest_first(open_fhir: OpenFhir) -> None:
    document = patient()
    written = [await write(open_fhir, {**document, "gender": gender}) for gender in ("male", "female", "other")]
    assert await history(open_fhir, document) == written[::-1]


async def test_a_conditional_create_writes_when_nobody_holds_the_identifier(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    document = patient(**identified(number))
    async with open_fhir() as store:
        stored, is_new = await store.create_unless(document, identifier=f"{SYSTEM}|{number}")
    assert (stored.id, stored.version, is_new) == (document["id"], 1, True)
    assert await find(open_fhir, document) == stored


async def test_a_conditional_create_answers_the_holder_there_is(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    holder = await write(open_fhir, patient(**identified(number)))
    second = patient(**identified(number))
    async with open_fhir() as store:
        assert await store.create_unless(second, identifier=f"{SYSTEM}|{number}") == (holder, False)
    assert await find(open_fhir, second) is None


async def test_a_conditional_create_between_several_holders_is_refused(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    await write(open_fhir, patient(**identified(number)))
    await write(open_fhir, patient(**identified(number)))
    third = patient(**identified(number))
    with pytest.raises(StaleEdit):
        async with open_fhir() as store:
            await store.create_unless(third, identifier=f"{SYSTEM}|{number}")
    assert await find(open_fhir, third) is None


async def test_a_conditional_create_does_not_count_deleted_holders_and_other_types(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    gone = patient(**identified(number))
    await write(open_fhir, gone)
    await delete(open_fhir, gone)
    await write(open_fhir, communication(**identified(number)))
    async with open_fhir() as store:
        _, is_new = await store.create_unless(patient(**identified(number)), identifier=f"{SYSTEM}|{number}")
    assert is_new


async def test_a_conditional_create_refuses_an_invalid_record(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    with pytest.raises(InvalidRecord):
        async with open_fhir() as store:
            await store.create_unless(patient(gender="X", **identified(number)), identifier=f"{SYSTEM}|{number}")


async def test_conditional_creates_at_once_make_one_record(open_fhir: OpenFhir) -> None:
    number = new_uuid()

    async def create() -> tuple[StoredResource, bool]:
        async with open_fhir() as store:
            return await store.create_unless(patient(**identified(number)), identifier=f"{SYSTEM}|{number}")

    results = await asyncio.gather(*(create() for _ in range(4)))
    assert sum(is_new for _, is_new in results) == 1
    assert len({stored.id for stored, _ in results}) == 1


async def test_search_by_identifier_compares_exactly(open_fhir: OpenFhir) -> None:
    number = f"Ab-{new_uuid()}"
    here = await write(open_fhir, patient(**identified(number)))
    there = await write(open_fhir, patient(**identified(number, system="https://elsewhere.example/n")))
    assert await found_ids(open_fhir, SearchQuery(identifier=f"{SYSTEM}|{number}")) == [here.id]
    assert await found_ids(open_fhir, SearchQuery(identifier=number)) == [here.id, there.id]
    for other in (number[:-1], number.upper(), f"{SYSTEM}/x|{number}", f"{number}%"):
        assert await found_ids(open_fhir, SearchQuery(identifier=other)) == []


async def test_search_finds_a_long_identifier_and_no_other_like_it(open_fhir: OpenFhir) -> None:
    number = new_uuid() + "9" * 400
    here = await write(open_fhir, patient(**identified(number)))
    assert await found_ids(open_fhir, SearchQuery(identifier=f"{SYSTEM}|{number}")) == [here.id]
    assert await found_ids(open_fhir, SearchQuery(identifier=f"{SYSTEM}|{number}9")) == []


async def test_search_follows_a_changed_identifier(open_fhir: OpenFhir) -> None:
    before, after = new_uuid(), new_uuid()
    document = patient(**identified(before))
    await write(open_fhir, document)
    await write(open_fhir, {**document, **identified(after)})
    assert await found_ids(open_fhir, SearchQuery(identifier=before)) == []
    assert await found_ids(open_fhir, SearchQuery(identifier=after)) == [document["id"]]


async def test_a_record_with_one_identifier_twice_is_found_once(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    document = patient(identifier=[{"value": number}, {"value": number}, {"system": SYSTEM, "value": number}])
    await write(open_fhir, document)
    assert await found_ids(open_fhir, SearchQuery(identifier=number)) == [document["id"]]


@pytest.mark.parametrize("part", ["MÜLLER", "muller", "üll", "zoe", "Zoë", "FORMER", "chosen"])
async def test_search_by_name_ignores_case_and_accents_and_matches_anywhere(open_fhir: OpenFhir, part: str) -> None:
    number = new_uuid()
    names = [{"family": "Müller", "given": ["Ann", "Zoë"]}, {"use": "old", "family": "Former"}, {"text": "The Chosen"}]
    await write(open_fhir, patient(name=names, **identified(number)))
    assert len(await found_ids(open_fhir, SearchQuery(identifier=number, name=part))) == 1


@pytest.mark.parametrize("part", ["Miller", "%", "_", "mül%er", "AnnZoë"])
async def test_search_by_name_takes_no_other_name(open_fhir: OpenFhir, part: str) -> None:
    number = new_uuid()
    await write(open_fhir, patient(name=[{"family": "Müller", "given": ["Ann", "Zoë"]}], **identified(number)))
    assert await found_ids(open_fhir, SearchQuery(identifier=number, name=part)) == []


@pytest.mark.parametrize(("recorded", "matches"), [("1969-07-20", True), ("1969-07-21", False), ("1969-07", False)])
async def test_search_by_birth_date_matches_the_day(open_fhir: OpenFhir, recorded: str, matches: bool) -> None:
    number = new_uuid()
    await write(open_fhir, patient(birthDate=recorded, **identified(number)))
    day = datetime.date(1969, 7, 20)
    assert bool(await found_ids(open_fhir, SearchQuery(identifier=number, birth_date=day))) is matches


async def test_search_by_last_update_includes_the_instant_given(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    first = await write(open_fhir, patient(**identified(number)))
    await asyncio.sleep(0.002)
    second = await write(open_fhir, patient(**identified(number)))
    since = SearchQuery(identifier=number, last_updated_from=first.last_updated)
    assert await found_ids(open_fhir, since) == [first.id, second.id]
    assert await found_ids(open_fhir, SearchQuery(identifier=number, last_updated_from=second.last_updated)) == [
        second.id
    ]


async def test_search_by_parent_finds_the_messages_of_a_conversation(open_fhir: OpenFhir) -> None:
    header, other = communication(), communication()
    await write(open_fhir, header)
    await write(open_fhir, other)
    part_of = [{"reference": f"Communication/{header['id']}"}]
    replies = [await write(open_fhir, communication(partOf=part_of)) for _ in range(3)]
    both = await write(open_fhir, communication(partOf=[{"reference": f"Communication/{other['id']}"}, *part_of]))
    found = await found_ids(open_fhir, SearchQuery(part_of=header["id"]), "Communication")
    assert found == [*(reply.id for reply in replies), both.id]
    assert await found_ids(open_fhir, SearchQuery(part_of=other["id"]), "Communication") == [both.id]


async def test_search_by_subject_finds_what_is_about_a_patient(open_fhir: OpenFhir) -> None:
    about = await write(open_fhir, patient())
    subject = {"reference": f"Patient/{about.id}"}
    message = await write(open_fhir, communication(subject=subject))
    request: Document = {
        "resourceType": "MedicationRequest",
        "id": f"m-{new_uuid()}",
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": "Paracetamol 500 mg tablets"},
        "subject": subject,
    }
    await write(open_fhir, request)
    query = SearchQuery(subject=about.id)
    assert await found_ids(open_fhir, query, "Communication") == [message.id]
    assert await found_ids(open_fhir, query, "MedicationRequest") == [request["id"]]
    assert await found_ids(open_fhir, SearchQuery(subject=f"p-{new_uuid()}"), "Communication") == []


async def test_search_meets_all_criteria_together(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    wanted = await write(open_fhir, patient(name=[{"family": "Ash"}], birthDate="1950-01-01", **identified(number)))
    await write(open_fhir, patient(name=[{"family": "Ash"}], birthDate="1950-01-02", **identified(number)))
    await write(open_fhir, patient(name=[{"family": "Elm"}], birthDate="1950-01-01", **identified(number)))
    query = SearchQuery(identifier=number, name="ash", birth_date=datetime.date(1950, 1, 1))
    assert await found_ids(open_fhir, query) == [wanted.id]


@pytest.mark.parametrize("wrong", ["nul\x00", "\ud800"])
async def test_search_for_what_no_record_can_hold_finds_nothing(open_fhir: OpenFhir, wrong: str) -> None:
    for query in (
        SearchQuery(identifier=wrong),
        SearchQuery(part_of=wrong),
        SearchQuery(subject=wrong),
        SearchQuery(name=f"{new_uuid()}{wrong}"),
    ):
        assert await found_ids(open_fhir, query) == []


async def test_pages_follow_each_other_without_gap_or_repetition(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    async with open_fhir() as store:
        written = [await store.write(patient(**identified(number))) for _ in range(23)]
    expected = [stored.id for stored in sorted(written, key=lambda stored: (stored.last_updated, stored.id))]
    sizes: list[int] = []
    seen: list[str] = []
    cursor = None
    async with open_fhir() as store:
        while True:
            page = await store.search("Patient", SearchQuery(identifier=number), limit=5, cursor=cursor)
            sizes.append(len(page.resources))
            seen.extend(found.id for found in page.resources)
            cursor = page.next_cursor
            if cursor is None:
                break
    assert sizes == [5, 5, 5, 5, 3]
    assert seen == expected


async def test_the_last_full_page_has_no_next(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    async with open_fhir() as store:
        for _ in range(4):
            await store.write(patient(**identified(number)))
        page = await store.search("Patient", SearchQuery(identifier=number), limit=4)
    assert len(page.resources) == 4
    assert page.next_cursor is None


@pytest.mark.parametrize("cursor", ["", "nonsense", "WzEsMl0", "WyJhIiwxXQ", "WzkyMjMzNzIwMzY4NTQ3NzU4MDcsImEiXQ", "ü"])
async def test_a_cursor_of_another_list_is_refused(open_fhir: OpenFhir, cursor: str) -> None:
    async with open_fhir() as store:
        with pytest.raises(InvalidCursor):
            await store.search("Patient", SearchQuery(), cursor=cursor)


async def test_a_store_that_answers_can_be_pinged(open_fhir: OpenFhir) -> None:
    async with open_fhir() as store:
        await store.ping()
