"""Whatever happens between announcing a write and answering its caller, the record is there once or not at all.

The kind of record is a note; its store is a dictionary behind a line, so that each step can be cut.
"""

import asyncio
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Actor, Level
from quill.app import build_services
from quill.audit import service as audit
from quill.audit.models import AuditEvent
from quill.audit.service import Act
from quill.errors import (
    FhirRefused,
    FhirUnavailable,
    IdempotencyKeyReused,
    InvalidRecord,
    QuillError,
    RequestInProgress,
    StaleEdit,
)
from quill.intents import service as intents
from quill.intents.models import Intent, IntentClaim
from quill.intents.service import Wish
from quill.kit import clock, ids
from quill.kit.documents import Document
from quill.kit.ids import UserId
from quill.settings import Settings
from quill.unit import RequestFacts, Services, Unit, open_unit
from tests.remote_like import Line, sweep_after_leases_ran_out

pytestmark = pytest.mark.anyio

ANNE = Actor(user_id=UserId(1), name="anne", display_name="Anne", level=Level.STAFF)
BERT = Actor(user_id=UserId(2), name="bert", display_name="Bert", level=Level.STAFF)


class Crash(BaseException):
    """The process ends here."""


class NoteKind:
    """Notes: ``store`` is what is kept elsewhere, ``projected`` what our own database would show."""

    name = "note"

    def __init__(self, *, joins: bool = False) -> None:
        self.joins = joins
        self.line = Line()
        self.store: dict[str, str] = {}
        self.projected: list[str] = []

    def joins_transaction(self, unit: Unit) -> bool:
        del unit
        return self.joins

    async def write(self, unit: Unit, payload: Document) -> Document:
        assert self.joins or not unit.session.in_transaction()

        async def put() -> Document:
            self.store[payload["id"]] = payload["text"]
            return {"version": 1}

        return await self.line.carry("write", put)

    async def has_landed(self, unit: Unit, payload: Document) -> Document | bool:
        assert self.joins or not unit.session.in_transaction()

        async def look() -> Document | bool:
            return {"version": 1} if self.store.get(payload["id"]) == payload["text"] else False

        return await self.line.carry("has_landed", look)

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        async def note() -> Document:
            self.projected.append(payload["id"])
            audit.record(unit, actor, Act.LETTER_WRITE, subject=f"note:{payload['id']}")
            return {"id": payload["id"], "version": payload["written"]["version"]}

        return await self.line.carry("project", note)


