"""How the parts are, as strangers may ask."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from quill.app import create_app
from quill.health import service as health
from quill.health.schemas import HealthOut
from quill.health.service import HealthMonitor
from quill.settings import Settings
from quill.unit import Services
from tests.clinic import Clinic
from tests.conftest import cheap_settings
from tests.published_api import Browser
from tests.remote_like import Line, with_remote_fhir, with_remote_openehr


@pytest.fixture
def line(clinic: Clinic) -> Line:
    """Return the line to both stores, watched by a monitor that has asked nothing yet."""
    line = Line()
    watch(clinic, lambda services: with_remote_openehr(with_remote_fhir(services, line), line))
    return line


def watch(clinic: Clinic, change: Callable[[Services], Services]) -> None:
    state = clinic.client.app.state  # type: ignore[attr-defined]
    state.health = HealthMonitor(change(state.services))


def asked(client: TestClient) -> HealthOut:
    answer = client.get("/api/health")
    assert answer.status_code == 200
    return HealthOut.model_validate(answer.json())


def test_everything_answers(client: TestClient) -> None:
    found = asked(client)
    assert found.status == "healthy"
    assert found.services.auth_db.available


class _DeadDatabase:
    """Refuses as a database does that is not there."""

    async def ping(self) -> None:
        raise OSError("host qwertz refused")

    def reading(self) -> None:
        raise OSError("host qwertz refused")


def test_dead_database_is_told_and_the_process_is_not_ready(clinic: Clinic, client: TestClient) -> None:
    """Gap: auth_db is a constant and never checked, so a dead application database reports healthy."""
    watch(clinic, lambda services: replace(services, database=_DeadDatabase()))  # type: ignore[arg-type]
    found = asked(client)
    assert (found.status, found.services.auth_db.available) == ("degraded", False)
    assert client.get("/api/health/ready").status_code == 503
    assert client.get("/api/health/live").status_code == 200


def test_store_that_does_not_answer_is_told_without_its_words(client: TestClient, line: Line) -> None:
    """Gap: raw exception text is public; unauthenticated callers get raw exception text."""
    line.cut(RuntimeError("qwertz at 10.0.0.7"))
    answer = client.get("/api/health")
    assert answer.json()["status"] == "degraded"
    assert answer.json()["services"]["fhir"] == {"available": False, "status_code": 503, "error": "unavailable"}
    assert "qwertz" not in answer.text


def test_probes_run_side_by_side_under_a_deadline(
    client: TestClient, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gap: probes run one after the other inside the request (up to about 10 s)."""
    monkeypatch.setattr(health, "DEADLINE_SECONDS", 0.2)
    under_way: list[int] = []
    most = 0

    async def hang() -> None:
        nonlocal most
        under_way.append(1)
        most = max(most, len(under_way))
        try:
            await asyncio.sleep(30)
        finally:
            under_way.pop()

    line.before_next("ping", hang)
    line.before_next("ping", hang)
    found = asked(client)
    assert most == 2
    assert not found.services.fhir.available
    assert not found.services.ehrbase.available
    assert found.services.auth_db.available


def test_strangers_cannot_make_us_probe_at_will(
    client: TestClient, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gap: unauthenticated callers can trigger outbound probes without limit."""
    monkeypatch.setattr(health, "CACHE_SECONDS", 60.0)
    for _ in range(5):
        asked(client)
    assert line.count("ping") == 2


def test_without_clinical_services_all_is_healthy(settings: Settings) -> None:
    """Gap: a deployment without clinical services can never be healthy."""
    off = cheap_settings(
        settings.data_dir, database_url=settings.resolved_database_url, clinical_services_enabled=False
    )
    with Browser(create_app(off)) as client:
        found = asked(client)
    assert found.status == "healthy"
    assert found.services.fhir.error == "Not provisioned"
