"""What the remote store makes of outages and of wrong answers: never "no data", never a word about a patient."""

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog

from quill.adapters.fhir.remote import RemoteFhirStore
from quill.errors import FhirRefused, FhirUnavailable, InvalidCursor, InvalidRecord, QuillError, StaleEdit
from quill.kit.documents import Document, dumps
from quill.kit.ids import new_uuid
from quill.kit.paging import cursor_of
from quill.ports.fhir import SearchQuery
from tests.contracts.fhir_records import patient
from tests.upstreams.faults import Fault, FaultyLine
from tests.upstreams.fhir_server import FhirServer

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]

NAME, NUMBER, BORN = "Qwertzfamily", "qwertz-943", "1931-03-07"
FHIR = "application/fhir+json"
Act = Callable[[RemoteFhirStore, Document], Awaitable[Any]]

ACTS: dict[str, Act] = {
    "find": lambda store, document: store.find("Patient", document["id"]),
    "write": lambda store, document: store.write(document),
    "write what must not exist": lambda store, document: store.write(document, if_match=0),
    "write a version": lambda store, document: store.write({**document, "active": True}, if_match=1),
    "create unless": lambda store, document: store.create_unless(document, identifier=f"urn:x|{NUMBER}"),
    "search": lambda store, _: store.search("Patient", SearchQuery(identifier=f"urn:x|{NUMBER}")),
    "go on searching": lambda store, _: store.search("Patient", SearchQuery(), cursor=cursor_of("?_getpages=a", 0)),
    "history": lambda store, document: store.history("Patient", document["id"]),
    "delete": lambda store, document: store.delete("Patient", document["id"]),
    "changes": lambda store, _: store.changes("Patient"),
    "ping": lambda store, _: store.ping(),
}
every_act = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())


@pytest.fixture
def document() -> Document:
    return patient(
        name=[{"family": NAME}], birthDate=BORN, identifier=[{"system": "urn:x", "value": NUMBER}], gender="female"
    )


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[Any]]:
    """No test of this file may leave a word about the patient in a log line."""
    with structlog.testing.capture_logs() as lines:
        yield lines
    text = repr(lines).lower()
    assert "qwertz" not in text
    assert BORN not in text


def assert_silent(error: QuillError) -> None:
    """Check that an error, and whatever caused it of ours, holds nothing of the patient."""
    text = f"{error!r} {error.detail} {getattr(error, 'errors', '')}".lower()
    assert "qwertz" not in text
    assert BORN not in text


@every_act
async def test_outage_is_never_taken_for_absence(
    store: RemoteFhirStore, line: FaultyLine, document: Document, act: Act
) -> None:
    """Gap: an outage is taken for absence."""
    faults: tuple[Fault, ...] = ("refuse", "cut", "half")
    for fault in faults:
        line.break_with(fault)
        with pytest.raises(FhirUnavailable) as trouble:
            await act(store, document)
        assert_silent(trouble.value)


@every_act
async def test_server_that_hangs_is_waited_for_no_longer_than_the_deadline(
    hasty_store: RemoteFhirStore, line: FaultyLine, document: Document, act: Act
) -> None:
    """Gap: no request timeout: a hung FHIR server holds a worker indefinitely."""
    line.break_with("hang")
    began = time.monotonic()
    with pytest.raises(FhirUnavailable):
        await act(hasty_store, document)
    assert time.monotonic() - began < 2


PAGE = b"<html><body>404 Qwertzfamily is not here</body></html>"
OTHER = b'{"timestamp": "2026-01-01", "status": 404, "error": "Not Found", "path": "/Qwertzfamily"}'
OUTCOME = dumps(
    {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "diagnostics": "Qwertzfamily"}]}
).encode()
PERSON = dumps(
    {"resourceType": "Person", "id": "a", "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"}}
).encode()


WRONG = [
    (404, PAGE, "text/html"),
    (404, OTHER, "application/json"),
    (410, OTHER, FHIR),
    (409, OTHER, FHIR),
    (412, PAGE, "text/html"),
    (400, PAGE, "text/html"),
    (422, OTHER, FHIR),
    (200, PERSON, FHIR),
    (200, PAGE, "text/html"),
    (200, PERSON, "text/plain"),
    (200, b'{"resourceType": "Pat', FHIR),
    (200, b"[]", FHIR),
    (401, OUTCOME, FHIR),
    (403, OUTCOME, FHIR),
    (500, OUTCOME, FHIR),
    (302, b"", FHIR),
]