class Desk:
    """Where people hand notes in."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.kind = NoteKind()

    async def hand_in(
        self, text: str = "a", key: str | None = None, *, actor: Actor = ANNE, claims: tuple[str, ...] = ()
    ) -> Document:
        """Do what a service function does with a note."""
        async with open_unit(self.services, RequestFacts("request", "test")) as unit:
            digest = intents.fingerprint("note", text)
            result = await intents.find_result(unit, actor, key, digest)
            if result is not None:
                return result
            payload = {"id": ids.new_uuid(), "text": text}
            wish = Wish(self.kind, payload, claims=claims, idempotency_key=key, fingerprint=digest)
            return await intents.perform(unit, actor, wish)

    async def sweep(self) -> int:
        return await intents.sweep(self.services, {"note": self.kind})

    async def sweep_later(self) -> int:
        return await sweep_after_leases_ran_out(self.services, {"note": self.kind})

    async def states(self) -> list[str]:
        async with self.services.database.reading() as session:
            return list(await session.scalars(sa.select(Intent.state).order_by(Intent.id)))

    async def the_intent(self) -> Intent:
        async with self.services.database.reading() as session:
            return (await session.scalars(sa.select(Intent))).one()

    async def claims(self) -> list[str]:
        async with self.services.database.reading() as session:
            return list(await session.scalars(sa.select(IntentClaim.name)))

    async def trail(self) -> list[tuple[str, str, str]]:
        columns = (AuditEvent.act, AuditEvent.outcome, AuditEvent.actor_name)
        async with self.services.database.reading() as session:
            return [(row[0], row[1], row[2]) for row in await session.execute(sa.select(*columns))]

    async def change(self, **values: Any) -> None:
        async with self.services.database.writing() as session:
            await session.execute(sa.update(Intent).values(**values))


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    services = build_services(settings)
    yield Desk(services)
    await services.recorder.stop()
    await services.database.dispose()


@pytest.fixture(params=["embedded", "remote"])
async def any_desk(desk: Desk, request: pytest.FixtureRequest) -> Desk:
    desk.kind.joins = request.param == "embedded"
    return desk


def failing(trouble: type[BaseException]) -> Callable[[], Awaitable[None]]:
    async def happening() -> None:
        raise trouble

    return happening


async def test_repeated_call_is_answered_with_the_first_result(any_desk: Desk) -> None:
    first = await any_desk.hand_in("a", "key")
    assert await any_desk.hand_in("a", "key") == first
    assert list(any_desk.kind.store) == any_desk.kind.projected == [first["id"]]


async def test_calls_without_a_key_are_calls_of_their_own(any_desk: Desk) -> None:
    assert await any_desk.hand_in("a") != await any_desk.hand_in("a")
    assert len(any_desk.kind.store) == 2


async def test_key_used_for_something_else_is_refused(any_desk: Desk) -> None:
    await any_desk.hand_in("a", "key")
    with pytest.raises(IdempotencyKeyReused):
        await any_desk.hand_in("b", "key")
    assert list(any_desk.kind.store.values()) == ["a"]


async def test_same_key_of_two_people_is_two_keys(any_desk: Desk) -> None:
    first = await any_desk.hand_in("a", "key", actor=ANNE)
    second = await any_desk.hand_in("b", "key", actor=BERT)
    assert first["id"] != second["id"]
    assert await any_desk.hand_in("a", "key", actor=ANNE) == first
    assert await any_desk.hand_in("b", "key", actor=BERT) == second


async def test_calls_side_by_side_with_one_key_write_once(any_desk: Desk) -> None:
    answers = await asyncio.gather(*(any_desk.hand_in("a", "key") for _ in range(5)), return_exceptions=True)
    results = [answer for answer in answers if isinstance(answer, dict)]
    assert results
    assert all(result == results[0] for result in results)
    assert all(isinstance(answer, dict | RequestInProgress) for answer in answers)
    assert len(any_desk.kind.store) == len(any_desk.kind.projected) == 1
    assert await any_desk.hand_in("a", "key") == results[0]


async def test_closed_intent_keeps_no_copy_and_no_claim(desk: Desk) -> None:
    await desk.hand_in("a", "key", claims=("name:a",))
    intent = await desk.the_intent()
    assert (intent.state, intent.payload) == ("done", None)
    assert await desk.claims() == []


async def test_claim_lets_one_of_two_writers_through(desk: Desk) -> None:
    async def second_comes_in_between() -> None:
        with pytest.raises(RequestInProgress):
            await desk.hand_in("b", claims=("name:x", "name:y"))

    desk.kind.line.before_next("write", second_comes_in_between)
    await desk.hand_in("a", claims=("name:x",))
    assert list(desk.kind.store.values()) == ["a"]
    await desk.hand_in("b", claims=("name:x", "name:y"))
    assert list(desk.kind.store.values()) == ["a", "b"]


@pytest.mark.parametrize("error", [InvalidRecord, StaleEdit])
async def test_refusal_of_the_store_frees_key_and_claim(any_desk: Desk, error: type[QuillError]) -> None:
    any_desk.kind.line.refuse_next("write", error)
    with pytest.raises(error):
        await any_desk.hand_in("a", "key", claims=("name:a",))
    assert await any_desk.claims() == []
    assert any_desk.kind.projected == []
    # What came to nothing does not bind: the key may be used for the corrected record.
    assert (await any_desk.hand_in("b", "key", claims=("name:a",)))["id"] in any_desk.kind.store
    assert await any_desk.sweep_later() == 0
    assert list(any_desk.kind.store.values()) == ["b"]


@pytest.mark.parametrize("moment", ["before the write", "after the write", "while projecting", "after projecting"])
async def test_sweep_finishes_what_a_crash_left(desk: Desk, moment: str) -> None:
    when, method = {
        "before the write": (desk.kind.line.before_next, "write"),
        "after the write": (desk.kind.line.after_next, "write"),
        "while projecting": (desk.kind.line.before_next, "project"),
        "after projecting": (desk.kind.line.after_next, "project"),
    }[moment]
    when(method, failing(Crash))
    with pytest.raises(Crash):
        await desk.hand_in("a", "key", claims=("name:a",))
    desk.kind.projected.clear()  # its transaction went with the process

    assert await desk.sweep() == 0, "a live owner would have been robbed"
    assert await desk.sweep_later() == 1
    assert await desk.sweep_later() == 0
    (note_id,) = desk.kind.store
    assert desk.kind.projected == [note_id]
    assert desk.kind.line.count("write") == (2 if moment == "before the write" else 1)
    assert await desk.hand_in("a", "key") == {"id": note_id, "version": 1}
    assert (await desk.the_intent()).payload is None
    assert await desk.claims() == []
    assert sorted(await desk.trail()) == [("intent:sweep", "allowed", "anne"), ("letter:write", "allowed", "anne")]


async def test_caller_who_comes_back_after_a_crash_need_not_wait_for_the_sweep(desk: Desk) -> None:
    desk.kind.line.after_next("write", failing(Crash))
    with pytest.raises(Crash):
        await desk.hand_in("a", "key")
    with pytest.raises(RequestInProgress):
        await desk.hand_in("a", "key")
    await desk.change(lease_until=clock.now() - datetime.timedelta(seconds=1))
    result = await desk.hand_in("a", "key")
    assert list(desk.kind.store) == desk.kind.projected == [result["id"]]
    assert desk.kind.line.count("write") == 1


async def test_caller_who_hangs_up_leaves_a_whole_record(desk: Desk) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def take_long() -> None:
        reached.set()
        await never.wait()

    desk.kind.line.after_next("write", take_long)
    call = asyncio.create_task(desk.hand_in("a", "key"))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await desk.sweep_later() == 1
    assert list(desk.kind.store) == desk.kind.projected
    assert await desk.states() == ["done"]


@pytest.mark.parametrize("error", [FhirUnavailable, FhirRefused, ZeroDivisionError])
async def test_write_that_arrived_without_an_answer_is_found_by_the_sweep(desk: Desk, error: type[Exception]) -> None:
    desk.kind.line.lose_next("write", error)
    with pytest.raises(error):
        await desk.hand_in("a", "key")
    assert desk.kind.projected == []
    assert await desk.sweep_later() == 1
    assert desk.kind.projected == list(desk.kind.store)
    assert desk.kind.line.count("write") == 1
    assert (await desk.hand_in("a", "key"))["id"] in desk.kind.store


@pytest.mark.parametrize("error", [FhirUnavailable, FhirRefused, ZeroDivisionError])
async def test_write_that_never_arrived_is_abandoned_and_not_repeated(desk: Desk, error: type[Exception]) -> None:
    desk.kind.line.refuse_next("write", error)
    with pytest.raises(error):
        await desk.hand_in("a", "key", claims=("name:a",))
    assert await desk.sweep() == 0, "the store may still be at work on it"
    assert await desk.sweep_later() == 1
    assert (desk.kind.store, desk.kind.projected, await desk.claims()) == ({}, [], [])
    intent = await desk.the_intent()
    assert (intent.state, intent.payload) == ("abandoned", None)
    assert ("intent:refuse", "failed", "anne") in await desk.trail()
    assert (await desk.hand_in("b", "key"))["id"] in desk.kind.store


@pytest.mark.parametrize("has_arrived", [True, False])
async def test_retry_after_an_outage_takes_the_open_intent_over(desk: Desk, has_arrived: bool) -> None:
    """The key is never blocked, and what arrived the first time is not there twice."""
    lose = desk.kind.line.lose_next if has_arrived else desk.kind.line.refuse_next
    lose("write", FhirUnavailable)
    with pytest.raises(FhirUnavailable):
        await desk.hand_in("a", "key", claims=("name:a",))
    desk.kind.line.cut(FhirUnavailable)
    with pytest.raises(FhirUnavailable):
        await desk.hand_in("a", "key", claims=("name:a",))
    desk.kind.line.mend()
    with pytest.raises(IdempotencyKeyReused):
        await desk.hand_in("b", "key")

    result = await desk.hand_in("a", "key", claims=("name:a",))
    assert list(desk.kind.store) == desk.kind.projected == [result["id"]]
    assert await desk.states() == ["done"]
    assert await desk.sweep_later() == 0


async def test_retry_and_sweep_at_once_do_not_undo_one_another(desk: Desk) -> None:
    desk.kind.line.refuse_next("write", FhirUnavailable)
    with pytest.raises(FhirUnavailable):
        await desk.hand_in("a", "key", claims=("name:a",))
    results = []

    async def caller_comes_back() -> None:
        results.append(await desk.hand_in("a", "key", claims=("name:a",)))

    # The sweep has just heard that nothing is there, and now the caller writes it.
    desk.kind.line.after_next("has_landed", caller_comes_back)
    await desk.sweep_later()
    assert await desk.states() == ["done"]
    assert await desk.hand_in("a", "key") == results[0]
    assert list(desk.kind.store) == desk.kind.projected == [results[0]["id"]]


async def test_two_sweeps_finish_an_intent_once(desk: Desk) -> None:
    for text in "abc":
        desk.kind.line.after_next("write", failing(Crash))
        with pytest.raises(Crash):
            await desk.hand_in(text)
    await desk.change(lease_until=clock.now() - datetime.timedelta(seconds=1))
    counts = await asyncio.gather(desk.sweep(), desk.sweep(), desk.sweep())
    assert sum(counts) == 3
    assert sorted(desk.kind.projected) == sorted(desk.kind.store)


async def test_owner_slower_than_its_lease_is_answered_with_what_the_sweep_did(desk: Desk) -> None:
    async def sweep_thinks_it_dead() -> None:
        assert await desk.sweep_later() == 1

    desk.kind.line.after_next("write", sweep_thinks_it_dead)
    result = await desk.hand_in("a", "key")
    assert list(desk.kind.store) == desk.kind.projected == [result["id"]]
    assert await desk.states() == ["done"]


async def test_refusal_that_comes_late_does_not_reopen_what_is_done(desk: Desk) -> None:
    async def sweep_thinks_it_dead_and_is_refused() -> None:
        desk.kind.line.before_next("write", failing(StaleEdit))
        desk.kind.line.after_next("has_landed", owner_wins)
        assert await desk.sweep_later() == 0

    async def owner_wins() -> None:
        await desk.change(state="done", payload=None, result='{"id":"x","version":1}', closed_at=clock.now())

    desk.kind.line.before_next("write", sweep_thinks_it_dead_and_is_refused)
    assert await desk.hand_in("a", "key") == {"id": "x", "version": 1}
    assert await desk.states() == ["done"]


async def test_failed_projection_shows_nothing_and_is_done_again(desk: Desk) -> None:
    desk.kind.line.refuse_next("project", ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        await desk.hand_in("a", "key")
    assert await desk.trail() == []
    assert await desk.sweep_later() == 1
    assert desk.kind.projected == list(desk.kind.store)


async def test_sweep_waits_for_a_store_that_is_away(desk: Desk) -> None:
    desk.kind.line.before_next("write", failing(Crash))
    with pytest.raises(Crash):
        await desk.hand_in("a")
    await desk.change(created_at=clock.now() - datetime.timedelta(days=9))
    desk.kind.line.cut(FhirUnavailable)
    assert await desk.sweep_later() == 0
    assert await desk.states() == ["pending"]
    desk.kind.line.mend()
    assert await desk.sweep_later() == 1
    assert desk.kind.projected == list(desk.kind.store)


async def test_intent_that_cannot_be_finished_keeps_no_other_waiting_and_ends(desk: Desk) -> None:
    for text in "ab":
        desk.kind.line.after_next("write", failing(Crash))
        with pytest.raises(Crash):
            await desk.hand_in(text, f"key-{text}", claims=(f"name:{text}",))
    desk.kind.line.refuse_next("project", ZeroDivisionError)
    assert await desk.sweep_later() == 1
    assert sorted(await desk.states()) == ["done", "pending"]
    await desk.change(created_at=clock.now() - datetime.timedelta(days=2))
    desk.kind.line.refuse_next("project", ZeroDivisionError)
    assert await desk.sweep_later() == 1
    assert sorted(await desk.states()) == ["done", "refused"]
    assert await desk.claims() == []


async def test_closed_intents_are_forgotten_after_a_week(desk: Desk) -> None:
    first = await desk.hand_in("a", "key")
    await desk.change(closed_at=clock.now() - datetime.timedelta(days=6))
    await desk.sweep()
    assert await desk.hand_in("a", "key") == first
    await desk.change(closed_at=clock.now() - datetime.timedelta(days=8))
    await desk.sweep()
    assert await desk.states() == []
