"""Two applications on one database, each with connections, tasks and memory of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import time_machine
from starlette.testclient import TestClient

from quill.app import create_app
from quill.auth.throttle import Throttle
from quill.kit import clock
from quill.kit.counters import InProcessCounters
from quill.settings import Settings
from tests.clinic import Clinic, Person
from tests.published_api import Browser


@dataclass
class Instances:
    """Two of them; people are made at the first and are the same at the second."""

    here: Clinic
    there: Clinic

    def at_the_other(self, person: Person) -> Person:
        """Return the same browser, with the cookies it has now, talking to the other instance."""
        other = Person(self.there.client, person.id, person.username)
        for cookie in person.client.cookies.jar:
            other.client.cookies.jar.set_cookie(cookie)
        return other

    def share_throttles(self) -> None:
        """Let both count in one place, as they do in Redis."""
        counters = InProcessCounters()
        for clinic in (self.here, self.there):
            clinic.authenticator.throttle = Throttle(counters)


@pytest.fixture
def later() -> Iterator[time_machine.Traveller]:
    """Return a clock that runs on, and can be shifted by seconds; it starts early in a step of the second factor."""
    with time_machine.travel(int(clock.now().timestamp()) // 30 * 30 + 5, tick=True) as traveller:
        yield traveller


@pytest.fixture
def instances(settings: Settings, later: time_machine.Traveller) -> Iterator[Instances]:
    del later
    with _running(settings) as here, _running(settings) as there:
        for client in (here, there):
            # Routes are put together at the first request, under settings of Python's warnings that threads share.
            assert client.get("/api/health/live").status_code == 200
        yield Instances(Clinic(here), Clinic(there))


def _running(settings: Settings) -> TestClient:
    return Browser(create_app(settings), raise_server_exceptions=False)
