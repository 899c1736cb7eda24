"""Live updates: told to those who may know, at the moment they may, and to nobody else."""

import asyncio
import dataclasses
import signal
from collections.abc import MutableMapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from quill.actor import Level
from quill.auth import service as auth
from quill.events import feed as feeds
from quill.events import routes
from quill.events import service as events
from quill.events.feed import ROOM, STREAMS_PER_PERSON, Listener
from quill.events.routes import EventStream
from quill.identity.models import OrganisationPatientMember, UserAccount
from quill.kit.ids import ConversationId, PatientId
from quill.kit.signals import InProcessSignals
from quill.outbox.service import KeptEvent, LiveEvent
from quill.settings import Settings
from quill.unit import open_unit
from tests.events.conftest import FACTS, PATIENT, House, Told

pytestmark = pytest.mark.anyio

LETTER = LiveEvent("letter", PATIENT, None, {"composition_uid": "a::quill::1"})


async def test_reader_is_told_of_a_message_by_ids_alone(house: House) -> None:
    browser = await house.person("reader")
    house.readers[7] = {"reader"}
    async with browser.listening() as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["cache-control"] == "no-store"
        assert await stream.next() == Told("ready", 0, {})
        await house.message(7, 12)
        assert await stream.next() == Told(
            "message", 1, {"patient_id": "patient-1", "conversation_id": 7, "message_id": 12}
        )


@pytest.mark.parametrize("kind", ["message", "read", "status"])
async def test_who_may_not_read_a_conversation_is_told_nothing_of_it(house: House, kind: str) -> None:
    reader, other = await house.person("reader"), await house.person("other")
    house.readers[7] = {"reader"}
    async with reader.listening() as told, other.listening() as untold:
        await told.next()
        await untold.next()
        await house.publish(LiveEvent(kind, PATIENT, ConversationId(7)))  # type: ignore[arg-type]
        event = await told.next()
        assert event is not None
        assert event.kind == kind
        assert await untold.is_silent(0.3)


async def test_letter_is_told_to_those_who_may_read_the_patients_letters(house: House) -> None:
    organisation, elsewhere = await house.organisation(PATIENT), await house.organisation()
    told = [
        await house.person("clinician", organisations=[organisation]),
        await house.person("patient", level=Level.PATIENT, profession="patient", patient_id=PATIENT),
    ]
    untold = [
        await house.person("elsewhere", organisations=[elsewhere]),
        await house.person("stranger", level=Level.PATIENT, profession="patient", patient_id=PatientId("patient-2")),
        await house.person(
            "unqualified", organisations=[organisation], removed_competencies=["access_patient_records"]
        ),
    ]
    async with asyncio.TaskGroup() as group:

        async def is_told(browser: object, expected: bool) -> None:
            async with browser.listening() as stream:  # type: ignore[attr-defined]
                await stream.next()
                opened.release()
                if expected:
                    assert (await stream.next()).data["composition_uid"] == "a::quill::1"
                else:
                    assert await stream.is_silent(0.4)

        opened = asyncio.Semaphore(0)
        for browser in told:
            group.create_task(is_told(browser, True))
        for browser in untold:
            group.create_task(is_told(browser, False))
        for _ in range(5):
            await opened.acquire()
        await house.publish(LETTER)


async def test_browser_that_was_away_is_told_what_it_missed_once_and_in_order(house: House) -> None:
    browser = await house.person("reader")
    house.readers = {7: {"reader"}, 8: {"other"}}
    for number in range(1, 4):
        await house.message(7, number)
        await house.message(8, number)
    async with browser.listening(last_event_id=2) as stream:
        assert (await stream.next()) == Told("ready", 2, {})
        await house.message(7, 4)
        told = [await stream.next() for _ in range(3)]
    assert [event.number for event in told if event] == [3, 5, 7]
    assert [event.data["message_id"] for event in told if event] == [2, 3, 4]


