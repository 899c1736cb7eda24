"""A running house without HTTP: services on a migrated database, units, and the queue as it stands."""

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from quill.app import build_services
from quill.kit import clock
from quill.outbox.delivery import Settlement, Task
from quill.outbox.models import OutboxEntry
from quill.ports.delivery import Delivery
from quill.settings import Settings
from quill.unit import RequestFacts, Services, Unit, open_unit

FACTS = RequestFacts("test-request", "test")
InUnit = Callable[[Callable[[Unit], Awaitable[None]]], Awaitable[None]]


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    services = build_services(settings)
    yield services
    await services.recorder.stop()
    await services.database.dispose()


@pytest.fixture
def in_unit(services: Services) -> InUnit:
    async def run(act: Callable[[Unit], Awaitable[None]]) -> None:
        async with open_unit(services, FACTS) as unit:
            await act(unit)

    return run


async def entries(services: Services) -> list[dict[str, Any]]:
    """Return the rows of the queue, oldest first."""
    async with services.database.reading() as session:
        rows = await session.execute(sa.select(OutboxEntry.__table__).order_by(OutboxEntry.id))
        return [dict(row._mapping) for row in rows]


class FakeTime:
    """A clock that goes on by itself and can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = datetime.timedelta()
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + self._ahead)

    def pass_by(self, **amount: float) -> None:
        self._ahead += datetime.timedelta(**amount)


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


class ScriptedCarrier:
    """Stands where the network begins: ends each attempt as told, well when told nothing more."""

    def __init__(self, *script: Delivery | Exception) -> None:
        self._script = list(script)
        self.tasks: list[Task] = []

    async def deliver(self, task: Task) -> Settlement:
        self.tasks.append(task)
        end = self._script.pop(0) if self._script else Delivery.delivered()
        if isinstance(end, Exception):
            raise end
        return Settlement(end)
