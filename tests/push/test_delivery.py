"""Notifications from the queue to a device, and to nobody who may no longer be told."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.adapters.push.vapid import Vapid, new_private_key
from quill.adapters.push.webpush import WebPushSender
from quill.app import build_services
from quill.auth.throttle import Throttle
from quill.identity import service as identity
from quill.identity.models import UserAccount
from quill.identity.service import NewPerson
from quill.kit.ids import UserId
from quill.outbox import service as outbox
from quill.outbox.worker import Worker
from quill.push import queries
from quill.push import service as push
from quill.push.delivery import PushCarrier
from quill.push.models import PushSubscription
from quill.settings import Settings
from quill.unit import Services, Unit, open_unit
from tests.outbox.conftest import FACTS, FakeTime, entries
from tests.push.conftest import Browser
from tests.upstreams.push_server import PushService

pytestmark = pytest.mark.anyio


class House:
    """Two people, their devices, a worker, and who may read which conversation."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.sender = WebPushSender(Vapid(new_private_key(), "mailto:a@example.org"), allows_loopback=True)
        self.readers: set[str] = set()
        self.worker = Worker(services, {"push": PushCarrier(services, self.sender, self.may_notify)})

    async def may_notify(self, session: AsyncSession, actor: Actor, facts: Any) -> bool:
        assert await session.scalar(sa.select(1)) == 1
        assert facts["conversation_id"] == "7"
        return actor.name in self.readers

    async def act(self, act: Callable[[Unit], Any]) -> Any:
        async with open_unit(self.services, FACTS) as unit:
            return await act(unit)

    async def person(self, name: str, *browsers: Browser) -> UserId:
        self.readers.add(name)

        async def make(unit: Unit) -> UserId:
            made = NewPerson(username=name, email=f"{name}@example.org", password_hash="x")
            return await identity.create_person(unit, None, made)

        user_id: UserId = await self.act(make)
        for browser in browsers:
            await self._subscribe(user_id, browser)
        return user_id

    async def _subscribe(self, user_id: UserId, browser: Browser) -> None:
        async with self.services.database.reading() as session:
            actor = await identity.find_actor(session, self.services.settings, user_id)
        assert actor is not None
        async with open_unit(self.services, FACTS) as unit:
            await push.subscribe(
                unit,
                actor,
                self.sender,
                Throttle(),
                endpoint=browser.endpoint,
                expires_at_milliseconds=None,
                **browser.subscription["keys"],
            )

    async def announce(self, *user_ids: UserId) -> None:
        await self.act(
            lambda unit: outbox.enqueue_push(unit, user_ids=user_ids, kind="message", facts={"conversation_id": "7"})
        )

    async def devices(self) -> int:
        async with self.services.database.reading() as session:
            return int(await session.scalar(sa.select(sa.func.count()).select_from(PushSubscription)) or 0)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    services = build_services(settings)
    house = House(services)
    yield house
    await house.sender.close()
    await services.recorder.stop()
    await services.database.dispose()


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


async def test_every_device_of_the_people_named_is_told_and_nothing_about_the_patient(
    house: House, push_service: PushService
) -> None:
    browsers = [Browser(f"{push_service.url}/{number}") for number in range(3)]
    first = await house.person("first", *browsers[:2])
    second = await house.person("second", browsers[2])
    await house.person("third", Browser(f"{push_service.url}/third"))
    await house.announce(first, second)
    await house.worker.drain()
    bodies = {received.path: received.body for received in push_service.received}
    assert set(bodies) == {"/0", "/1", "/2"}
    for number, browser in enumerate(browsers):
        assert browser.shown(bodies[f"/{number}"]) == {
            "title": "New message in Quill",
            "body": "Open Quill to read it",
            "data": {"url": "/app/conversations/7"},
        }
    assert {entry["state"] for entry in await entries(house.services)} == {"sent"}


