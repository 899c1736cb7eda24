"""The trail as FHIR AuditEvents, checked against another implementation of FHIR R4."""

import datetime
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent as AuditEventOracle

from quill.audit import export, queries
from quill.audit.export import UnreadableTrail, Wanted
from quill.audit.recorder import GroupRecorder
from quill.audit.service import Act, Outcome
from quill.kit import clock
from quill.kit.database import Database
from quill.kit.documents import Document, dumps
from tests.audit.trail import meddle, row, write

QUILL = "https://quill.example.org"

pytestmark = pytest.mark.anyio


async def exported(database: Database, **wanted: Any) -> list[Document]:
    documents = [document async for document in export.stream(database, Wanted(**wanted), QUILL)]
    for document in documents:
        AuditEventOracle.model_validate_json(dumps(document))
    return documents


async def keep(database: Database, *rows: Any) -> None:
    async with GroupRecorder(database) as recorder:
        await recorder.record(list(rows))


async def test_event_tells_who_what_about_whom_with_what_outcome(database: Database) -> None:
    """gap: no Provenance, AuditEvent or meta.source."""
    now = clock.now()
    await keep(database, row(3, occurred_at=now, patient_id="p3"))
    [event] = await exported(database)
    assert event["type"]["code"] == "110110"
    assert (event["action"], event["outcome"], event["outcomeDesc"]) == ("R", "0", "shared-organisation")
    assert event["subtype"] == [{"system": "urn:quill:audit-act", "code": "patient:read"}]
    assert datetime.datetime.fromisoformat(event["recorded"]) == now
    assert event["meta"]["source"] == event["source"]["site"] == QUILL
    [agent] = event["agent"]
    assert agent["who"] == {"identifier": {"system": "urn:quill:user", "value": "7"}, "display": "nurse"}
    assert agent["network"] == {"address": "192.0.2.1", "type": "2"}
    patient, subject, request = event["entity"]
    assert patient["what"] == {"reference": "Patient/p3"}
    assert subject["what"]["identifier"]["value"] == "letter:3"
    assert request["what"]["identifier"]["value"] == "request-3"
    assert request["detail"] == [{"type": "login", "valueString": "login-1"}]


async def test_every_act_and_outcome_is_a_valid_event(database: Database) -> None:
    acts = [row(act=act.value, outcome=outcome.value, patient_id="p1") for act in Act for outcome in Outcome]
    await keep(database, *acts)
    events = await exported(database)
    assert [event["subtype"][0]["code"] for event in events] == [kept["act"] for kept in acts]
    assert {event["outcome"] for event in events} == {"0", "4", "8"}
    kinds = {event["subtype"][0]["code"]: (event["type"]["code"], event["action"]) for event in events}
    assert kinds["sign-in"] == ("110114", "E")
    assert kinds["competencies:change"] == ("110113", "U")
    assert kinds["letter:write"] == ("110110", "C")
    assert kinds["external-access:revoke"] == ("110100", "D")
    assert kinds["export:copy"] == kinds["audit:export"] == ("110106", "R")


async def test_strangers_and_jobs_and_ids_that_are_none_are_valid_too(database: Database) -> None:
    stranger = row(
        actor_user_id=None, actor_name="anonymous", login_id=None, outcome="refused", patient_id="(withheld)"
    )
    job = row(
        actor_user_id=None, actor_name="job:demo", source="command-line", subject=None, reason="", patient_id=None
    )
    await keep(database, stranger, job)
    first, second = await exported(database)
    assert first["entity"][0]["what"] == {"identifier": {"system": "urn:quill:patient", "value": "(withheld)"}}
    assert "identifier" not in first["agent"][0]["who"]
    assert second["agent"][0]["network"] == {"address": "command-line", "type": "1"}
    assert "outcomeDesc" not in second
    assert len(second["entity"]) == 1


async def test_time_and_patient_choose_among_them(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "BATCH_ROWS", 2)
    start = clock.now()
    hours = [start + datetime.timedelta(hours=hour) for hour in range(7)]
    await keep(database, *(row(number, occurred_at=at) for number, at in enumerate(hours)))

    async def numbers(**wanted: Any) -> list[str]:
        return [event["entity"][0]["what"]["reference"][-1] for event in await exported(database, **wanted)]

    assert await numbers() == list("0123456")
    assert await numbers(since=hours[2], until=hours[5]) == list("234")
    assert await numbers(patient_id="patient-4") == ["4"]
    assert await numbers(patient_id="patient-4", until=hours[4]) == []


async def test_meddled_row_is_no_event(database: Database) -> None:
    await write(database, 1)
    await meddle(database, "UPDATE audit_event SET occurred_at = 'yesterday'")
    with pytest.raises(UnreadableTrail):
        await exported(database)
