"""What the remote openEHR store makes of outages and wrong answers: trouble, and never absence."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable

import pytest

from quill.adapters import breaker
from quill.adapters.openehr.remote import RemoteOpenEhrStore
from quill.errors import OpenEhrRefused, OpenEhrUnavailable, QuillError, Unavailable
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid, new_uuid
from quill.letters.composition import TEMPLATE_ID, operational_template
from quill.ports.openehr import OpenEhrStore
from tests.adapters.openehr.servers import breaking, upstream_at
from tests.contracts.openehr_records import letter
from tests.upstreams.faults import Fault, FaultyLine
from tests.upstreams.openehr_server import PASSWORD, QUOTED, SYSTEM_ID, OpenEhrServer

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]

# Fixed, so that every worker of a parallel run gives its tests the same names; nothing is kept under any of them.
PATIENT, EHR, OTHER = (f"0190f000-0000-7000-8000-00000000000{digit}" for digit in (1, 2, 3))
LETTER = CompositionUid("0190f000-0000-7000-8000-000000000004")
MARK = "Qwertz"
FAULTS: tuple[Fault, ...] = ("refuse", "cut", "half")

METHODS: list[Callable[[OpenEhrStore], Awaitable[object]]] = [
    lambda store: store.find_ehr(PATIENT),
    lambda store: store.ensure_ehr(PATIENT),
    lambda store: store.ensure_template(TEMPLATE_ID, operational_template()),
    lambda store: store.list_templates(),
    lambda store: store.write(EHR, letter()),
    lambda store: store.write(EHR, letter(), replacing=CompositionUid(f"{LETTER}::{SYSTEM_ID}::1")),
    lambda store: store.find(EHR, LETTER),
    lambda store: store.find(EHR, CompositionUid(f"{LETTER}::{SYSTEM_ID}::1")),
    lambda store: store.versions(EHR, LETTER),
    lambda store: store.list_compositions(EHR, TEMPLATE_ID),
    lambda store: store.ping(),
]


async def troubles_of_every_method(line: FaultyLine, password: str = PASSWORD, seconds: float = 5.0) -> list[object]:
    """Call every method; returns what each raised or answered."""

    async def outcome(call: Awaitable[object]) -> object:
        try:
            return await call
        except QuillError as error:
            return error

    async with upstream_at(line, password, seconds) as upstream:
        store = RemoteOpenEhrStore(upstream)
        return await asyncio.gather(*(outcome(method(store)) for method in METHODS))


@pytest.fixture
def patient_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every method find out by itself, instead of being told what the others found."""
    monkeypatch.setattr(breaker, "FAILURES_TO_OPEN", 1000)


@pytest.mark.usefixtures("patient_breaker")
@pytest.mark.parametrize("fault", ["refuse", "hang", "cut", "half"])
async def test_outage_is_told_by_every_method_in_bounded_time_and_never_looks_like_absence(
    store: RemoteOpenEhrStore, line: FaultyLine, fault: Fault
) -> None:
    """Gap: with EHRbase down the list is 200 with no letters and a read is 404."""
    line.break_with(fault)
    began = time.monotonic()
    outcomes = await troubles_of_every_method(line, seconds=0.4)
    assert time.monotonic() - began < 3
    assert {type(outcome) for outcome in outcomes} == {OpenEhrUnavailable}
    line.mend()
    await store.ping()


@pytest.mark.parametrize("status", [502, 503, 504, 429])
@pytest.mark.usefixtures("store", "patient_breaker")
async def test_server_that_says_it_is_away_is_unavailable(line: FaultyLine, status: int) -> None:
    line.answer_http(status)
    assert {type(outcome) for outcome in await troubles_of_every_method(line)} == {OpenEhrUnavailable}