async def test_notifications_looked_up_together_go_to_whom_each_is_for(
    house: House, push_service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, devices_of = [], queries.devices_of

    async def counted(session: AsyncSession, user_ids: Any, now: Any) -> Any:
        looks.append(user_ids)
        return await devices_of(session, user_ids, now)

    monkeypatch.setattr(queries, "devices_of", counted)
    first = await house.person("first", Browser(f"{push_service.url}/first"))
    second = await house.person("second", Browser(f"{push_service.url}/second"))
    for people in ((first,), (second,), (first, second)):
        await house.announce(*people)
    await house.worker.drain()
    assert looks == [[first, second]]
    assert sorted(received.path for received in push_service.received) == ["/first", "/first", "/second", "/second"]


async def test_person_without_a_device_costs_nothing(house: House, push_service: PushService) -> None:
    await house.announce(await house.person("first"))
    assert await house.worker.drain() == 1
    assert push_service.received == []


async def test_only_the_device_that_failed_is_tried_again(
    house: House, push_service: PushService, fake_time: FakeTime
) -> None:
    person = await house.person("first", Browser(f"{push_service.url}/ok"), Browser(f"{push_service.url}/busy"))
    push_service.answer("/busy", 503)
    await house.announce(person)
    await house.worker.drain()
    push_service.answers.clear()
    fake_time.pass_by(minutes=1)
    await house.worker.drain()
    assert sorted(received.path for received in push_service.received) == ["/busy", "/busy", "/ok"]
    assert {entry["state"] for entry in await entries(house.services)} == {"sent"}


@pytest.mark.parametrize("status", [404, 410])
async def test_device_that_no_longer_exists_is_forgotten(house: House, push_service: PushService, status: int) -> None:
    person = await house.person("first", Browser(f"{push_service.url}/gone"), Browser(f"{push_service.url}/ok"))
    push_service.answer("/gone", status)
    await house.announce(person)
    await house.worker.drain()
    assert await house.devices() == 1


@pytest.mark.parametrize("status", [400, 403, 413])
async def test_refusal_for_good_drops_the_entry_with_its_reason_and_keeps_the_device(
    house: House, push_service: PushService, status: int
) -> None:
    person = await house.person("first", Browser(f"{push_service.url}/a"))
    push_service.answer("/a", status)
    await house.announce(person)
    await house.worker.drain()
    last = (await entries(house.services))[-1]
    assert (last["state"], last["last_error"], last["payload"]) == ("failed", f"push_{status}", None)
    assert await house.devices() == 1


async def test_right_removed_after_the_message_was_sent_is_honoured(house: House, push_service: PushService) -> None:
    person = await house.person("first", Browser(f"{push_service.url}/a"))
    await house.announce(person)
    house.readers.clear()
    await house.worker.drain()
    assert push_service.received == []
    assert (await entries(house.services))[-1]["last_error"] == "not_to_be_told"


async def test_right_removed_between_two_attempts_is_honoured(
    house: House, push_service: PushService, fake_time: FakeTime
) -> None:
    person = await house.person("first", Browser(f"{push_service.url}/a"))
    push_service.answer("/a", 503)
    await house.announce(person)
    await house.worker.drain()
    house.readers.clear()
    fake_time.pass_by(minutes=1)
    await house.worker.drain()
    assert len(push_service.received) == 1


async def test_disabled_account_is_not_told(house: House, push_service: PushService) -> None:
    person = await house.person("first", Browser(f"{push_service.url}/a"))
    await house.announce(person)
    await house.act(
        lambda unit: unit.session.execute(
            sa.update(UserAccount).where(UserAccount.id == person).values(is_active=False)
        )
    )
    await house.worker.drain()
    assert push_service.received == []


async def test_browser_that_changed_hands_is_not_told_the_former_owners_news(
    house: House, push_service: PushService
) -> None:
    browser = Browser(f"{push_service.url}/a")
    person = await house.person("first", browser)
    push_service.answer("/a", 503)
    await house.announce(person)
    await house.person("second", browser)
    await house.worker.drain()
    assert push_service.received == []


async def test_devices_of_a_person_are_forgotten_when_access_is_revoked(
    house: House, push_service: PushService
) -> None:
    person = await house.person("first", Browser(f"{push_service.url}/a"), Browser(f"{push_service.url}/b"))
    await house.announce(person)
    await house.act(lambda unit: push.forget_devices(unit, person))
    await house.worker.drain()
    assert (push_service.received, await house.devices()) == ([], 0)
