"""What every FHIR store promises about writing, versions, deletion and conditional creation.

The store under test may hold other records already: every test makes ids and identifiers of its own.
"""

import asyncio
import datetime
import uuid
from collections.abc import Callable
from decimal import Decimal

import pytest

from quill.errors import InvalidRecord, StaleEdit
from quill.kit.documents import Document, dumps, loads
from quill.kit.ids import new_uuid
from quill.ports.fhir import SearchQuery, StoredResource
from quill.ports.fhir_content import same_content
from tests.contracts.conftest import OpenFhir
from tests.contracts.fhir_records import (
    SYSTEM,
    communication,
    delete,
    find,
    found_ids,
    history,
    identified,
    patient,
    write,
)

pytestmark = pytest.mark.anyio


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


async def test_extensions_and_decimals_come_back_untouched(open_fhir: OpenFhir) -> None:
    text = """{"resourceType": "Patient", "id": "%s", "birthDate": "1980-02",
      "_birthDate": {"extension": [{"url": "http://quill.example/e", "valueDateTime": "1980-02-03T04:05:06.70Z"}]},
      "extension": [{"url": "http://quill.example/dose", "valueDecimal": 1.50},
                    {"url": "http://quill.example/long", "valueDecimal": 12345678901234567.8901},
                    {"url": "http://quill.example/nested", "extension": [{"url": "a", "valueDecimal": -0.10}]}],
      "name": [{"given": ["Zo\\u00eb", null],
                "_given": [null, {"extension": [{"url": "http://quill.example/g", "valueString": " two  \\n lines"}]}],
                "family": "N\\u00fa\\u00f1ez \\ud83d\\ude00"}],
      "managingOrganization": {"reference": "#org", "display": "Org"},
      "contained": [{"resourceType": "Organization", "id": "org", "name": "Org"}]}"""
    document = loads(text % patient()["id"])
    await write(open_fhir, document)
    found = await find(open_fhir, document)
    assert found is not None
    assert same_content(found.document, document)
    assert str(found.document["extension"][0]["valueDecimal"]) == "1.50"


@pytest.mark.parametrize(
    "elements",
    [
        {"somethingNew": {"count": 3, "ratio": Decimal("2.00")}},
        {"name": [{"family": "Ash", "nickname": "Jo"}]},
        {"name": [{"family": "Ash", "extension": [{"url": "http://quill.example/e", "valueCode": "a", "extra": 1}]}]},
        {"contact": [{"name": {"nickname": "Jo"}}]},
    ],
    ids=["in the resource", "in a name", "in an extension", "deep down"],
)
async def test_an_element_fhir_does_not_define_is_kept_or_refused_and_never_dropped(
    open_fhir: OpenFhir, elements: Document
) -> None:
    document = patient(**elements)
    refused: InvalidRecord | None = None
    try:
        await write(open_fhir, document)
    except InvalidRecord as error:
        refused = error
    found = await find(open_fhir, document)
    if refused is not None:
        assert refused.errors[0]["type"] == "fhir_undefined"
        assert found is None
    else:
        assert found is not None
        assert same_content(found.document, document)


@pytest.mark.parametrize(
    "source", ["http://quill.example/s", "http://quill.example/s#part", "urn:a%23b", "urn:a%2523#b"]
)
async def test_the_source_of_a_version_comes_back_as_it_was_written(open_fhir: OpenFhir, source: str) -> None:
    document = patient(meta={"source": source})
    written = await write(open_fhir, document)
    assert written.document["meta"]["source"] == source
    assert await find(open_fhir, document) == written


async def test_a_label_left_out_is_gone(open_fhir: OpenFhir) -> None:
    labels = [{"system": "http://quill.example/tags", "code": code} for code in ("b", "a")]
    document = patient(meta={"tag": labels, "profile": ["http://quill.example/profile"]})
    await write(open_fhir, document)
    fewer = await write(open_fhir, {**document, "meta": {"tag": labels[:1]}})
    assert fewer.document["meta"]["tag"] == labels[:1]
    assert "profile" not in fewer.document["meta"]
    bare = await write(open_fhir, {name: value for name, value in document.items() if name != "meta"})
    assert bare.document["meta"].keys() == {"versionId", "lastUpdated"}
    assert await find(open_fhir, document) == bare


async def test_an_id_of_digits_only_is_an_id_like_any_other(open_fhir: OpenFhir) -> None:
    number = str(uuid.uuid4().int)
    other = await write(open_fhir, patient(id=str(uuid.uuid4().int)))
    about = patient(id=number, link=[{"other": {"reference": f"Patient/{other.id}"}, "type": "seealso"}])
    message = communication(id=str(uuid.uuid4().int), subject={"reference": f"Patient/{number}"})
    first = await write(open_fhir, about, if_match=0)
    assert (first.id, first.document["id"]) == (number, number)
    assert first.document["link"] == about["link"]
    stored = await write(open_fhir, message)
    assert stored.document["subject"] == message["subject"]
    assert await find(open_fhir, about) == first
    assert await found_ids(open_fhir, SearchQuery(subject=number), "Communication") == [message["id"]]
    second = await write(open_fhir, {**about, "active": True}, if_match=1)
    assert await history(open_fhir, about) == [second, first]
    with pytest.raises(StaleEdit):
        await write(open_fhir, about, if_match=0)
    await delete(open_fhir, message)
    assert await find(open_fhir, message) is None
    assert [version.id for version in await history(open_fhir, message)] == [message["id"]] * 2


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


async def test_many_at_once_are_what_each_would_have_been(open_fhir: OpenFhir) -> None:
    number = new_uuid()
    documents = [patient(**identified(number), name=[{"family": "Łuk"}]), communication(), patient()]
    async with open_fhir() as store:
        stored = await store.write_new(documents)
    assert [(found.id, found.version) for found in stored] == [(document["id"], 1) for document in documents]
    for document, written in zip(documents, stored, strict=True):
        assert await find(open_fhir, document) == written
        assert len(await history(open_fhir, document)) == 1
    assert await found_ids(open_fhir, SearchQuery(identifier=f"{SYSTEM}|{number}")) == [documents[0]["id"]]
    assert (await write(open_fhir, documents[0])).version == 1


async def test_many_at_once_must_all_be_new_and_valid(open_fhir: OpenFhir) -> None:
    known, other = patient(), patient()
    await write(open_fhir, known)
    with pytest.raises(StaleEdit):
        async with open_fhir() as store:
            await store.write_new([known])
    with pytest.raises(InvalidRecord):
        async with open_fhir() as store:
            await store.write_new([other | {"gender": "X"}])
    assert await find(open_fhir, other) is None


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
