"""What only the remote openEHR store promises: what becomes of lost answers, collisions, ids and pages."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import cast

import pytest

from quill.adapters.openehr import listing
from quill.adapters.openehr.remote import RemoteOpenEhrStore
from quill.adapters.openehr.sameness import is_same_content
from quill.adapters.openehr.wire import rest_base
from quill.adapters.upstream import Request
from quill.errors import InvalidRecord, LetterNotFound, OpenEhrRefused, OpenEhrUnavailable, QuillError, StaleEdit
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid, new_uuid
from quill.letters.composition import TEMPLATE_ID, operational_template, read_letter
from quill.letters.kind import LetterKind
from quill.ports.openehr import OpenEhrStore
from quill.unit import Unit
from tests.adapters.openehr.servers import breaking, cutting, upstream_at
from tests.contracts.openehr_records import letter
from tests.upstreams.faults import FaultyLine
from tests.upstreams.openehr_server import QUOTED, SYSTEM_ID, OpenEhrServer

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]

EHR, LETTER = new_uuid(), CompositionUid(new_uuid())


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_new_ehr_is_known_although_the_server_answers_without_a_body(
    store: RemoteOpenEhrStore, server: OpenEhrServer, status: int
) -> None:
    """Gap: POST /ehr answers 204 without a body, which makes the first letter for any patient fail."""
    server.creation_status = status
    patient = new_uuid()
    ehr_id = await store.ensure_ehr(patient)
    assert await store.find_ehr(patient) == ehr_id
    assert (await store.write(ehr_id, letter())).version == 1


async def test_simultaneous_first_letters_make_one_ehr(line: FaultyLine, store: RemoteOpenEhrStore) -> None:
    """Gap: two simultaneous first letters may create two EHRs for one patient."""
    patient = new_uuid()

    async def write(number: int) -> str:
        async with upstream_at(line) as upstream:
            own = RemoteOpenEhrStore(upstream)
            ehr_id = await own.ensure_ehr(patient)
            await own.write(ehr_id, letter(f"Letter {number}"))
            return ehr_id

    (ehr_id,) = set(await asyncio.gather(*map(write, range(5))))
    assert len((await store.list_compositions(ehr_id, TEMPLATE_ID)).summaries) == 5


async def test_ehr_whose_making_got_no_answer_is_found_again(
    store: RemoteOpenEhrStore, server: OpenEhrServer, line: FaultyLine
) -> None:
    patient = new_uuid()
    server.after_next["PUT"] = cutting(line)
    with pytest.raises(OpenEhrUnavailable):
        await store.ensure_ehr(patient)
    line.mend()
    landed = await store.find_ehr(patient)
    assert landed is not None
    assert await store.ensure_ehr(patient) == landed


async def test_letter_whose_answer_was_lost_is_sent_once_and_found_by_repeating(
    store: RemoteOpenEhrStore, server: OpenEhrServer, line: FaultyLine, ehr_id: str
) -> None:
    document = letter(object_id=new_uuid())
    server.after_next["POST"] = cutting(line)
    with pytest.raises(OpenEhrUnavailable):
        await store.write(ehr_id, document)
    line.mend()
    assert [call[:4] for call in server.calls].count("POST") == 1
    repeated = await store.write(ehr_id, document)
    assert repeated.version == 1
    assert await store.versions(ehr_id, repeated.uid) == [repeated]
    with pytest.raises(StaleEdit):
        await store.write(ehr_id, document | {"name": letter("Another")["name"]})


async def test_lost_letter_and_amendment_are_found_by_whoever_takes_up_the_intent(
    store: RemoteOpenEhrStore, server: OpenEhrServer, line: FaultyLine
) -> None:
    unit, kind = cast("Unit", SimpleNamespace(openehr=store)), LetterKind()
    payload: Document = {"patient_id": new_uuid(), "object_id": new_uuid(), "replaces": 0}
    payload["document"] = letter(object_id=payload["object_id"])
    for number, method in ((0, "POST"), (1, "PUT")):
        payload["replaces"] = number
        assert await kind.has_landed(unit, payload) is False
        server.after_next[method] = cutting(line)
        if number == 0:
            await store.ensure_ehr(payload["patient_id"])
        with pytest.raises(OpenEhrUnavailable):
            await kind.write(unit, payload)
        line.mend()
        landed = await kind.has_landed(unit, payload)
        assert isinstance(landed, dict)
        assert landed["composition_uid"] == f"{payload['object_id']}::{SYSTEM_ID}::{number + 1}"
        payload["document"] = letter(body="Amended.")


async def test_amendment_whose_answer_was_lost_is_sent_once_and_found_by_repeating(
    store: RemoteOpenEhrStore, server: OpenEhrServer, line: FaultyLine, ehr_id: str
) -> None:
    first = await store.write(ehr_id, letter())
    server.calls.clear()
    server.after_next["PUT"] = cutting(line)
    with pytest.raises(OpenEhrUnavailable):
        await store.write(ehr_id, letter(body="Amended."), replacing=first.uid)
    line.mend()
    assert [call[:3] for call in server.calls].count("PUT") == 1
    repeated = await store.write(ehr_id, letter(body="Amended."), replacing=first.uid)
    assert await store.versions(ehr_id, first.uid) == [repeated, first]
    third = await store.write(ehr_id, letter(body="Again."), replacing=repeated.uid)
    assert await store.write(ehr_id, letter(body="Amended."), replacing=first.uid) == repeated
    with pytest.raises(StaleEdit):
        await store.write(ehr_id, letter(body="Too late."), replacing=first.uid)
    assert await store.versions(ehr_id, first.uid) == [third, repeated, first]


@pytest.mark.parametrize("status", [409, 412, 500])
async def test_write_that_collided_with_itself_is_looked_up(
    store: RemoteOpenEhrStore, server: OpenEhrServer, ehr_id: str, status: int
) -> None:
    server.after_next["POST"] = breaking(status)
    first = await store.write(ehr_id, letter())
    server.after_next["PUT"] = breaking(status)
    second = await store.write(ehr_id, letter(body="Amended."), replacing=first.uid)
    assert await store.versions(ehr_id, first.uid) == [second, first]
    patient = new_uuid()
    server.after_next["PUT"] = breaking(status if status != 412 else 409)
    assert await store.ensure_ehr(patient) == await store.find_ehr(patient)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidRecord), (422, InvalidRecord), (409, OpenEhrRefused), (500, OpenEhrRefused), (412, StaleEdit)],
)
async def test_write_the_server_did_not_take_is_told_without_its_words(
    store: RemoteOpenEhrStore, server: OpenEhrServer, ehr_id: str, status: int, error: type[QuillError]
) -> None:
    first = await store.write(ehr_id, letter())
    for method, replacing in (("POST", None), ("PUT", first.uid)):
        server.before_next[method] = breaking(status)
        with pytest.raises(error) as trouble:
            await store.write(ehr_id, letter(body="Amended."), replacing=replacing)
        assert QUOTED not in f"{trouble.value.detail} {trouble.value.facts}"
    assert await store.versions(ehr_id, first.uid) == [first]


async def test_ehr_lost_in_a_collision_of_first_writers_is_made_again(
    store: RemoteOpenEhrStore, server: OpenEhrServer
) -> None:
    patient = new_uuid()
    server.before_next["PUT"] = breaking(500)
    assert await store.ensure_ehr(patient) == await store.find_ehr(patient)


async def test_ehr_the_server_does_not_make_is_trouble(store: RemoteOpenEhrStore, server: OpenEhrServer) -> None:
    server.before_next["PUT"] = breaking(409)
    with pytest.raises(OpenEhrRefused):
        await store.ensure_ehr(new_uuid())


async def test_template_is_uploaded_once_and_one_made_meanwhile_is_fine(
    store: RemoteOpenEhrStore, server: OpenEhrServer
) -> None:
    name = f"contract.{new_uuid()}"
    text = operational_template().replace(TEMPLATE_ID, name)
    server.after_next["POST"] = breaking(409)
    await store.ensure_template(name, text)
    await store.ensure_template(name, text)
    assert [call[:4] for call in server.calls].count("POST") == 1
    assert name in await store.list_templates()
    for status, error in ((400, InvalidRecord), (500, OpenEhrRefused)):
        server.before_next["POST"] = breaking(status)
        with pytest.raises(error):
            await store.ensure_template(f"{name}.2", text.replace(name, f"{name}.2"))


async def test_deleted_letter_is_gone_and_its_versions_stay_readable(
    store: RemoteOpenEhrStore, line: FaultyLine, ehr_id: str
) -> None:
    first = await store.write(ehr_id, letter())
    async with upstream_at(line) as upstream:
        await upstream.send(Request("DELETE", f"ehr/{ehr_id}/composition/{first.uid}", expected=(204,)))
    object_id = CompositionUid(first.uid.partition("::")[0])
    assert await store.find(ehr_id, object_id) is None
    assert await store.find(ehr_id, first.uid) == first
    assert await store.versions(ehr_id, object_id) == [first]
    assert (await store.list_compositions(ehr_id, TEMPLATE_ID)).summaries == []
    with pytest.raises(LetterNotFound):
        await store.write(ehr_id, letter(body="Amended."), replacing=first.uid)


async def test_what_is_read_is_what_was_written_digit_for_digit(store: RemoteOpenEhrStore, ehr_id: str) -> None:
    document = letter(body=" # Kopf\r\n\n\ttab\u00a0🩺 ")
    quantity = {"_type": "DV_QUANTITY", "magnitude": Decimal("1.50"), "units": "mg"}
    element = {"_type": "ELEMENT", "archetype_node_id": "at0007", "value": quantity}
    cluster = {"_type": "CLUSTER", "archetype_node_id": "at0006", "items": [element]}
    document["content"][0]["data"]["items"].append(cluster)
    stored = await store.write(ehr_id, document)
    found = await store.find(ehr_id, stored.uid)
    assert found == stored
    assert is_same_content(stored.document, document)
    assert read_letter(stored.document).body == read_letter(document).body
    assert str(stored.document["content"][0]["data"]["items"][1]["items"][0]["value"]["magnitude"]) == "1.50"


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.find_ehr("../definition?x=1#"),
        lambda store: store.find("../..", LETTER),
        lambda store: store.find(EHR, CompositionUid(f"{LETTER}/../..")),
        lambda store: store.find(EHR, CompositionUid(f"{LETTER}::a/b::1")),
        lambda store: store.versions("..", LETTER),
        lambda store: store.versions(EHR, CompositionUid("..")),
        lambda store: store.list_compositions("' or '1' = '1", TEMPLATE_ID),
    ],
)
async def test_id_that_cannot_be_one_is_not_asked_for(
    store: RemoteOpenEhrStore, server: OpenEhrServer, call: Callable[[OpenEhrStore], Awaitable[object]]
) -> None:
    outcome = await call(store)
    assert outcome in (None, []) or not getattr(outcome, "summaries", None)
    assert server.calls == []


@pytest.mark.parametrize("template_id", ["../adl1.4", "a/b", "..", "x?y", "a\x01"])
async def test_template_id_never_leaves_its_place_in_the_address(
    store: RemoteOpenEhrStore, server: OpenEhrServer, ehr_id: str, template_id: str
) -> None:
    document = letter()
    document["archetype_details"]["template_id"]["value"] = template_id
    with pytest.raises(InvalidRecord) as refusal:
        await store.write(ehr_id, document)
    assert refusal.value.errors[0]["type"] == "unknown_template"
    assert server.calls in ([], ["GET /definition/template/adl1.4"])


async def test_subject_that_is_no_fhir_id_gets_no_ehr(store: RemoteOpenEhrStore, server: OpenEhrServer) -> None:
    with pytest.raises(InvalidRecord):
        await store.ensure_ehr("not an id")
    assert server.calls == []


async def test_query_text_never_holds_what_was_asked_for(store: RemoteOpenEhrStore, ehr_id: str) -> None:
    await store.write(ehr_id, letter())
    for template_id in (f"{TEMPLATE_ID}' OR '1' = '1", "$ehr_id", '"', "\\"):
        assert (await store.list_compositions(ehr_id, template_id)).summaries == []


async def test_list_makes_one_call_however_many_letters_there_are(
    store: RemoteOpenEhrStore, server: OpenEhrServer, ehr_id: str
) -> None:
    for _ in range(3):
        await store.write(ehr_id, letter())
    for limit, pages in ((1, 3), (3, 1)):
        cursor, found = None, 0
        server.calls.clear()
        for _ in range(pages):
            page = await store.list_compositions(ehr_id, TEMPLATE_ID, limit=limit, cursor=cursor)
            cursor, found = page.next_cursor, found + len(page.summaries)
            assert len(cursor or "") < 200
        assert (found, cursor) == (3, None)
        assert server.calls == ["POST /query/aql"] * pages


async def test_more_letters_within_a_second_than_a_page_holds_are_each_shown_once(
    store: RemoteOpenEhrStore, ehr_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SPARE_ROWS", 0)
    written = {(await store.write(ehr_id, letter(f"{number}"))).uid for number in range(5)}
    seen: list[CompositionUid] = []
    page = await store.list_compositions(ehr_id, TEMPLATE_ID, limit=2)
    seen += [row.uid for row in page.summaries]
    while page.next_cursor is not None:
        page = await store.list_compositions(ehr_id, TEMPLATE_ID, limit=2, cursor=page.next_cursor)
        seen += [row.uid for row in page.summaries]
    assert sorted(seen) == sorted(written)
    assert seen == sorted(written, reverse=True)


@pytest.mark.usefixtures("store")
async def test_what_the_caller_holds_is_let_go_of_before_each_call(server: OpenEhrServer, line: FaultyLine) -> None:
    held: list[int] = []

    async def let_go() -> None:
        held.append(len(server.calls))

    async with upstream_at(line) as upstream:
        own = RemoteOpenEhrStore(upstream, let_go=let_go)
        assert not own.joins_transaction
        first = await own.write(await own.ensure_ehr(new_uuid()), letter())
        await own.versions(first.ehr_id, first.uid)
        await own.list_compositions(first.ehr_id, TEMPLATE_ID)
        await own.ping()
    assert held == list(range(len(server.calls)))


@pytest.mark.parametrize(
    "url",
    [
        "http://h:8080/ehrbase",
        "http://h:8080/ehrbase/",
        "http://h:8080/ehrbase/rest/openehr/v1",
        "http://h:8080/ehrbase/rest/openehr/v1/",
    ],
)
async def test_base_address_is_found_from_the_root_or_taken_as_it_is(url: str) -> None:
    assert rest_base(url) == "http://h:8080/ehrbase/rest/openehr/v1"
