"""What reaches a collector, over the wire it really goes: OTLP over HTTP."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import Response
from starlette.routing import Route

from quill.adapters.upstream import Request, Troubles, Upstream
from quill.app import create_app
from quill.errors import FhirRefused, FhirUnavailable
from quill.settings import Settings
from quill.telemetry import tracing
from quill.telemetry.switches import TracingNotInstalled
from quill.telemetry.tracing import ALLOWED, summarised
from tests.clinic import Clinic
from tests.letters.desk import letters_of
from tests.published_api import Browser
from tests.remote_like import Line, with_remote_fhir
from tests.upstreams.serving import serving


class Collector:
    """Takes spans in, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.received = b""
        self.spans: list[Span] = []
        self.traceparents: list[str] = []
        self.app = Starlette(
            routes=[
                Route("/v1/traces", self._take, methods=["POST"]),
                Route("/fhir/thing", self._thing, methods=["PUT"]),
            ]
        )

    async def _take(self, asked: Asked) -> Response:
        body = await asked.body()
        self.received += body
        request = ExportTraceServiceRequest.FromString(body)
        self.spans += [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]
        return Response()

    async def _thing(self, asked: Asked) -> Response:
        self.traceparents.append(asked.headers.get("traceparent", ""))
        return Response(status_code=503)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def attributes_of(span: Span) -> dict[str, Any]:
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


@pytest.fixture
def collector() -> Collector:
    return Collector()


@contextmanager
def traced(settings: Settings, address: str) -> Iterator[Clinic]:
    """Run the application with traces on; when the block ends every span has arrived."""
    with Browser(
        create_app(settings.model_copy(update={"otlp_endpoint": address})), raise_server_exceptions=False
    ) as client:
        yield Clinic(client)


def test_request_and_its_statements_are_one_trace_without_a_word_of_the_patient(
    settings: Settings, collector: Collector
) -> None:
    with serving(collector.app) as address, traced(settings, address) as clinic:
        doctor = clinic.clinician(clinic.organisation())
        new = {"given_name": "Qwertzgiven", "family_name": "Qwertzfamily"}
        patient = doctor.post("/api/patients", new).json()["id"]
        doctor.post(letters_of(patient), {"title": "Qwertztitle", "body": "Qwertzletter"})
        answer = doctor.get(f"/api/patients/{patient}", headers={"User-Agent": "Qwertzagent"})
        doctor.get("/api/patients", params={"search": "Qwertzfamily"})
        clinic.client.get("/api/Qwertzpath?q=Qwertzquery")
        clinic.client.get("/api/health/live")
    (span,) = collector.named("GET /api/patients/{patient_id}")
    told = attributes_of(span)
    assert told["http.route"] == "/api/patients/{patient_id}"
    assert told["http.response.status_code"] == 200
    assert told["quill.request_id"] == answer.headers["X-Request-ID"]
    within = [other for other in collector.spans if other.parent_span_id == span.span_id]
    assert {attributes_of(other)["db.system.name"] for other in within} <= {"sqlite", "postgresql"}
    assert within
    assert all(span.start_time_unix_nano <= o.start_time_unix_nano <= o.end_time_unix_nano for o in within)
    assert all(set(attributes_of(other)) <= ALLOWED and not other.events for other in collector.spans)
    assert not [span for span in collector.spans if "health" in span.name]
    assert b"qwertz" not in collector.received.lower()
    assert patient.encode() not in collector.received


def test_unforeseen_error_is_marked_without_its_text(settings: Settings, collector: Collector) -> None:
    line = Line()
    with serving(collector.app) as address, traced(settings, address) as clinic:
        doctor = clinic.clinician(clinic.organisation())
        patient = clinic.patient(1)
        line.cut(RuntimeError("Qwertzsecret"))
        clinic.client.app.state.services = with_remote_fhir(clinic.services, line)  # type: ignore[attr-defined]
        assert doctor.get(f"/api/patients/{patient}").status_code == 500
    (span,) = collector.named("GET /api/patients/{patient_id}")
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "")
    assert attributes_of(span)["http.response.status_code"] == 500
    assert b"qwertz" not in collector.received.lower()


def test_call_elsewhere_is_a_span_of_the_request_and_the_service_is_told_the_trace(
    settings: Settings, collector: Collector
) -> None:
    line = Line()
    with serving(collector.app) as address, traced(settings, address) as clinic:
        upstream = Upstream("fhir", f"{address}/fhir", Troubles(FhirUnavailable, FhirRefused))

        async def ask() -> None:
            await upstream.send(Request("PUT", "thing", content=b"Qwertzbody"))

        doctor = clinic.clinician(clinic.organisation())
        patient = clinic.patient(1)
        line.before_next("find", ask)
        clinic.client.app.state.services = with_remote_fhir(clinic.services, line)  # type: ignore[attr-defined]
        assert doctor.get(f"/api/patients/{patient}").status_code == 503
        clinic.run(upstream.close)
    (request,) = collector.named("GET /api/patients/{patient_id}")
    (call,) = collector.named("PUT fhir")
    assert (call.trace_id, call.parent_span_id) == (request.trace_id, request.span_id)
    wanted = {"error.type": "unavailable", "quill.outcome": "unavailable", "quill.upstream": "fhir"}
    assert wanted.items() <= attributes_of(call).items()
    assert call.end_time_unix_nano > call.start_time_unix_nano
    assert [parent.split("-")[1] for parent in collector.traceparents] == [request.trace_id.hex()]
    assert b"qwertz" not in collector.received.lower()


def test_collector_that_is_away_holds_nothing_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EXPORT_SECONDS", 0.2)
    with traced(settings, "http://127.0.0.1:9") as clinic:
        assert clinic.client.get("/api/nowhere").status_code == 404


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("SELECT patient_index.id \nFROM patient_index WHERE x = ?", "SELECT patient_index"),
        ("INSERT INTO audit_event (id) VALUES (?)", "INSERT audit_event"),
        ("UPDATE intent SET state=?", "UPDATE intent"),
        ("BEGIN IMMEDIATE", "BEGIN"),
        ("", "?"),
    ],
)
def test_statement_is_told_by_verb_and_table(statement: str, summary: str) -> None:
    assert summarised(statement) == summary


def test_without_the_extra_the_application_does_not_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingNotInstalled):
        create_app(settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:4318"}))