HTML = (b"<html>Not Found</html>", "text/html")


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (404, *HTML),
        (200, *HTML),
        (404, b'{"error":"Not Found","message":"No resource found at path: rest/openehr/v2/ehr"}', "application/json"),
        (404, b'{"error":"Not Found","status":404,"path":"/ehr"}', "application/json"),
        (404, b'{"error":"Not Found","mess', "application/json"),
        (404, b"", "application/json"),
        (200, b"", "application/json"),
        (204, b"", "application/json"),
        (200, b"{}", "application/json"),
        (200, b'"text"', "application/json"),
        (200, b"[1, null]", "application/json"),
        (200, b"<template/>", "application/xml"),
        (200, b"\xff", "application/xml"),
        (500, b'{"error":"Internal Server Error","message":"x"}', "application/json"),
        (302, b"", "text/html"),
        (403, b"", "text/html"),
    ],
)
@pytest.mark.usefixtures("store", "patient_breaker")
async def test_wrong_answer_is_told_by_every_method_and_never_looks_like_absence(
    line: FaultyLine, status: int, body: bytes, content_type: str
) -> None:
    line.answer_http(status, body, content_type)
    outcomes = await troubles_of_every_method(line)
    if body == b"[1, null]":
        # For a probe any list will do: it says that the server answers, not what.
        assert outcomes.pop() is None
    assert {type(outcome) for outcome in outcomes} == {OpenEhrRefused}


async def test_absence_the_server_itself_tells_is_absence(store: RemoteOpenEhrStore) -> None:
    assert await store.find_ehr(new_uuid()) is None
    assert await store.find(EHR, LETTER) is None
    assert await store.versions(EHR, LETTER) == []
    assert (await store.list_compositions(EHR, TEMPLATE_ID)).summaries == []


@pytest.mark.usefixtures("store", "patient_breaker")
async def test_wrong_password_is_a_wrong_answer(line: FaultyLine) -> None:
    outcomes = await troubles_of_every_method(line, password="wrong")
    assert {type(outcome) for outcome in outcomes} == {OpenEhrRefused}


def ehr_of(subject_id: str, namespace: str = "fhir", ehr_id: object = EHR) -> Document:
    reference = {"namespace": namespace, "id": {"value": subject_id}}
    return {"ehr_id": {"value": ehr_id}, "ehr_status": {"subject": {"external_ref": reference}}}


def version_of(object_id: str, **changes: object) -> Document:
    uid = {"value": f"{object_id}::{SYSTEM_ID}::1"}
    time_committed = {"value": "2026-03-02T09:00:00Z"}
    data = letter() | {"uid": uid}
    return {"uid": uid, "commit_audit": {"time_committed": time_committed}, "data": data} | changes


@pytest.mark.parametrize(
    "document",
    [
        ehr_of(OTHER),
        ehr_of(PATIENT, namespace="another"),
        ehr_of(PATIENT, ehr_id="../ehr"),
        ehr_of(PATIENT, ehr_id=7),
        {"ehr_id": {"value": EHR}},
    ],
)
async def test_ehr_of_another_patient_is_not_taken(
    store: RemoteOpenEhrStore, line: FaultyLine, document: Document
) -> None:
    line.answer_http(200, json.dumps(document).encode())
    for call in (store.find_ehr, store.ensure_ehr):
        with pytest.raises(OpenEhrRefused):
            await call(PATIENT)
    line.answer_http(200, json.dumps(ehr_of(PATIENT)).encode())
    assert await store.find_ehr(PATIENT) == EHR


@pytest.mark.parametrize(
    "document",
    [
        version_of(OTHER),
        version_of(LETTER, data=None),
        version_of(LETTER, data=[]),
        version_of(LETTER, data=letter()),
        version_of(LETTER, data=letter() | {"uid": {"value": f"{OTHER}::{SYSTEM_ID}::1"}}),
        version_of(LETTER, data={"_type": "OBSERVATION", "uid": {"value": f"{LETTER}::{SYSTEM_ID}::1"}}),
        version_of(LETTER, commit_audit={}),
        version_of(LETTER, commit_audit={"time_committed": {"value": "yesterday"}}),
        version_of(LETTER, uid={"value": LETTER}),
    ],
)
async def test_version_that_is_not_the_one_asked_for_is_not_taken(
    store: RemoteOpenEhrStore, line: FaultyLine, document: Document
) -> None:
    line.answer_http(200, json.dumps(document).encode())
    with pytest.raises(OpenEhrRefused):
        await store.find(EHR, LETTER)
    line.answer_http(200, json.dumps(version_of(LETTER)).encode())
    assert await store.find(EHR, LETTER) is not None


