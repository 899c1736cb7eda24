"""Traces: a span for each request, each call of a service elsewhere and each statement of the database.

FastAPI makes the spans of requests, but with the path and the query, which name patients. So what leaves passes
``_Cleared``: attributes on a list of ours alone, no events (they would hold exceptions' texts), no texts of errors.
Calls and statements are told of when they are over, and their spans are made then, with the times they had.
"""

import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import anyio.to_thread
import sqlalchemy as sa
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from quill import published
from quill.kit import correlation, observing
from quill.kit.database import Database
from quill.kit.observing import Happening, RequestBegan, UpstreamCalled

EXPORT_SECONDS = 3.0
"""How long one export may take with its repetitions, and so how long stopping may wait for a collector that is away."""

ALLOWED = frozenset(
    {
        "db.query.summary",
        "db.system.name",
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "quill.outcome",
        "quill.request_id",
        "quill.upstream",
        "url.scheme",
    }
)
"""Attributes that leave the process."""

_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+([a-z_]+)")
_BEGAN = "quill_statement_began"

MakeSpan: TypeAlias = Callable[[str, Mapping[str, str], tuple[int, int], str | None], None]
"""Makes a span that is over: its name, its attributes, when it began and ended in nanoseconds, the kind of error."""


class Tracing:
    """Makes spans and sends them to a collector.

    Args:
        endpoint: the collector's base URL.
    """

    def __init__(self, endpoint: str) -> None:
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        resource = Resource.create({"service.name": "quill", "service.version": published.VERSION})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Cleared(exporter)))
        self._tracer = self._provider.get_tracer("quill", published.VERSION)

    @property
    def config(self) -> TelemetryConfig:
        """Return what FastAPI needs to know: spans of requests, and nothing else of its own."""
        return {
            "tracer_provider": self._provider,
            "tracing": True,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": _is_probe,
        }

    @contextlib.asynccontextmanager
    async def running(self, database: Database) -> AsyncIterator[None]:
        """Trace calls and statements too while the application runs, and send what is left when it ends."""
        try:
            with observing.watching(self._note), correlation.telling_also(_trace_headers), self._statements(database):
                yield
        finally:
            await anyio.to_thread.run_sync(self._provider.shutdown)

    def _note(self, happening: Happening) -> None:
        if isinstance(happening, RequestBegan):
            request_id = correlation.current_request_id()
            if request_id is not None:
                trace.get_current_span().set_attribute("quill.request_id", request_id)
        elif isinstance(happening, UpstreamCalled):
            attributes = {
                "http.request.method": happening.method,
                "quill.upstream": happening.upstream,
                "quill.outcome": happening.outcome,
            }
            ended = time.time_ns()
            began = ended - int(happening.seconds * 1e9)
            error = None if happening.outcome == "answered" else happening.outcome
            self._make_span(f"{happening.method} {happening.upstream}", attributes, (began, ended), error)

    def _make_span(self, name: str, attributes: Mapping[str, str], times: tuple[int, int], error: str | None) -> None:
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=times[0])
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR)
        span.end(times[1])

    @contextlib.contextmanager
    def _statements(self, database: Database) -> Iterator[None]:
        listening = _Statements(self._make_span, "sqlite" if database.is_sqlite else "postgresql")
        listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": listening.note_began,
            "after_cursor_execute": listening.note_done,
            "handle_error": listening.note_failed,
        }
        engine = database.engine.sync_engine
        for name, listener in listeners.items():
            sa.event.listen(engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                sa.event.remove(engine, name, listener)


class _Statements:
    """Makes spans of the statements that requests send; background work looks into its queues every second."""

    def __init__(self, make_span: MakeSpan, system: str) -> None:
        self._make_span = make_span
        self._system = system

    def note_began(self, connection: sa.Connection, *_: Any) -> None:
        connection.info[_BEGAN] = time.time_ns()

    def note_done(self, connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        self._note(connection, statement, None)

    def note_failed(self, context: sa.engine.ExceptionContext) -> None:
        if context.connection is not None and context.statement is not None:
            self._note(context.connection, context.statement, type(context.original_exception).__name__)

    def _note(self, connection: sa.Connection, statement: str, error: str | None) -> None:
        if trace.get_current_span().get_span_context().is_valid:
            summary, now = summarised(statement), time.time_ns()
            attributes = {"db.system.name": self._system, "db.query.summary": summary}
            self._make_span(summary, attributes, (connection.info.get(_BEGAN, now), now), error)


class _Cleared(SpanExporter):
    """Passes on of each span what may leave the process."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans without what might name a patient."""
        return self._exporter.export([_cleared(span) for span in spans])

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is held back."""
        return self._exporter.force_flush(timeout_millis)


def _cleared(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={name: value for name, value in (span.attributes or {}).items() if name in ALLOWED},
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def summarised(statement: str) -> str:
    """Return what a statement does to which table, such as ``SELECT patient_index``; never a value."""
    verb = statement.lstrip().split(maxsplit=1)[0].upper() if statement.strip() else "?"
    table = _TABLE.search(statement)
    return f"{verb} {table[1]}" if table else verb


def _trace_headers() -> dict[str, str]:
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def _is_probe(scope: Scope) -> bool:
    return str(scope["path"]).startswith("/api/health")
