"""What every FHIR store promises about searching and paging.

The store under test may hold other records already: every test makes ids and identifiers of its own.
"""

import asyncio
import datetime

import pytest

from quill.errors import InvalidCursor
from quill.kit.documents import Document
from quill.kit.ids import new_uuid
from quill.ports.fhir import SearchQuery
from tests.contracts.conftest import OpenFhir
from tests.contracts.fhir_records import SYSTEM, communication, found_ids, identified, patient, write

pytestmark = pytest.mark.anyio


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
