"""Rows as the services note them, through real readers and units."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.audit.grants import grant_statements
from quill.audit.models import AuditEvent
from quill.audit.recorder import GroupRecorder
from quill.audit.service import WITHHELD, Act, record, record_failure, record_refusal
from quill.errors import AuditUnavailable, PatientNotFound
from quill.kit.database import Database
from quill.kit.ids import LoginId, PatientId, UserId
from quill.settings import Settings
from quill.unit import RequestFacts, Services, open_reader, open_unit
from tests.audit.trail import meddle

pytestmark = pytest.mark.anyio

FACTS = RequestFacts(request_id="request-1", source="2001:db8::1")
NURSE = Actor(user_id=UserId(7), name="nurse.müller", display_name="N", level=Level.STAFF, login_id=LoginId("login-1"))
PATIENT = PatientId("p-1")


def no_store(_session: AsyncSession) -> Any:
    raise AssertionError("The audit trail asks no clinical store.")


@pytest.fixture
async def services(database: Database) -> AsyncIterator[Services]:
    async with GroupRecorder(database) as recorder:
        yield Services(Settings.model_validate({}), database, recorder, no_store, no_store)


async def rows(database: Database) -> list[dict[str, Any]]:
    async with database.reading() as session:
        found = await session.execute(sa.select(*AuditEvent.__table__.columns).order_by(AuditEvent.id))
        return [dict(row._mapping) for row in found]


async def test_a_read_is_in_the_trail_with_every_column(database: Database, services: Services) -> None:
    with time_machine.travel("2026-01-31T12:00:00.123456Z", tick=False):
        async with open_reader(services, FACTS) as reader:
            record(reader, NURSE, Act.PATIENT_READ, patient_id=PATIENT, subject="letter:a::b::1", reason="own-record")
    [row] = await rows(database)
    assert row.pop("id") == 1
    assert row.pop("occurred_at").isoformat() == "2026-01-31T12:00:00.123456+00:00"
    assert row == {
        "request_id": "request-1",
        "actor_user_id": 7,
        "actor_name": "nurse.müller",
        "login_id": "login-1",
        "source": "2001:db8::1",
        "act": "patient:read",
        "outcome": "allowed",
        "reason": "own-record",
        "patient_id": "p-1",
        "subject": "letter:a::b::1",
    }


async def test_nobody_signed_in_is_anonymous_and_a_job_has_its_name(database: Database, services: Services) -> None:
    async with open_reader(services, FACTS) as reader:
        record_refusal(reader, None, Act.SIGN_IN, reason="unknown_user")
        record(reader, Actor.job("sweep"), Act.INTENT_SWEEP)
    found = {row["act"]: row for row in await rows(database)}
    assert found["sign-in"]["actor_name"] == "anonymous"
    assert (found["sign-in"]["actor_user_id"], found["sign-in"]["login_id"]) == (None, None)
    assert found["intent:sweep"]["actor_name"] == "job:sweep"


async def test_a_write_that_ends_well_keeps_acts_and_refusals(database: Database, services: Services) -> None:
    async with open_unit(services, FACTS) as unit:
        record(unit, NURSE, Act.PATIENT_CHANGE, patient_id=PATIENT)
        record_refusal(unit, NURSE, Act.ACCESS_CHECK, reason="no_grant", patient_id=PatientId("p-2"))
    assert [(row["act"], row["outcome"]) for row in await rows(database)] == [
        ("patient:change", "allowed"),
        ("access:check", "refused"),
    ]


async def test_a_write_that_fails_keeps_refusals_and_failures_alone(database: Database, services: Services) -> None:
    async def write_in_vain() -> None:
        async with open_unit(services, FACTS) as unit:
            record(unit, NURSE, Act.PATIENT_CHANGE, patient_id=PATIENT)
            record_refusal(unit, NURSE, Act.PATIENT_CHANGE, reason="patient_not_found", patient_id=PATIENT)
            record_failure(unit, NURSE, Act.LETTER_WRITE, reason="openehr_unavailable", patient_id=PATIENT)
            raise PatientNotFound

    with pytest.raises(PatientNotFound):
        await write_in_vain()
    assert [(row["act"], row["outcome"]) for row in await rows(database)] == [
        ("patient:change", "refused"),
        ("letter:write", "failed"),
    ]


async def test_a_callback_that_fails_after_the_commit_writes_no_refusal_twice(
    database: Database, services: Services
) -> None:
    async def fail() -> None:
        raise RuntimeError("the listener is gone")

    async def write() -> None:
        async with open_unit(services, FACTS) as unit:
            record_refusal(unit, NURSE, Act.ACCESS_CHECK, reason="no_grant")
            unit.after_commit(fail)

    with pytest.raises(RuntimeError, match="listener"):
        await write()
    assert len(await rows(database)) == 1


async def test_nothing_is_shown_when_the_trail_cannot_be_written(database: Database, services: Services) -> None:
    await meddle(database, "ALTER TABLE audit_event RENAME TO hidden")
    with pytest.raises(AuditUnavailable):
        async with open_reader(services, FACTS) as reader:
            record(reader, NURSE, Act.PATIENT_READ, patient_id=PATIENT)
    with pytest.raises(AuditUnavailable):
        async with open_unit(services, FACTS) as unit:
            record(unit, NURSE, Act.PATIENT_CHANGE, patient_id=PATIENT)


@pytest.mark.parametrize("contents", ["Ann Example", "Übel", "line\nbreak", "nul\x00", "lone \ud800", "943 476 5919"])
async def test_contents_passed_by_mistake_do_not_reach_the_trail(
    database: Database, services: Services, contents: str
) -> None:
    async with open_reader(services, RequestFacts(request_id=contents, source=contents)) as reader:
        record_refusal(
            reader, NURSE, Act.PATIENT_READ, reason=contents, patient_id=PatientId(contents), subject=contents
        )
    [row] = await rows(database)
    withheld = {row[column] for column in ("request_id", "source", "reason", "patient_id", "subject")}
    assert withheld == {WITHHELD}


async def test_values_longer_than_their_columns_are_cut(database: Database, services: Services) -> None:
    actor = Actor(user_id=None, name="n\x00\n" * 200, display_name="", level=Level.STAFF, login_id=LoginId("l" * 99))
    async with open_reader(services, RequestFacts(request_id="r" * 999, source="s" * 999)) as reader:
        record(reader, actor, Act.PATIENT_READ, patient_id=PatientId("p" * 99), subject="s" * 999, reason="r" * 999)
    [row] = await rows(database)
    for column in AuditEvent.__table__.columns:
        if isinstance(column.type, sa.String):
            assert column.type.length is not None
            assert row[column.name] is not None
            assert len(row[column.name]) <= column.type.length
    assert row["actor_name"].startswith("n??n??")


def test_acts_are_named_noun_and_verb_and_fit_their_column() -> None:
    assert all(re.fullmatch(r"[a-z-]+(:[a-z-]+)?", act) and len(act) <= 64 for act in Act)
    assert [act for act in Act if ":" not in act] == [Act.SIGN_IN, Act.SIGN_OUT]


def test_the_role_of_the_program_may_add_and_read_only() -> None:
    revoke, grant, sequence = grant_statements('clinic"s')
    assert revoke == 'REVOKE ALL ON audit_event, audit_seal, audit_seal_entry FROM PUBLIC, "clinic""s"'
    assert grant == 'GRANT SELECT, INSERT ON audit_event, audit_seal, audit_seal_entry TO "clinic""s"'
    assert sequence == 'GRANT USAGE ON SEQUENCE audit_event_id_seq TO "clinic""s"'


@pytest.mark.parametrize("role", ["", "  ", "a\x00b"])
def test_a_role_without_a_name_is_refused(role: str) -> None:
    with pytest.raises(ValueError, match="name"):
        grant_statements(role)
