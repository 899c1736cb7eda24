"""The queue: nothing acknowledged is lost, nothing that was rolled back goes out, and nobody is told twice in vain."""

import asyncio
import dataclasses
import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit import clock
from quill.kit.ids import PatientId, UserId
from quill.outbox import queries, service, worker
from quill.outbox.delivery import Settlement, Task
from quill.outbox.models import OutboxEntry
from quill.outbox.worker import Worker
from quill.ports.delivery import Delivery
from quill.unit import Services, Unit, open_unit
from tests.outbox.conftest import FACTS, FakeTime, InUnit, ScriptedCarrier, entries

pytestmark = pytest.mark.anyio


async def a_mail(unit: Unit) -> None:
    await service.enqueue_mail(unit, to="pat@example.org", template="password-changed", facts={})


async def test_entry_is_kept_with_the_transaction_that_caused_it(services: Services, in_unit: InUnit) -> None:
    await in_unit(a_mail)
    (entry,) = await entries(services)
    assert (entry["state"], entry["channel"], entry["attempts"]) == ("pending", "mail", 0)


async def test_nothing_goes_out_when_the_transaction_is_rolled_back(services: Services, in_unit: InUnit) -> None:
    async def fail(unit: Unit) -> None:
        await a_mail(unit)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await in_unit(fail)
    assert await entries(services) == []


async def test_delivered_entry_is_emptied_and_not_delivered_again(services: Services, in_unit: InUnit) -> None:
    await in_unit(a_mail)
    carrier = ScriptedCarrier()
    drained = Worker(services, {"mail": carrier})
    assert await drained.drain() == 1
    assert await drained.drain() == 0
    (entry,) = await entries(services)
    assert (entry["state"], entry["payload"], entry["last_error"]) == ("sent", None, None)
    assert carrier.tasks[0].payload["to"] == "pat@example.org"


