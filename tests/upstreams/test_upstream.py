"""What a client of a remote service does when the service, or the line to it, goes wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quill.adapters import breaker, upstream
from quill.adapters.upstream import Request, Troubles, Upstream
from quill.errors import FhirRefused, FhirUnavailable, Unavailable
from tests.upstreams.faults import FaultyLine, faulty_line
from tests.upstreams.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]

GET = Request("GET", "thing", is_repeatable=True)
CHANGE = Request("PUT", "thing", content=b"{}")


class Service:
    """A service that counts its calls and can be told what to answer next."""

    def __init__(self) -> None:
        self.calls = 0
        self.next: list[Response] = []
        self.app = Starlette(routes=[Route("/thing", self._thing, methods=["GET", "PUT"])])

    async def _thing(self, asked: Asked) -> Response:
        await asked.body()
        self.calls += 1
        return self.next.pop(0) if self.next else JSONResponse({"thing": "x" * 500})


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def line(service: Service) -> Iterator[FaultyLine]:
    with serving(service.app) as address, faulty_line(address) as line:
        yield line


@pytest.fixture
async def client(line: FaultyLine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    monkeypatch.setattr(upstream, "FIRST_PAUSE_SECONDS", 0.001)
    troubles = Troubles(FhirUnavailable, FhirRefused)
    client = Upstream("fhir", f"http://127.0.0.1:{line.port}/", troubles, deadline_seconds=0.6)
    yield client
    await client.close()


async def trouble_of(client: Upstream, request: Request = GET) -> Unavailable:
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await client.send(request)
    assert time.monotonic() - began < 2
    return caught.value


async def test_answer_is_read_to_its_end(client: Upstream) -> None:
    answer = await client.send(GET)
    assert client.document_of(answer) == {"thing": "x" * 500}


@pytest.mark.parametrize("fault", ["refuse", "hang", "cut", "half", "slow"])
async def test_broken_line_is_unavailable_in_bounded_time_and_heals_by_itself(
    client: Upstream, line: FaultyLine, fault: str
) -> None:
    line.break_with(fault)  # type: ignore[arg-type]
    error = await trouble_of(client)
    assert isinstance(error, FhirUnavailable)
    assert error.retry_after_seconds
    line.mend()
    assert (await client.send(GET)).status == 200


@pytest.mark.parametrize("status", [502, 503, 504, 429])
async def test_service_that_says_it_is_away_is_unavailable(client: Upstream, line: FaultyLine, status: int) -> None:
    line.answer_http(status)
    assert isinstance(await trouble_of(client), FhirUnavailable)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 302])
async def test_status_nobody_expects_is_a_wrong_answer(client: Upstream, line: FaultyLine, status: int) -> None:
    line.answer_http(status, headers=(("Location", "http://127.0.0.1:1/"),))
    assert isinstance(await trouble_of(client), FhirRefused)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"<html>", "text/html"), (b"{", "application/json"), (b"[1]", "application/json"), (b'{"a": 1}', "text/plain")],
)
async def test_body_that_is_no_document_is_a_wrong_answer(
    client: Upstream, line: FaultyLine, body: bytes, content_type: str
) -> None:
    line.answer_http(200, body, content_type)
    with pytest.raises(FhirRefused):
        client.document_of(await client.send(GET))


async def test_retry_after_of_the_service_is_told(client: Upstream, line: FaultyLine) -> None:
    line.answer_http(429, headers=(("Retry-After", "17"),))
    assert (await trouble_of(client)).retry_after_seconds == 17


async def test_read_is_tried_again(client: Upstream, service: Service) -> None:
    service.next = [Response(status_code=503), Response(status_code=429)]
    assert (await client.send(GET)).status == 200
    assert service.calls == 3


async def test_change_that_may_have_arrived_is_not_sent_twice(
    client: Upstream, service: Service, line: FaultyLine
) -> None:
    line.break_with("cut")
    assert isinstance(await trouble_of(client, CHANGE), FhirUnavailable)
    assert service.calls == 1


async def test_change_that_never_arrived_is_sent_again(client: Upstream, service: Service, line: FaultyLine) -> None:
    line.break_with("refuse")
    upstream_call = asyncio.create_task(client.send(CHANGE))
    await asyncio.sleep(0)
    line.mend()
    assert (await upstream_call).status == 200
    assert service.calls == 1


async def test_answer_larger_than_any_record_is_given_up(client: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "LARGEST_ANSWER_BYTES", 100)
    assert isinstance(await trouble_of(client), FhirRefused)


async def test_address_of_another_service_is_not_followed(client: Upstream) -> None:
    assert isinstance(await trouble_of(client, Request("GET", "http://127.0.0.1:1/elsewhere")), FhirRefused)


async def test_breaker_stops_asking_and_lets_one_call_find_out(
    client: Upstream, service: Service, line: FaultyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PAUSE_SECONDS", 0.15)
    line.break_with("refuse")
    while client.breaker.allows() and not client.breaker.is_open:
        await trouble_of(client)
    line.mend()
    assert (await trouble_of(client)).retry_after_seconds == 1
    assert service.calls == 0
    await asyncio.sleep(0.16)
    assert (await client.send(GET)).status == 200
    assert not client.breaker.is_open


async def test_probe_asks_although_the_breaker_is_open_and_closes_it(client: Upstream, line: FaultyLine) -> None:
    for _ in range(breaker.FAILURES_TO_OPEN):
        client.breaker.failed()
    await trouble_of(client)
    assert (await client.probe(GET)).status == 200
    assert (await client.send(GET)).status == 200
    line.break_with("refuse")
    with pytest.raises(FhirUnavailable):
        await client.probe(GET)


async def test_wrong_answers_do_not_open_the_breaker(client: Upstream, line: FaultyLine) -> None:
    line.answer_http(500)
    for _ in range(2 * breaker.FAILURES_TO_OPEN):
        assert isinstance(await trouble_of(client), FhirRefused)