ROW = [EHR, f"{LETTER}::{SYSTEM_ID}::1", "Title", "2026-03-02T09:00:00Z", None]


@pytest.mark.parametrize(
    ("place", "value"), [(0, OTHER), (0, None), (1, LETTER), (1, 5), (2, None), (3, None), (3, "soon"), (4, 5)]
)
async def test_row_of_another_ehr_or_a_broken_one_is_not_shown(
    store: RemoteOpenEhrStore, line: FaultyLine, place: int, value: object
) -> None:
    line.answer_http(200, json.dumps({"rows": [ROW]}).encode())
    assert len((await store.list_compositions(EHR, TEMPLATE_ID)).summaries) == 1
    broken: list[object] = [*ROW]
    broken[place] = value
    for rows in ([ROW, broken], [ROW, ROW[:-1]], [ROW, "row"]):
        line.answer_http(200, json.dumps({"rows": rows}).encode())
        with pytest.raises(OpenEhrRefused):
            await store.list_compositions(EHR, TEMPLATE_ID)


async def test_history_of_another_composition_is_not_taken(store: RemoteOpenEhrStore, line: FaultyLine) -> None:
    for item in ({"version_id": {"value": f"{OTHER}::{SYSTEM_ID}::1"}}, {"version_id": {"value": LETTER}}, 5):
        line.answer_http(200, json.dumps([item]).encode())
        with pytest.raises(OpenEhrRefused):
            await store.versions(EHR, LETTER)


async def test_another_template_is_not_taken_for_ours(store: RemoteOpenEhrStore, line: FaultyLine) -> None:
    line.answer_http(200, operational_template().replace(TEMPLATE_ID, "another.v1").encode(), "application/xml")
    with pytest.raises(OpenEhrRefused):
        await store.write(EHR, letter())


async def test_ping_asks_although_the_server_is_known_to_be_down(line: FaultyLine, store: RemoteOpenEhrStore) -> None:
    line.break_with("refuse")
    with pytest.raises(OpenEhrUnavailable):
        await store.ping()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await store.list_templates()
    line.mend()
    await store.ping()
    assert TEMPLATE_ID in await store.list_templates()


async def test_no_log_line_and_no_error_holds_what_the_server_or_the_caller_said(
    store: RemoteOpenEhrStore,
    server: OpenEhrServer,
    line: FaultyLine,
    ehr_id: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.WARNING)
    patient = f"{MARK}-{new_uuid()}"
    errors = []
    first = await store.write(ehr_id, letter(f"{MARK} title", body=f"{MARK} body"))
    for status in (400, 409, 500):
        server.before_next["PUT"] = breaking(status)
        with pytest.raises(QuillError) as caught:
            await store.write(ehr_id, letter(f"{MARK} title", author_name=MARK), replacing=first.uid)
        errors.append(caught.value)
    for fault in FAULTS:
        line.break_with(fault)
        with pytest.raises(QuillError) as caught:
            await store.find_ehr(patient)
        errors.append(caught.value)
    line.answer_http(404, f'{{"error": "{QUOTED}"}}'.encode())
    with pytest.raises(QuillError) as caught:
        await store.ensure_ehr(patient)
    errors.append(caught.value)
    written = "".join(capsys.readouterr()) + caplog.text
    assert "upstream_wrong_answer" in written
    assert MARK not in written
    assert patient not in written
    assert all(MARK not in f"{error} {error.facts}" for error in errors)