@every_act
async def test_wrong_answer_is_never_taken_for_absence(
    store: RemoteFhirStore, line: FaultyLine, document: Document, act: Act
) -> None:
    for status, body, content_type in WRONG:
        line.answer_http(status, body, content_type)
        with pytest.raises(FhirRefused) as trouble:
            await act(store, document)
        assert_silent(trouble.value)


@every_act
async def test_outcome_in_place_of_the_answer_is_a_wrong_answer(
    store: RemoteFhirStore, line: FaultyLine, document: Document, act: Act
) -> None:
    line.answer_http(200, OUTCOME, FHIR)
    if act is ACTS["delete"]:
        await act(store, document)
        return
    with pytest.raises(FhirRefused):
        await act(store, document)


META: Document = {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00.5Z"}
OTHERS: list[Document] = [
    {"resourceType": "Practitioner"},
    {"id": None},
    {"id": "../x"},
    {"meta": None},
    {"meta": {"versionId": "1"}},
    {"meta": {**META, "lastUpdated": "yesterday"}},
    {"meta": {**META, "lastUpdated": "2026-01-01T00:00:00"}},
    {"meta": {"lastUpdated": "2026-01-01T00:00:00Z"}},
    {"meta": {**META, "versionId": 1}},
    {"meta": {**META, "versionId": "0"}},
    {"meta": {**META, "versionId": "qwertz"}},
]


@pytest.mark.parametrize("act", ["find", "write", "history", "search"])
async def test_another_resource_than_asked_for_is_a_wrong_answer(
    store: RemoteFhirStore, line: FaultyLine, document: Document, act: str
) -> None:
    good = {**document, "meta": META}
    line.answer_http(200, _answer_to(act, good), FHIR)
    await ACTS[act](store, document)
    # Whose record a search finds cannot be known beforehand.
    for changed in [*OTHERS, *([{"id": "somebody-else"}] if act != "search" else [])]:
        line.answer_http(200, _answer_to(act, {**good, **changed}), FHIR)
        with pytest.raises(FhirRefused) as trouble:
            await ACTS[act](store, document)
        assert_silent(trouble.value)


def _answer_to(act: str, resource: Document) -> bytes:
    kind = {"history": "history", "search": "searchset"}.get(act)
    if kind is None:
        return dumps(resource).encode()
    return dumps({"resourceType": "Bundle", "type": kind, "entry": [{"resource": resource}]}).encode()


BUNDLES: list[Document] = [
    {"type": "history"},
    {"entry": {"resource": {}}},
    {"entry": ["x"]},
    {"entry": [{}]},
    {"link": [{"relation": "next", "url": "http://elsewhere.example/fhir"}]},
    {"link": [{"relation": "next", "url": "http://elsewhere.example/fhir?a=\u00fc b"}]},
    {"link": [{"relation": "next"}]},
]


async def test_bundle_that_is_none_is_a_wrong_answer(store: RemoteFhirStore, line: FaultyLine) -> None:
    for bundle in BUNDLES:
        line.answer_http(200, dumps({"resourceType": "Bundle", "type": "searchset", **bundle}).encode(), FHIR)
        with pytest.raises(FhirRefused):
            await store.search("Patient", SearchQuery())


async def test_pages_that_go_in_a_circle_are_a_wrong_answer(
    store: RemoteFhirStore, line: FaultyLine, document: Document
) -> None:
    bundle = {"resourceType": "Bundle", "type": "history", "link": [{"relation": "next", "url": "http://x/fhir?a=1"}]}
    line.answer_http(200, dumps(bundle).encode(), FHIR)
    with pytest.raises(FhirRefused):
        await store.history("Patient", document["id"])


async def test_record_the_server_did_not_keep_whole_is_not_acknowledged(
    store: RemoteFhirStore, line: FaultyLine, document: Document
) -> None:
    losses: list[Document] = [{"gender": None}, {"birthDate": "1931-03-08"}, {"name": [{"family": "Other"}]}]
    for kept in losses:
        whole = {**document, "meta": META, **kept}
        line.answer_http(201, dumps({name: part for name, part in whole.items() if part is not None}).encode(), FHIR)
        with pytest.raises(FhirRefused) as trouble:
            await store.write(document)
        assert_silent(trouble.value)


@pytest.mark.parametrize("status", [400, 422])
async def test_refusal_tells_places_and_no_word_of_the_server(
    store: RemoteFhirStore, line: FaultyLine, document: Document, status: int
) -> None:
    places = ["Patient.name[0].family", "Patient.where(name='Qwertzfamily')", "Qwertzfamily was born"]
    issue = {"severity": "error", "code": "invalid", "diagnostics": f"{NAME} {BORN}", "expression": places}
    line.answer_http(status, dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode(), FHIR)
    with pytest.raises(InvalidRecord) as refused:
        await store.write(document)
    assert [error["loc"] for error in refused.value.errors] == [["name", 0, "family"]]
    assert_silent(refused.value)


async def test_reference_to_what_the_server_does_not_have_is_refused_with_its_place(
    store: RemoteFhirStore, line: FaultyLine, document: Document
) -> None:
    words = "HAPI-1094: Resource Organization/qwertz not found, specified in path: Patient.generalPractitioner"
    issue = {"severity": "error", "code": "processing", "diagnostics": words}
    line.answer_http(400, dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode(), FHIR)
    with pytest.raises(InvalidRecord) as refused:
        await store.write(document)
    assert [error["loc"] for error in refused.value.errors] == [["generalPractitioner"]]
    assert_silent(refused.value)


@pytest.mark.parametrize("if_match", [0, 1])
async def test_write_with_a_condition_whose_answer_is_lost_is_not_sent_again(
    store: RemoteFhirStore,
    direct: RemoteFhirStore,
    line: FaultyLine,
    server: FhirServer,
    document: Document,
    if_match: int,
) -> None:
    if if_match:
        await direct.write({**document, "gender": "male"})
        # What is there is read before it is replaced; only the answer to the write is to be lost.
        store.find = direct.find  # type: ignore[method-assign]
    server.requests.clear()
    line.break_with("cut")
    with pytest.raises(FhirUnavailable):
        await store.write(document, if_match=if_match)
    line.mend()
    assert [method for method, _, _ in server.requests if method == "PUT"] == ["PUT"]
    landed = await store.find("Patient", document["id"])
    assert landed is not None
    assert (landed.version, landed.document["gender"]) == (if_match + 1, "female")
    with pytest.raises(StaleEdit):
        await store.write({**document, "active": True}, if_match=if_match)


async def test_write_without_a_condition_is_sent_again_and_makes_one_version(
    store: RemoteFhirStore, direct: RemoteFhirStore, line: FaultyLine, server: FhirServer, document: Document
) -> None:
    line.break_with("cut")
    with pytest.raises(FhirUnavailable):
        await store.write(document)
    assert len([method for method, _, _ in server.requests if method == "PUT"]) > 1
    assert len(await direct.history("Patient", document["id"])) == 1


FORGED = [
    "http://elsewhere.example/fhir?a=1",
    "//elsewhere.example?a=1",
    "@elsewhere.example?a=1",
    "/../admin?a=1",
    "/Patient/../../admin?a=1",
    "/./Patient?a=1",
    "?a=1#b",
    "?a=1 b",
    "?a=1\r\nX: y",
    "/Patient",
    "",
]


async def test_forged_cursor_is_refused_and_leads_nowhere(direct: RemoteFhirStore, server: FhirServer) -> None:
    for link in FORGED:
        with pytest.raises(InvalidCursor):
            await direct.search("Patient", SearchQuery(), cursor=cursor_of(link, 0))
        with pytest.raises(InvalidCursor):
            await direct.changes("Patient", cursor_of(0, 0, link or "x"))
    with pytest.raises(InvalidCursor):
        await direct.search("Patient", SearchQuery(), cursor=cursor_of("?_getpages=a", -1))
    assert server.requests == []


async def test_cursor_the_server_has_forgotten_is_refused(store: RemoteFhirStore, server: FhirServer) -> None:
    for _ in range(2):
        await store.write(patient())
    cursor = (await store.search("Patient", SearchQuery(), limit=1)).next_cursor
    server.kept_searches.clear()
    with pytest.raises(InvalidCursor):
        await store.search("Patient", SearchQuery(), limit=1, cursor=cursor)


async def test_cursor_shows_nothing_that_does_not_meet_the_query(
    store: RemoteFhirStore, direct: RemoteFhirStore
) -> None:
    for _ in range(3):
        await direct.write(patient(identifier=[{"value": new_uuid()}]))
    cursor = (await direct.search("Patient", SearchQuery(), limit=1)).next_cursor
    assert cursor is not None
    page = await store.search("Patient", SearchQuery(identifier="nobody's"), limit=1, cursor=cursor)
    assert (page.resources, page.next_cursor) == ([], None)
