"""One id ties a request's log lines together, and goes along to the services it calls."""

import json

import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from quill.adapters.upstream import Request, Troubles, Upstream
from quill.errors import FhirRefused, FhirUnavailable
from quill.health.service import HealthMonitor
from quill.kit import correlation
from tests.upstreams.serving import serving


@pytest.mark.usefixtures("production_logs")
def test_every_line_of_a_request_carries_its_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def say(_monitor: HealthMonitor) -> bool:
        structlog.get_logger().info("deep_inside")
        return True

    monkeypatch.setattr(HealthMonitor, "is_ready", say)
    given = "given-by-the-proxy-0001"
    assert client.get("/api/health/ready", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given
    other = client.get("/api/health/ready").headers["X-Request-ID"]
    structlog.get_logger().info("outside")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    told = [(line["event"], line.get("request_id")) for line in lines if line["event"] in {"deep_inside", "request"}]
    assert told == [("deep_inside", given), ("request", given), ("deep_inside", other), ("request", other)]
    assert [line.get("request_id") for line in lines if line["event"] == "outside"] == [None]


@pytest.mark.anyio
async def test_service_elsewhere_is_told_the_request_it_is_called_for() -> None:
    async def echo(asked: Asked) -> JSONResponse:
        return JSONResponse({"id": asked.headers.get("x-request-id")})

    with serving(Starlette(routes=[Route("/thing", echo)])) as address:
        upstream = Upstream("fhir", address, Troubles(FhirUnavailable, FhirRefused))
        with correlation.belonging_to("request-0001"):
            within = upstream.document_of(await upstream.send(Request("GET", "thing")))
        without = upstream.document_of(await upstream.send(Request("GET", "thing")))
        await upstream.close()
    assert (within, without) == ({"id": "request-0001"}, {"id": None})
