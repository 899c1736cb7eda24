"""Redis is away, in every way it can be: limits hold, nobody waits long, and nothing else notices."""

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from limits import RateLimitItemPerMinute
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from quill.adapters import breaker
from quill.adapters.redis import RedisShared
from quill.adapters.redis import link as links
from quill.app import create_app
from quill.auth.throttle import Throttle
from quill.errors import TooManyRequests
from quill.settings import Settings
from tests.accounts.browsers import like, tries
from tests.clinic import Clinic
from tests.published_api import Browser

LIMIT = RateLimitItemPerMinute(3, namespace="test")


@pytest.fixture
def nobody() -> str:
    """Return where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{probe.getsockname()[1]}/0"


@pytest.fixture
def hanging() -> Iterator[str]:
    """Return where something takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture
def babbling() -> Iterator[str]:
    """Return where something answers that is no Redis."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture(params=["nobody", "hanging", "babbling"])
def lost_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(links, "DEADLINE_SECONDS", 0.05)
    return str(request.getfixturevalue(request.param))


async def tried(throttle: Throttle, times: int) -> list[bool]:
    return [await throttle.has_room(LIMIT, "somebody") for _ in range(times)]


@pytest.mark.anyio
async def test_limits_are_the_same_in_this_process(lost_url: str) -> None:
    shared = RedisShared(lost_url)
    throttle = Throttle(shared.counters)
    assert await tried(throttle, 5) == [True] * 3 + [False] * 2
    await throttle.give_back(LIMIT, "somebody")
    with pytest.raises(TooManyRequests) as caught:
        await throttle.count(LIMIT, "somebody")
    assert 0 < (caught.value.retry_after_seconds or 0) <= 61
    await shared.close()


@pytest.mark.anyio
async def test_few_wait_and_one_line_is_logged(lost_url: str) -> None:
    shared = RedisShared(lost_url)
    throttle = Throttle(shared.counters)
    with capture_logs() as lines:
        await tried(throttle, breaker.FAILURES_TO_OPEN)
        started = time.perf_counter()
        await tried(throttle, 100)
        assert time.perf_counter() - started < 0.2
    assert [line["event"] for line in lines] == ["redis_away"]
    assert lost_url.partition("127")[2] not in str(lines)
    await shared.close()


@pytest.mark.anyio
async def test_signals_reach_this_process_at_once_and_closing_ends_the_task(lost_url: str) -> None:
    shared = RedisShared(lost_url)
    task = asyncio.create_task(shared.run())
    await asyncio.sleep(0.02)
    shared.signals.notify("live")
    assert await shared.signals.wait("live", 0.01)
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 1)
    await shared.close()


@pytest.mark.anyio
async def test_cancellation_that_meets_a_broken_connection_ends_the_task(
    hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this a process whose Redis hung might never stop: the client's own timeout took the place of the end."""
    shared = RedisShared(hanging)
    subscribing = asyncio.Event()

    class Connection:
        async def __aenter__(self) -> "Connection":
            return self

        async def __aexit__(self, *error: object) -> None:
            raise RedisTimeoutError

        async def subscribe(self, *channels: str) -> None:
            assert channels
            subscribing.set()
            await asyncio.sleep(60)

    monkeypatch.setattr(shared._link.client, "pubsub", Connection)
    task = asyncio.create_task(shared.run())
    await subscribing.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=2)
    assert task.cancelled()
    await shared.close()


@pytest.fixture
def orphan(settings: Settings, lost_url: str) -> Iterator[TestClient]:
    """Return a browser at an application whose Redis is away."""
    with Browser(create_app(like(settings, redis_url=lost_url)), raise_server_exceptions=False) as client:
        yield client


def test_sign_in_goes_on_and_is_not_unlimited(orphan: TestClient) -> None:
    clinic = Clinic(orphan)
    person = clinic.person(is_signed_in=False)
    assert person.sign_in().status_code == 200
    answers = [tries(orphan, person.username) for _ in range(7)]
    assert Counter(answer.status_code for answer in answers) == {400: 5, 429: 2}


def test_health_tells_and_the_process_stays_ready(orphan: TestClient) -> None:
    found = orphan.get("/api/health").json()
    assert found["status"] == "degraded"
    assert found["services"]["redis"] == {"available": False, "status_code": 503, "error": "unavailable"}
    assert found["services"]["auth_db"]["available"]
    assert orphan.get("/api/health/ready").status_code == 200


def test_health_without_redis_does_not_name_it(client: TestClient) -> None:
    assert set(client.get("/api/health").json()["services"]) == {"auth_db", "fhir", "ehrbase"}


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379", "unix:///tmp/redis"])
def test_other_addresses_are_refused_without_being_quoted(settings: Settings, url: str) -> None:
    with pytest.raises(ValueError, match="QUILL_REDIS_URL must begin with redis:// or rediss://") as caught:
        like(settings, redis_url=url)
    assert url not in str(caught.value)
