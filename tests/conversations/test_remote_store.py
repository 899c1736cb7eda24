"""A FHIR store that stands by itself: what is acknowledged is kept, what is refused leaves nothing to see."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Actor
from quill.app import KINDS
from quill.audit.models import AuditEvent
from quill.audit.service import Act
from quill.conversations import queries
from quill.conversations import service as conversations
from quill.conversations.models import ConversationParticipant
from quill.conversations.projection import participant_row
from quill.conversations.rebuild import rebuild_projection
from quill.conversations.schemas import ConversationIn
from quill.errors import FhirRefused, FhirUnavailable
from quill.identity import service as identity
from quill.intents.models import Intent
from quill.kit import clock
from quill.kit.ids import ConversationId, UserId
from quill.ports.fhir_communication import ParticipantFacts
from quill.unit import RequestFacts, Unit, open_unit
from tests.conversations.talk import (
    Surgery,
    begin,
    counts,
    in_list,
    listed_ids,
    read,
    refusal,
    select,
    send,
    try_begin,
    try_send,
)
from tests.remote_like import Line, sweep_after_leases_ran_out, with_remote_fhir


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def line(place: Surgery) -> Iterator[Line]:
    """Put the FHIR store at the other end of a line, once the surgery is there."""
    line = Line()
    state = place.clinic.client.app.state  # type: ignore[attr-defined]
    near = state.services
    state.services = with_remote_fhir(near, line)
    yield line
    state.services = near


def sweep(place: Surgery) -> int:
    closed: int = place.clinic.run(sweep_after_leases_ran_out, place.clinic.services, KINDS)
    return closed


def states(place: Surgery) -> list[str]:
    return [row.state for row in select(place.clinic, sa.select(Intent.state).order_by(Intent.created_at))]


def test_everything_works_over_the_line(place: Surgery, line: Line) -> None:
    talk = begin(place.doctor, place.patient)
    at = f"/api/conversations/{talk['id']}"
    assert place.doctor.post(f"{at}/participants", {"user_id": place.nurse.id}).status_code == 200
    message = send(place.nurse, talk)
    send(place.nurse, talk, "Much better", amends_id=message["id"])
    assert place.nurse.patch(at, {"status": "resolved"}).json()["status"] == "resolved"
    assert place.nurse.delete(f"{at}/participants/{place.nurse.id}").status_code == 200
    assert place.nurse.post(f"{at}/join").status_code == 200
    assert len(read(place.nurse, talk).json()["messages"]) == 3
    assert set(states(place)) == {"done"}
    assert line.count("write") == 2 + 1 + 2 + 1 + 2


@pytest.mark.parametrize(
    ("trouble", "status", "sentence"),
    [
        (FhirRefused(), 502, "Failed to create message in clinical store"),
        (FhirUnavailable(), 503, "The patient record store is not available right now"),
    ],
)
def test_store_that_is_away_or_refuses_leaves_no_trace(
    place: Surgery, line: Line, trouble: Exception, status: int, sentence: str
) -> None:
    """gap: SQL failure after the FHIR write leaves an orphan; FHIR refusing: 502 and no trace for the reader."""
    talk = begin(place.doctor, place.patient, place.nurse)
    before, seen = counts(place.clinic), in_list(place.nurse, talk)
    line.cut(trouble)
    at = f"/api/conversations/{talk['id']}"
    for answer in (
        try_begin(place.doctor, place.patient),
        try_send(place.doctor, talk),
        place.doctor.patch(at, {"status": "closed"}),
        place.doctor.post(f"{at}/participants", {"user_id": place.clinic.admin().id}),
        place.doctor.delete(f"{at}/participants/{place.nurse.id}"),
    ):
        assert refusal(answer) == (status, sentence)
    assert read(place.nurse, talk).status_code == 200, "reading needs no store"
    line.mend()
    sweep(place)
    assert counts(place.clinic) == before
    assert in_list(place.nurse, talk) == seen | {"unread_count": 0}
    assert set(states(place)) <= {"done", "refused", "abandoned"}
    send(place.doctor, talk)


def test_message_whose_answer_was_lost_is_found_by_the_sweep(place: Surgery, line: Line) -> None:
    talk = begin(place.doctor, place.patient, place.nurse)
    line.lose_next("write", FhirUnavailable())
    assert try_send(place.doctor, talk, "Did it arrive?").status_code == 503
    assert len(read(place.nurse, talk).json()["messages"]) == 1
    sweep(place)
    assert read(place.nurse, talk).json()["messages"][-1]["body"] == "Did it arrive?"
    assert sweep(place) == 0
    assert counts(place.clinic)[2] == 2


def crash(place: Surgery, act: Callable[[Unit, Actor], Awaitable[object]]) -> None:
    """Do something as the doctor in a process that dies on the way."""

    async def work() -> None:
        async with place.clinic.services.database.reading() as session:
            doctor = await identity.find_actor(session, place.clinic.services.settings, UserId(place.doctor.id))
        assert doctor is not None
        with pytest.raises(Crash):
            async with open_unit(place.clinic.services, RequestFacts("crashing", "test")) as unit:
                await act(unit, doctor)

    place.clinic.run(work)


@pytest.mark.parametrize("moment", ["before the write", "after the write"])
def test_crash_between_the_steps_is_finished_by_the_sweep(place: Surgery, line: Line, moment: str) -> None:
    talk = begin(place.doctor, place.patient, place.nurse)
    key = {"Idempotency-Key": "send-1"}
    (line.refuse_next if moment == "before the write" else line.lose_next)("write", Crash)
    number = ConversationId(talk["id"])
    crash(place, lambda unit, doctor: conversations.send(unit, doctor, number, "Kept", idempotency_key="send-1"))
    assert try_send(place.doctor, talk, "Kept", headers=key).json()["error_code"] == "request_in_progress"
    assert sweep(place) == 1
    message = send(place.doctor, talk, "Kept", headers=key)
    assert read(place.nurse, talk).json()["messages"][-1] == message
    assert counts(place.clinic)[2] == 2
    assert sweep(place) == 0


def test_crash_in_the_middle_of_beginning_is_finished_by_the_sweep(place: Surgery, line: Line) -> None:
    line.lose_next("write", Crash)
    wanted = ConversationIn(
        patient_id=place.patient, participant_ids=[place.nurse.id], initial_message="How is the hip?"
    )
    crash(place, lambda unit, doctor: conversations.create(unit, doctor, wanted))
    assert listed_ids(place.doctor) == []
    assert sweep(place) == 1
    [number] = listed_ids(place.nurse)
    assert in_list(place.nurse, {"id": number})["unread_count"] == 1


def test_message_that_arrived_is_kept_though_everybody_has_left_meanwhile(place: Surgery, line: Line) -> None:
    talk = begin(place.doctor, place.patient)
    line.lose_next("write", FhirUnavailable())
    assert try_send(place.doctor, talk, "Did it arrive?").status_code == 503
    assert place.doctor.delete(f"/api/conversations/{talk['id']}/participants/{place.doctor.id}").status_code == 200
    assert sweep(place) == 1
    shown = read(place.nurse, talk).json()
    assert (shown["messages"][-1]["body"], shown["participants"]) == ("Did it arrive?", [])
    trail = sa.select(AuditEvent.id).where(AuditEvent.act == Act.MESSAGE_SEND, AuditEvent.outcome == "allowed")
    assert len(select(place.clinic, trail)) == 1


def test_message_that_waits_for_somebody_to_come_in_is_counted_for_them(place: Surgery, line: Line) -> None:
    talk = begin(place.doctor, place.patient)
    services, joining = place.clinic.services, set[asyncio.Task[None]]()

    async def nurse_comes_in(is_in: asyncio.Event) -> None:
        now = clock.now()
        nurse = ParticipantFacts(place.nurse.id, place.nurse.username, "participant", now, None)
        async with services.database.writing() as session:
            await queries.lock_conversation(session, ConversationId(talk["id"]))
            await session.execute(sa.insert(ConversationParticipant), participant_row(talk["id"], nurse, active_at=now))
            is_in.set()
            await asyncio.sleep(0.1)

    async def meanwhile() -> None:
        is_in = asyncio.Event()
        joining.add(asyncio.create_task(nurse_comes_in(is_in)))
        await is_in.wait()

    line.after_next("write", meanwhile)
    send(place.doctor, talk)
    place.clinic.run(asyncio.wait, joining)
    assert in_list(place.nurse, talk)["unread_count"] == 1


@pytest.mark.parametrize("has_arrived", [True, False])
def test_repeated_call_takes_the_first_one_over(place: Surgery, line: Line, has_arrived: bool) -> None:
    talk = begin(place.doctor, place.patient, place.nurse)
    key = {"Idempotency-Key": "send-1"}
    (line.lose_next if has_arrived else line.refuse_next)("write", FhirUnavailable)
    assert try_send(place.doctor, talk, "Once", headers=key).status_code == 503
    message = send(place.doctor, talk, "Once", headers=key)
    assert send(place.doctor, talk, "Once", headers=key) == message
    sweep(place)
    assert [found["body"] for found in read(place.nurse, talk).json()["messages"]] == ["How is the hip?", "Once"]


def test_beginning_that_got_half_way_is_shown_to_nobody(place: Surgery, line: Line) -> None:
    """The header is there and the message is not: the caller was told that it failed, so it has."""

    async def cut() -> None:
        line.cut(FhirUnavailable())

    line.after_next("write", cut)
    assert try_begin(place.doctor, place.patient).status_code == 503
    line.mend()
    sweep(place)
    assert states(place) == ["abandoned"]
    line.serves_a_job = True
    rebuilt = place.clinic.run(rebuild_projection, place.clinic.services)
    assert (rebuilt.conversations, rebuilt.messages, rebuilt.ignored) == (0, 0, 1)
    assert listed_ids(place.doctor) == []


def test_change_whose_answer_was_lost_is_found_by_the_sweep(place: Surgery, line: Line) -> None:
    talk = begin(place.doctor, place.patient)
    line.lose_next("write", FhirUnavailable())
    at = f"/api/conversations/{talk['id']}"
    assert place.doctor.patch(at, {"status": "closed"}).status_code == 503
    assert in_list(place.doctor, talk)["status"] == "new"
    sweep(place)
    assert in_list(place.doctor, talk)["status"] == "closed"


def test_changes_at_the_same_moment_are_both_kept(place: Surgery, line: Line) -> None:
    talk = begin(place.doctor, place.patient)
    at = f"/api/conversations/{talk['id']}"
    answers: list[Any] = []

    async def another_change() -> None:
        """Change the header at the store between our reading and our writing."""
        answers.append(await asyncio.to_thread(place.doctor.patch, at, {"status": "resolved"}))

    line.before_next("write", another_change)
    assert place.nurse.post(f"{at}/join").status_code == 200
    assert answers[0].status_code == 200
    row = in_list(place.doctor, talk)
    assert (row["status"], len(row["participants"])) == ("resolved", 2)
    assert line.count("write") == 2 + 3, "the one that came second was written again on top of the first"


def test_later_message_that_arrives_first_comes_first(place: Surgery, line: Line) -> None:
    """Whoever has read the faster message still finds the slower one after it, and unread."""
    talk = begin(place.doctor, place.patient, place.nurse)
    sent: list[Any] = []

    async def overtake() -> None:
        sent.append(await asyncio.to_thread(send, place.nurse, talk, "Faster"))
        await asyncio.to_thread(read, place.doctor, talk)

    line.before_next("write", overtake)
    slower = send(place.nurse, talk, "Slower")
    assert in_list(place.doctor, talk)["unread_count"] == 1
    messages = read(place.doctor, talk).json()["messages"]
    assert [message["body"] for message in messages[1:]] == ["Faster", "Slower"]
    assert slower["created_at"] > sent[0]["created_at"]
    assert slower["id"] < sent[0]["id"]