@pytest.mark.parametrize("last_event_id", [99, 10**17])
async def test_browser_from_another_time_is_told_to_read_afresh(house: House, last_event_id: int) -> None:
    browser = await house.person("reader")
    await house.message()
    async with browser.listening(last_event_id=last_event_id) as stream:
        assert await stream.next() == Told("reset", 1, {})


async def test_browser_that_was_away_for_too_long_is_told_to_read_afresh(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "REPLAYED_AT_MOST", 2)
    browser = await house.person("reader")
    for _ in range(3):
        await house.message()
    async with browser.listening(last_event_id=0) as stream:
        assert await stream.next() == Told("reset", 3, {})
    async with browser.listening(last_event_id=1) as stream:
        assert await stream.next() == Told("ready", 1, {})


async def test_right_removed_while_the_stream_is_open_shows_at_the_next_event(house: House) -> None:
    organisation = await house.organisation(PATIENT)
    browser = await house.person("clinician", organisations=[organisation])
    async with browser.listening() as stream:
        await stream.next()
        await house.publish(LETTER)
        assert (await stream.next()) is not None
        async with open_unit(house.services, FACTS) as unit:
            await unit.session.execute(sa.delete(OrganisationPatientMember))
        await house.publish(LETTER)
        assert await stream.is_silent(0.3)


async def test_stream_ends_when_its_login_ends(house: House) -> None:
    browser = await house.person("reader")
    house.readers[7] = {"reader"}
    async with browser.listening() as stream:
        await stream.next()
        csrf = {"X-CSRF-Token": browser.client.cookies["XSRF-TOKEN"]}
        assert (await browser.client.post("/api/auth/logout", headers=csrf)).status_code == 200
        await house.message()
        assert await stream.next() == Told("end", None, {"reason": "invalid_token"})
        assert await stream.next() is None


async def test_silent_stream_ends_too_when_its_login_ends(house: House) -> None:
    browser = await house.person("reader")
    async with browser.listening() as stream:
        await stream.next()
        async with open_unit(house.services, FACTS) as unit:
            await auth.end_logins(unit, browser.user_id, "ended_by_admin")
        assert await stream.next() == Told("end", None, {"reason": "invalid_token"})


async def test_stream_ends_when_the_account_is_disabled(house: House) -> None:
    browser = await house.person("reader")
    async with browser.listening() as stream:
        await stream.next()
        async with open_unit(house.services, FACTS) as unit:
            await unit.session.execute(sa.update(UserAccount).values(is_active=False))
        assert await stream.next() == Told("end", None, {"reason": "inactive_user"})


async def test_trouble_ends_the_stream_and_never_looks_like_nothing(house: House) -> None:
    browser = await house.person("reader")
    async with browser.listening() as stream:
        await stream.next()
        house.failure = OperationalError("SELECT", {}, Exception("away"))
        await house.message()
        assert await stream.next() == Told("end", None, {"reason": "unavailable"})


async def test_heartbeats_keep_an_idle_stream_alive_and_no_connection_is_held(house: House) -> None:
    browser = await house.person("reader")
    async with browser.listening() as stream:
        await stream.next()
        pool = house.services.database.engine.pool
        async with asyncio.timeout(2):
            # Others look into the database now and then; the stream would hold on to its connection all the time.
            while pool.checkedout():  # type: ignore[attr-defined] # noqa: ASYNC110 - a pool tells nobody
                await asyncio.sleep(0.01)
        assert await stream.is_silent(0.6)
        assert stream.heartbeats >= 1