async def test_failed_attempt_is_repeated_after_growing_pauses_under_the_same_id(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    await in_unit(a_mail)
    carrier = ScriptedCarrier(Delivery.retry("smtp_451"), Delivery.retry("smtp_451"))
    drained = Worker(services, {"mail": carrier})
    await drained.drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"]) == ("pending", "smtp_451")
    assert await drained.drain() == 0
    fake_time.pass_by(seconds=worker.FIRST_PAUSE_SECONDS)
    assert await drained.drain() == 1
    fake_time.pass_by(seconds=2 * worker.FIRST_PAUSE_SECONDS)
    assert await drained.drain() == 1
    assert {task.id for task in carrier.tasks} == {entry["id"]}
    assert (await entries(services))[0]["state"] == "sent"


def test_pauses_double_up_to_a_limit_and_are_spread() -> None:
    assert {worker.pause_seconds(1) for _ in range(20)} != {worker.pause_seconds(1)}
    for attempts in range(1, 60):
        longest = min(worker.LONGEST_PAUSE_SECONDS, worker.FIRST_PAUSE_SECONDS * 2 ** (attempts - 1))
        assert longest / 2 <= worker.pause_seconds(attempts) <= longest


async def test_pause_asked_for_by_the_other_side_is_kept(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    await in_unit(a_mail)
    drained = Worker(services, {"mail": ScriptedCarrier(Delivery.retry("push_429", 600))})
    await drained.drain()
    fake_time.pass_by(seconds=590)
    assert await drained.drain() == 0
    fake_time.pass_by(seconds=15)
    assert await drained.drain() == 1


async def test_hopeless_entry_is_given_up_at_once_and_emptied(services: Services, in_unit: InUnit) -> None:
    await in_unit(a_mail)
    await Worker(services, {"mail": ScriptedCarrier(Delivery.refused("recipient_refused"))}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"], entry["payload"]) == ("failed", "recipient_refused", None)


async def test_entry_that_has_become_too_old_is_not_sent(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    await in_unit(a_mail)
    fake_time.pass_by(days=4)
    carrier = ScriptedCarrier()
    await Worker(services, {"mail": carrier}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"], carrier.tasks) == ("failed", "too_old", [])


async def test_link_in_a_mail_is_not_kept_longer_than_it_works(services: Services, in_unit: InUnit) -> None:
    async def reset(unit: Unit) -> None:
        await service.enqueue_mail(
            unit, to="pat@example.org", template="password-reset", facts={"link": "https://quill.example/r?token=x"}
        )

    await in_unit(reset)
    (entry,) = await entries(services)
    assert entry["give_up_at"] - entry["created_at"] == datetime.timedelta(minutes=30)


async def test_entry_of_a_worker_that_died_is_delivered_by_another(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    await in_unit(a_mail)
    dead = Worker(services, {"mail": ScriptedCarrier()})
    assert len(await dead._take(1)) == 1  # and here the process is killed
    carrier = ScriptedCarrier()
    other = Worker(services, {"mail": carrier})
    assert await other.drain() == 0
    fake_time.pass_by(seconds=worker.LEASE.total_seconds() + 1)
    assert await other.drain() == 1
    (entry,) = await entries(services)
    assert (entry["state"], entry["attempts"]) == ("sent", 2)


async def test_worker_that_lost_its_lease_does_not_undo_what_the_other_did(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    await in_unit(a_mail)
    slow = Worker(services, {"mail": ScriptedCarrier()})
    (taken,) = await slow._take(1)
    fake_time.pass_by(seconds=worker.LEASE.total_seconds() + 1)
    await Worker(services, {"mail": ScriptedCarrier()}).drain()
    await slow._settle(taken, Settlement(Delivery.refused("content_refused")))
    assert (await entries(services))[0]["state"] == "sent"


async def test_two_workers_never_take_the_same_entry(services: Services, in_unit: InUnit) -> None:
    async def many(unit: Unit) -> None:
        for _ in range(20):
            await a_mail(unit)

    await in_unit(many)
    first, second = ScriptedCarrier(), ScriptedCarrier()
    await asyncio.gather(Worker(services, {"mail": first}).drain(), Worker(services, {"mail": second}).drain())
    delivered = [task.id for task in (*first.tasks, *second.tasks)]
    assert len(delivered) == len(set(delivered)) == 20


async def test_attempt_that_breaks_unforeseen_is_repeated(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    await in_unit(a_mail)
    drained = Worker(services, {"mail": ScriptedCarrier(KeyError("pat@example.org"))})
    await drained.drain()
    assert (await entries(services))[0]["last_error"] == "unforeseen"
    fake_time.pass_by(seconds=60)
    await drained.drain()
    assert (await entries(services))[0]["state"] == "sent"


async def test_running_worker_is_woken_by_the_commit_and_stops_when_told(
    services: Services, in_unit: InUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 30.0)
    delivered = asyncio.Event()

    class Carrier(ScriptedCarrier):
        async def deliver(self, task: Task) -> Settlement:
            delivered.set()
            return await super().deliver(task)

    running = Worker(services, {"mail": Carrier()})
    task = asyncio.create_task(running.run())
    await asyncio.sleep(0.05)
    await in_unit(a_mail)
    await asyncio.wait_for(delivered.wait(), 2)
    await running.stop()
    await asyncio.wait_for(task, 2)
    assert (await entries(services))[0]["state"] == "sent"


async def test_stopping_lets_a_delivery_end(services: Services, in_unit: InUnit) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    class Carrier(ScriptedCarrier):
        async def deliver(self, task: Task) -> Settlement:
            begun.set()
            await may_end.wait()
            return await super().deliver(task)

    await in_unit(a_mail)
    running = Worker(services, {"mail": Carrier()})
    task = asyncio.create_task(running.run())
    await asyncio.wait_for(begun.wait(), 2)
    stopping = asyncio.create_task(running.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    may_end.set()
    await asyncio.wait_for(asyncio.gather(stopping, task), 2)
    assert (await entries(services))[0]["state"] == "sent"


async def test_stopping_waits_for_what_is_being_taken_at_that_moment(
    services: Services, in_unit: InUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking, may_take = asyncio.Event(), asyncio.Event()
    take_due = queries.take_due

    async def slowly(session: AsyncSession, now: datetime.datetime, leased_until: datetime.datetime, limit: int) -> Any:
        taking.set()
        await may_take.wait()
        return await take_due(session, now, leased_until, limit)

    monkeypatch.setattr(queries, "take_due", slowly)
    await in_unit(a_mail)
    running = Worker(services, {"mail": ScriptedCarrier()})
    task = asyncio.create_task(running.run(), name="the worker")
    await asyncio.wait_for(taking.wait(), 2)
    stopping = asyncio.create_task(running.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    may_take.set()
    await asyncio.wait_for(asyncio.gather(stopping, task), 2)
    assert (await entries(services))[0]["state"] == "sent"
    assert "outbox-delivery" not in {each.get_name() for each in asyncio.all_tasks()}


async def test_slow_delivery_does_not_hold_up_the_others(services: Services, in_unit: InUnit) -> None:
    may_end, others = asyncio.Event(), asyncio.Event()

    class Carrier(ScriptedCarrier):
        async def deliver(self, task: Task) -> Settlement:
            settlement = await super().deliver(task)
            if len(self.tasks) == 1:
                await may_end.wait()
            elif len(self.tasks) == 20:
                others.set()
            return settlement

    async def many(unit: Unit) -> None:
        for _ in range(20):
            await a_mail(unit)

    await in_unit(many)
    running = Worker(services, {"mail": Carrier()})
    task = asyncio.create_task(running.run())
    await asyncio.wait_for(others.wait(), 5)
    may_end.set()
    await running.stop()
    await task


async def test_old_entries_and_events_are_forgotten_but_counting_goes_on(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    async def events(unit: Unit) -> None:
        await a_mail(unit)
        for _ in range(3):
            await service.publish(unit, service.LiveEvent("letter", PatientId("p1")))

    await in_unit(events)
    tidied = Worker(services, {"mail": ScriptedCarrier()})
    await tidied.drain()
    await tidied.tidy()
    async with services.database.reading() as session:
        assert await service.event_bounds(session) == (1, 3)
    fake_time.pass_by(days=8)
    await tidied.tidy()
    assert await entries(services) == []
    async with services.database.reading() as session:
        assert await service.event_bounds(session) == (3, 3)
    await in_unit(events)
    await service.number_events(services.database)
    async with services.database.reading() as session:
        assert (await service.event_bounds(session))[1] == 6


async def test_event_of_a_transaction_rolled_back_is_never_told(services: Services, in_unit: InUnit) -> None:
    async def fail(unit: Unit) -> None:
        await service.publish(unit, service.LiveEvent("letter", PatientId("p1")))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await in_unit(fail)
    async with services.database.reading() as session:
        assert await service.event_bounds(session) == (0, 0)


@pytest.mark.parametrize(
    ("template", "facts"),
    [("no-such", {}), ("invite", {}), ("invite", {"link": "javascript:alert(1)"}), ("password-reset", {"link": ""})],
)
async def test_mail_that_could_not_be_written_is_refused_where_it_is_caused(
    services: Services, template: str, facts: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"template|link"):
        async with open_unit(services, FACTS) as unit:
            await service.enqueue_mail(unit, to="pat@example.org", template=template, facts=facts)
    assert await entries(services) == []


async def test_notification_that_could_not_be_written_is_refused_where_it_is_caused(services: Services) -> None:
    with pytest.raises(ValueError, match="conversation_id"):
        async with open_unit(services, FACTS) as unit:
            await service.enqueue_push(unit, user_ids=[UserId(1)], kind="message", facts={})


async def test_looking_for_work_takes_no_transaction_while_there_is_none(services: Services) -> None:
    async with services.database.reading() as session:
        assert not await queries.has_due(session, clock.now())


LINK = "https://quill.example.org/reset-password?token=not-for-others"


async def a_link(unit: Unit) -> None:
    await service.enqueue_mail(unit, to="pat@example.org", template="password-reset", facts={"link": LINK})


def keyed(services: Services, key: str, previous: str | None = None) -> Services:
    """Return the services as a program with other keys has them."""
    keys = {"secret_key": SecretStr(key), "previous_secret_key": SecretStr(previous) if previous else None}
    return dataclasses.replace(services, settings=services.settings.model_copy(update=keys))


async def test_waiting_mail_shows_neither_link_nor_address_and_leaves_nothing_behind(
    services: Services, in_unit: InUnit
) -> None:
    await in_unit(a_link)
    (waiting,) = await entries(services)
    assert not any(word in str(waiting) for word in ("not-for-others", "reset-password", "pat@example.org"))
    carrier = ScriptedCarrier()
    await Worker(services, {"mail": carrier}).drain()
    assert carrier.tasks[0].payload["facts"]["link"] == LINK
    assert (await entries(services))[0]["payload"] is None


async def test_mail_given_up_leaves_nothing_behind(services: Services, in_unit: InUnit) -> None:
    await in_unit(a_link)
    await Worker(services, {"mail": ScriptedCarrier(Delivery.refused("smtp_550"))}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["payload"]) == ("failed", None)


async def test_mail_waits_for_its_key_and_goes_out_under_the_previous_one(
    services: Services, in_unit: InUnit, fake_time: FakeTime
) -> None:
    await in_unit(a_link)
    old = services.settings.signing_key()
    carrier = ScriptedCarrier()
    await Worker(keyed(services, "k" * 40), {"mail": carrier}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"], carrier.tasks) == ("pending", "cannot_unseal", [])
    fake_time.pass_by(seconds=worker.FIRST_PAUSE_SECONDS)
    await Worker(keyed(services, "k" * 40, old), {"mail": carrier}).drain()
    assert carrier.tasks[0].payload["facts"]["link"] == LINK


async def test_sealed_mail_does_not_open_in_another_entry(services: Services, in_unit: InUnit) -> None:
    await in_unit(a_link)
    await in_unit(a_mail)
    (first, second) = await entries(services)
    async with services.database.writing() as session:
        moved = sa.update(OutboxEntry).where(OutboxEntry.id == second["id"]).values(payload=first["payload"])
        await session.execute(moved)
    carrier = ScriptedCarrier()
    await Worker(services, {"mail": carrier}).drain()
    assert [task.id for task in carrier.tasks] == [first["id"]]


async def test_entries_that_end_alike_are_closed_with_one_statement_and_those_taken_by_another_stay(
    services: Services, in_unit: InUnit, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def many(unit: Unit) -> None:
        for _ in range(6):
            await a_mail(unit)

    await in_unit(many)
    slow = Worker(services, {"mail": ScriptedCarrier()})
    taken = await slow._take(6)
    fake_time.pass_by(seconds=worker.LEASE.total_seconds() + 1)
    other = Worker(services, {"mail": ScriptedCarrier(Delivery.retry("smtp_451"))})
    (again,) = await other._take(1)
    closings, close = [], queries.close

    async def counted(session: AsyncSession, entry_ids: Any, attempt: int, **how: Any) -> set[str]:
        closings.append(await close(session, entry_ids, attempt, **how))
        return closings[-1]

    monkeypatch.setattr(queries, "close", counted)
    *_, refused = (entry for entry in taken if entry.id != again.id)
    ends = [Delivery.refused("gone") if entry is refused else Delivery.delivered() for entry in taken]
    await asyncio.gather(*(slow._settle(*each) for each in zip(taken, map(Settlement, ends), strict=True)))
    assert len(closings) == 2
    states = {entry["id"]: entry["state"] for entry in await entries(services)}
    assert (states.pop(again.id), states.pop(refused.id)) == ("pending", "failed")
    assert list(states.values()) == ["sent"] * 4
