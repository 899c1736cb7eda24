"""Work in the background that two processes do at once: done once, and none of it lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quill.app import build_services
from quill.audit.seals import Sealer
from quill.audit.verify import verify
from quill.events import feed as feeds
from quill.kit.ids import ConversationId
from quill.outbox import service as outbox
from quill.outbox.delivery import Settlement, Task
from quill.outbox.service import LiveEvent
from quill.outbox.worker import Worker
from quill.ports.delivery import Delivery
from quill.settings import Settings
from quill.unit import Services, open_unit
from tests.audit.trail import row
from tests.events.conftest import FACTS, PATIENT, House
from tests.intents.test_intents import Crash, Desk
from tests.remote_like import sweep_after_leases_ran_out

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]


@pytest.fixture
async def both(settings: Settings) -> AsyncIterator[tuple[Services, Services]]:
    """Return the services of two processes."""
    opened = (build_services(settings), build_services(settings))
    yield opened
    for services in opened:
        await services.recorder.stop()
        await services.database.dispose()


@pytest.fixture
async def houses(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[House, House]]:
    """Return two running servers on one database, each looking for the other's events every tenth of a second."""
    monkeypatch.setattr(feeds, "LOOK_SECONDS", 0.1)
    houses = (House(settings), House(settings))
    for house in houses:
        await house.start()
    yield houses
    for house in houses:
        await house.stop()


class CountingCarrier:
    """Delivers slowly enough for the other worker to come by, and counts."""

    def __init__(self) -> None:
        self.delivered: Counter[str] = Counter()

    async def deliver(self, task: Task) -> Settlement:
        self.delivered[task.id] += 1
        await asyncio.sleep(0.001)
        return Settlement(Delivery.delivered())


async def test_two_workers_deliver_each_entry_once(both: tuple[Services, Services]) -> None:
    async with open_unit(both[0], FACTS) as unit:
        for _ in range(40):
            await outbox.enqueue_mail(unit, to="pat@example.org", template="password-changed", facts={})
    carrier = CountingCarrier()
    workers = [Worker(services, {"mail": carrier}) for services in both]
    drained = await asyncio.gather(*(worker.drain() for worker in workers))
    assert sum(drained) == 40
    assert sorted(carrier.delivered.values()) == [1] * 40


async def test_two_sweeps_finish_what_a_crash_left_once(both: tuple[Services, Services]) -> None:
    desk = Desk(both[0])
    for number in range(5):
        desk.kind.line.refuse_next("project", Crash())
        with pytest.raises(Crash):
            await desk.hand_in(f"note {number}")
    kinds = {"note": desk.kind}
    closed = await asyncio.gather(*(sweep_after_leases_ran_out(services, kinds) for services in both))
    assert sum(closed) == 5
    assert sorted(desk.kind.projected) == sorted(desk.kind.store)
    assert await desk.states() == ["done"] * 5


async def test_message_sent_at_one_reaches_a_stream_at_the_other(houses: tuple[House, House]) -> None:
    here, there = houses
    there.readers[7] = {"reader"}
    browser = await there.person("reader")
    async with browser.listening() as stream:
        await stream.next()
        for number in range(1, 4):
            await here.message(7, number)
        told = [await stream.next() for _ in range(3)]
    assert [event.data["message_id"] for event in told if event] == [1, 2, 3]
    assert [event.number for event in told if event] == [1, 2, 3]


async def test_event_that_commits_after_a_newer_one_is_told_too(
    houses: tuple[House, House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL takes ids before the commit: reading on from the highest id would pass over the one that was slow."""
    here, there = houses
    there.readers[7] = {"reader"}
    browser = await there.person("reader")
    written, may_commit = asyncio.Event(), asyncio.Event()

    async def send_slowly() -> None:
        async with open_unit(here.services, FACTS) as unit:
            commit = unit.session.commit

            async def linger() -> None:
                written.set()
                await may_commit.wait()
                await commit()

            monkeypatch.setattr(unit.session, "commit", linger)
            await outbox.publish(unit, LiveEvent("message", PATIENT, ConversationId(7), {"message_id": "1"}))

    async with browser.listening() as stream, asyncio.TaskGroup() as group:
        await stream.next()
        group.create_task(send_slowly())
        await written.wait()
        quick = group.create_task(there.message(7, 2))
        if not here.services.database.is_sqlite:
            first = await stream.next(10)
            assert first is not None
            assert (first.number, first.data["message_id"]) == (1, 2)
        may_commit.set()
        told = [await stream.next() for _ in range(2 if here.services.database.is_sqlite else 1)]
        await quick
    expected = [(1, 1), (2, 2)] if here.services.database.is_sqlite else [(2, 1)]
    assert [(event.number, event.data["message_id"]) for event in told if event] == expected


async def test_events_of_both_are_told_once_each_to_listeners_of_both(houses: tuple[House, House]) -> None:
    for house in houses:
        house.readers[7] = {"reader0", "reader1"}
    browsers = [await house.person(f"reader{number}") for number, house in enumerate(houses)]
    async with browsers[0].listening() as a, browsers[1].listening() as b:
        await a.next()
        await b.next()
        sent = [house.message(7, 10 * step + number) for step in range(10) for number, house in enumerate(houses)]
        await asyncio.gather(*sent)
        told = [[await stream.next() for _ in sent] for stream in (a, b)]
    numbers = [[event.number for event in events if event] for events in told]
    assert numbers == [list(range(1, 21))] * 2
    assert {event.data["message_id"] for event in told[0] if event} == {10 * s + n for s in range(10) for n in (0, 1)}


async def test_two_sealers_make_one_chain(both: tuple[Services, Services], tmp_path: Path) -> None:
    anchor_file = tmp_path / "anchors.log"
    sealers = [Sealer(services.database, anchor_file) for services in both]

    async def write_and_seal(services: Services, sealer: Sealer) -> None:
        for number in range(15):
            await services.recorder.record([row(number)])
            await sealer.seal_pending()

    await asyncio.gather(*(write_and_seal(*pair) for pair in zip(both, sealers, strict=True)))
    await sealers[0].seal_pending()
    report = await verify(both[0].database, anchor_file.read_text().splitlines())
    assert (report.problem, report.event_count, report.unsealed_count) == (None, 30, 0)
    assert report.anchor_count >= report.seal_count
