"""The application behind a real server on this machine, and browsers that listen."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.app import create_app
from quill.events import service as events
from quill.identity import service as identity
from quill.identity.service import NewPerson
from quill.kit import clock
from quill.kit.ids import ConversationId, OrganisationId, PatientId, UserId
from quill.organisations.models import Organisation
from quill.outbox import service as outbox
from quill.outbox.service import LiveEvent
from quill.settings import Settings
from quill.unit import RequestFacts, Services, open_unit

FACTS = RequestFacts("test-request", "test")
PASSWORD = "correct horse battery"
PATIENT = PatientId("patient-1")


@dataclass(frozen=True)
class Told:
    """One server-sent event; a heartbeat has no kind."""

    kind: str | None
    number: int | None
    data: Any


class Listening:
    """One open stream, read event by event."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.heartbeats = 0

    async def next(self, timeout_seconds: float = 3.0) -> Told | None:
        """Return the next event, passing over heartbeats; ``None`` when the stream has ended."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                told = await self._block()
                if told is None or told.kind is not None:
                    return told
                self.heartbeats += 1

    async def is_silent(self, seconds: float) -> bool:
        """Tell whether nothing but heartbeats comes for a while; nothing can be read afterwards."""
        try:
            told = await self.next(seconds)
        except TimeoutError:
            return True
        raise AssertionError(told)

    async def _block(self) -> Told | None:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return Told(
                    fields.get("event"),
                    int(fields["id"]) if "id" in fields else None,
                    json.loads(fields["data"]) if "data" in fields else None,
                )
            name, _, value = line.partition(": ")
            fields[name] = value
        return None


class Browser:
    """Somebody's browser."""

    def __init__(self, client: httpx2.AsyncClient, user_id: UserId, username: str) -> None:
        self.client = client
        self.user_id = user_id
        self.username = username

    @asynccontextmanager
    async def listening(self, last_event_id: int | str | None = None) -> AsyncIterator[Listening]:
        """Open a stream and read its first event, which says from where."""
        headers = {"Last-Event-ID": str(last_event_id)} if last_event_id is not None else {}
        async with self.client.stream("GET", "/api/events", headers=headers) as response:
            yield Listening(response)


class House:
    """A running server with people, and the test's own rule of who may read conversations."""

    def __init__(self, settings: Settings) -> None:
        self.readers: dict[int, set[str]] = {}
        self.asked: list[set[str]] = []
        self.clients: list[httpx2.AsyncClient] = []
        self.app = create_app(settings)
        self.app.state.who_may_read_conversation = self.who_may_read
        self.failure: Exception | None = None
        config = uvicorn.Config(self.app, "127.0.0.1", 0, lifespan="on", log_config=None, timeout_graceful_shutdown=5)
        self.server = uvicorn.Server(config)
        self.serving: asyncio.Task[None] | None = None

    async def who_may_read(
        self, session: AsyncSession, actors: Collection[Actor], conversation_id: ConversationId
    ) -> set[UserId]:
        assert session.is_active
        if self.failure is not None:
            raise self.failure
        self.asked.append({actor.name for actor in actors})
        readers = self.readers.get(conversation_id, set())
        return {actor.person_id for actor in actors if actor.name in readers}

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def start(self) -> None:
        self.serving = asyncio.create_task(self.server.serve())
        async with asyncio.timeout(5):
            while not self.server.started:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for client in self.clients:
            await client.aclose()
        self.server.should_exit = True
        assert self.serving is not None
        await asyncio.wait_for(self.serving, 5)

    def new_client(self) -> httpx2.AsyncClient:
        port = self.server.servers[0].sockets[0].getsockname()[1]
        client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        self.clients.append(client)
        return client

    async def organisation(self, *patients: PatientId) -> OrganisationId:
        now = clock.now()
        async with open_unit(self.services, FACTS) as unit:
            row = Organisation(name="Riverside", type="gp_practice", location=None, created_at=now, updated_at=now)
            unit.session.add(row)
            await unit.session.flush()
            for patient_id in patients:
                await identity.add_patient_membership(unit, OrganisationId(row.id), patient_id)
            return OrganisationId(row.id)

    async def person(
        self, username: str, *, organisations: Sequence[OrganisationId] = (), level: Level = Level.STAFF, **extra: Any
    ) -> Browser:
        person = NewPerson(
            username=username,
            email=f"{username}@example.org",
            password_hash=await self.app.state.authenticator.passwords.hash(PASSWORD),
            level=level,
            **({"profession": "general_practitioner"} | extra),
        )
        async with open_unit(self.services, FACTS) as unit:
            user_id = await identity.create_person(unit, None, person)
            for organisation_id in organisations:
                await identity.add_staff_membership(unit, organisation_id, user_id)
        return await self.sign_in(user_id, username)

    async def sign_in(self, user_id: UserId, username: str) -> Browser:
        browser = Browser(self.new_client(), user_id, username)
        answer = await browser.client.post("/api/auth/login", json={"username": username, "password": PASSWORD})
        assert answer.status_code == 200
        return browser

    async def message(self, conversation_id: int = 7, message_id: int = 1) -> None:
        event = LiveEvent("message", PATIENT, ConversationId(conversation_id), {"message_id": str(message_id)})
        await self.publish(event)

    async def publish(self, *happened: LiveEvent, services: Services | None = None) -> None:
        async with open_unit(services or self.services, FACTS) as unit:
            for event in happened:
                await outbox.publish(unit, event)


@pytest.fixture
async def house(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(events, "RECHECK_SECONDS", 0.1)
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.2)
    house = House(settings)
    await house.start()
    yield house
    await house.stop()
