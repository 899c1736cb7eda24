"""Two instances and a real Redis: limits count together, events arrive at once, and Redis may go and come."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from quill.adapters.redis import signals as shared_signals
from quill.app import create_app
from quill.events import feed as feeds
from quill.settings import Settings
from tests.accounts.browsers import like, tries
from tests.clinic import Clinic
from tests.events.conftest import House
from tests.live.instances import Server, has, redis_server, until
from tests.published_api import Browser

pytestmark = pytest.mark.live("redis")

PASSWORD = "correct horse battery"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    """Return a Redis of this test's own, to be stopped and started."""
    if not has("redis-server"):
        pytest.skip("redis-server is not installed")
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """Return the Redis this run is given, or one of this test's own."""
    given = os.environ.get("QUILL_TEST_REDIS_URL")
    return given or f"redis://127.0.0.1:{request.getfixturevalue('redis').port}/0"


def two_browsers(stack: ExitStack, settings: Settings, url: str) -> list[TestClient]:
    """Return browsers at two instances, each of which has heard from Redis."""
    clients: list[TestClient] = []
    for _ in range(2):
        client = stack.enter_context(Browser(create_app(like(settings, redis_url=url)), raise_server_exceptions=False))
        assert client.get("/api/health").json()["services"]["redis"]["available"]
        until(is_heard(client))
        clients.append(client)
    return clients


def is_heard(client: TestClient) -> Callable[[], bool]:
    signals = Clinic(client).services.signals
    assert isinstance(signals, shared_signals.SharedSignals)
    return signals.is_subscribed.is_set


def told(client: TestClient) -> str:
    return str(client.get("/api/health").json()["status"])


def statuses(clients: list[TestClient], username: str, times: int) -> Counter[int]:
    return Counter(tries(clients[number % 2], username).status_code for number in range(times))


def test_attempts_at_both_count_together(settings: Settings, redis_url: str) -> None:
    with ExitStack() as stack:
        clients = two_browsers(stack, settings, redis_url)
        person = Clinic(clients[0]).person(f"person-{time.time_ns()}", is_signed_in=False)
        assert statuses(clients, person.username, 8) == {400: 5, 429: 3}
        answer = tries(clients[1], person.username, PASSWORD)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 61


@pytest.mark.parametrize(("down", "up"), [(signal.SIGKILL, None), (signal.SIGSTOP, signal.SIGCONT)])
def test_limits_hold_while_redis_is_away_and_count_together_again(
    settings: Settings, redis: Server, down: signal.Signals, up: signal.Signals | None
) -> None:
    with ExitStack() as stack, capture_logs() as lines:
        clients = two_browsers(stack, settings, f"redis://127.0.0.1:{redis.port}/0")
        clinic = Clinic(clients[0])
        before, meanwhile, after = (clinic.person(is_signed_in=False) for _ in range(3))
        assert statuses(clients, before.username, 5) == {400: 5}

        redis.send(down)
        started = time.perf_counter()
        # What each has counted still stands, and the limits are the same in each by itself.
        assert statuses(clients, before.username, 8)[400] <= 5
        assert statuses(clients, meanwhile.username, 20) == {400: 10, 429: 10}
        assert time.perf_counter() - started < 10
        until(lambda: all(told(client) == "degraded" for client in clients), 15)
        assert clients[0].get("/api/health/ready").status_code == 200
        assert meanwhile.get("/api/organizations").status_code != 503

        if up is None:
            redis.end()
            redis.start()
        else:
            redis.send(up)
        until(lambda: all(told(client) == "healthy" for client in clients), 15)
        assert statuses(clients, after.username, 8) == {400: 5, 429: 3}
    outages = Counter(line["event"] for line in lines if line["event"].startswith("redis_"))
    assert outages == {"redis_away": 2, "redis_back": 2}


@pytest.fixture
async def houses(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[House, House]]:
    """Return two running servers that would look for each other's events far too late."""
    monkeypatch.setattr(feeds, "LOOK_SECONDS", 30.0)
    kept = like(settings, redis_url=redis_url)
    houses = (House(kept), House(kept))
    for house in houses:
        await house.start()
        signals = house.services.signals
        assert isinstance(signals, shared_signals.SharedSignals)
        await asyncio.wait_for(signals.is_subscribed.wait(), 5)
    yield houses
    for house in houses:
        await house.stop()


@pytest.mark.anyio
async def test_message_sent_at_one_reaches_a_stream_at_the_other_at_once(houses: tuple[House, House]) -> None:
    here, there = houses
    there.readers[7] = {"reader"}
    browser = await there.person("reader")
    async with browser.listening() as stream:
        await stream.next()
        for number in range(1, 11):
            await here.message(7, number)
        told = [await stream.next() for _ in range(10)]
    assert [event.data["message_id"] for event in told if event] == list(range(1, 11))