async def test_event_of_another_process_is_told_without_being_called(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LOOK_SECONDS", 0.1)
    browser = await house.person("reader")
    house.readers[7] = {"reader"}
    other_process = dataclasses.replace(house.services, signals=InProcessSignals())
    async with browser.listening() as stream:
        await stream.next()
        await house.publish(LiveEvent("message", PATIENT, ConversationId(7)), services=other_process)
        told = await stream.next()
        assert told is not None
        assert told.number == 1


async def test_events_that_come_thick_and_fast_are_all_told_in_order(house: House) -> None:
    browsers = [await house.person(f"reader{number}") for number in range(3)]
    house.readers[7] = {"reader0", "reader1", "reader2"}

    async def numbers(stream: object) -> list[int]:
        return [(await stream.next()).number for _ in range(60)]  # type: ignore[attr-defined]

    async with browsers[0].listening() as a, browsers[1].listening() as b, browsers[2].listening() as c:
        for stream in (a, b, c):
            await stream.next()
        async with asyncio.TaskGroup() as group:
            told = [group.create_task(numbers(stream)) for stream in (a, b, c)]
            for first in range(0, 60, 6):
                await asyncio.gather(*(house.message(7, first + step) for step in range(6)))
    assert [task.result() for task in told] == [list(range(1, 61))] * 3


async def test_stranger_malformed_number_and_unknown_query_are_refused(house: House) -> None:
    stranger = house.new_client()
    answer = await stranger.get("/api/events")
    assert (answer.status_code, answer.json()["detail"]) == (401, "Not authenticated")
    client = (await house.person("reader")).client
    for wrong in ("x", "-1", "1.5", "9" * 19, "\u0663".encode()):
        headers = [(b"Last-Event-ID", wrong if isinstance(wrong, bytes) else wrong.encode())]
        assert (await client.get("/api/events", headers=headers)).status_code == 422
    assert (await client.get("/api/events?patient_id=1")).status_code == 422


async def test_one_person_cannot_open_streams_without_end(house: House) -> None:
    browser = await house.person("reader")
    async with asyncio.TaskGroup() as group:
        may_close, opened = asyncio.Event(), asyncio.Semaphore(0)

        async def hold() -> None:
            async with browser.listening() as stream:
                await stream.next()
                opened.release()
                await may_close.wait()

        for _ in range(STREAMS_PER_PERSON):
            group.create_task(hold())
        for _ in range(STREAMS_PER_PERSON):
            await opened.acquire()
        answer = await browser.client.get("/api/events")
        assert (answer.status_code, answer.json()["error_code"]) == (429, "too_many_requests")
        assert int(answer.headers["Retry-After"]) > 0
        may_close.set()
    async with asyncio.timeout(3):
        while house.app.state.streaming.feed._listeners:  # noqa: ASYNC110 - closed browsers are noticed soon
            await asyncio.sleep(0.02)
    async with browser.listening() as stream:
        assert await stream.next() is not None


async def test_listener_that_does_not_keep_up_is_let_go() -> None:
    listener = Listener()
    listener.offer([KeptEvent(number, LETTER) for number in range(ROOM)])
    assert listener.end_reason is None
    listener.offer([KeptEvent(ROOM, LETTER)])
    assert listener.end_reason == "too_slow"


async def test_browser_that_does_not_read_is_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "SEND_SECONDS", 0.1)
    browser = await house.person("reader")
    token = browser.client.cookies["access_token"]
    response = EventStream(house.app.state.streaming, browser.user_id, token, None)
    never = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await never.wait()

    await asyncio.wait_for(response({"type": "http"}, receive, send), 2)
    assert not house.app.state.streaming.feed._listeners


async def test_server_told_to_terminate_ends_open_streams_instead_of_waiting_for_them(settings: Settings) -> None:
    received: list[int] = []
    # The server puts this back when it has stopped, and then raises what it was told once more.
    earlier = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        house = House(settings)
        await house.start()
        browser = await house.person("reader")
        async with browser.listening() as stream:
            await stream.next()
            signal.raise_signal(signal.SIGTERM)
            assert await stream.next() == Told("end", None, {"reason": "stopping"})
            assert await stream.next() is None
        await house.stop()
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert received == [signal.SIGTERM]
