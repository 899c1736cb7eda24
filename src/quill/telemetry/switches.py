"""Metrics and traces, on where a setting asks; what they need is loaded only then."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig

from quill.kit.database import Database
from quill.settings import Settings

if TYPE_CHECKING:
    from quill.telemetry.tracing import Tracing

NO_TRACING: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
"""FastAPI's own telemetry would otherwise follow whatever it finds in the process, and record exception texts."""


class TracingNotInstalled(RuntimeError):
    """Traces were asked for, and what makes them is not there."""

    def __init__(self) -> None:
        super().__init__("QUILL_OTLP_ENDPOINT is set, but OpenTelemetry is not installed; its extra is `quill[otel]`.")


@contextlib.asynccontextmanager
async def measured(settings: Settings, database: Database) -> AsyncIterator[None]:
    """Serve metrics while the application runs, when a port is set.

    Raises:
        OSError: the address cannot be listened on.
    """
    if settings.metrics_port is None:
        yield
        return
    from quill.telemetry.serving import measuring

    async with measuring(database, settings.metrics_host, settings.metrics_port):
        yield


def open_tracing(settings: Settings) -> "Tracing | None":
    """Return what makes traces, when a collector is set.

    Raises:
        TracingNotInstalled: the extra is missing.
    """
    if settings.otlp_endpoint is None:
        return None
    check_installed(settings)
    from quill.telemetry.tracing import Tracing

    return Tracing(settings.otlp_endpoint)


def check_installed(settings: Settings) -> None:
    """Return when everything the settings ask for is installed.

    Raises:
        TracingNotInstalled: the extra is missing.
    """
    if settings.otlp_endpoint is None:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 - whether it can be imported is the question
    except ImportError:
        raise TracingNotInstalled from None


@contextlib.asynccontextmanager
async def watched(settings: Settings, database: Database, tracing: "Tracing | None") -> AsyncIterator[None]:
    """Measure and trace while the application runs, as far as the settings ask."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(measured(settings, database))
        if tracing is not None:
            await stack.enter_async_context(tracing.running(database))
        yield
