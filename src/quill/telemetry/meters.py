"""The meters: counts what happens, by words of the program alone.

No label holds a path, an id, a name or anything else a caller chooses: routes are templates, unknown ones share one
label, and so do unknown methods.
"""

import os
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from quill import published
from quill.kit.observing import (
    Audited,
    Happening,
    Logged,
    RequestBegan,
    RequestEnded,
    StreamsOpen,
    Throttled,
    UpstreamCalled,
    WriterWaited,
)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
NO_ANSWER = "none"
SIGN_IN = "sign-in"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LOUD = frozenset({"warning", "error", "critical"})


class Meters:
    """Every metric that follows what happens.

    Args:
        registry: where they are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"quill_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str, over_workers: Any = "livesum") -> Gauge:
            return Gauge(f"quill_{name}", text, labels, registry=registry, multiprocess_mode=over_workers)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"quill_{name}", text, labels, registry=registry, buckets=SECONDS)

        self._requests = counter("http_requests", "Requests answered.", "method", "route", "status")
        self._durations = histogram("http_request_duration_seconds", "Time to the last byte.", "method", "route")
        self._in_progress = gauge("http_requests_in_progress", "Requests under way, live streams included.")
        self._calls = counter("upstream_calls", "Calls of a service elsewhere.", "upstream", "outcome")
        self._call_durations = histogram("upstream_call_duration_seconds", "Time with repetitions.", "upstream")
        self._tripped = gauge(
            "upstream_breaker_open", "1 while a worker takes it for down.", "upstream", over_workers="livemax"
        )
        self._waits = histogram("database_writer_wait_seconds", "Wait for the turn to write, on SQLite.")
        self._connections = gauge("database_connections_in_use", "Connections in use.")
        self._connection_limit = gauge("database_connections_limit", "Connections there may be.")
        self._acts = counter("acts", "Acts noted in the audit trail.", "act", "outcome")
        self._sign_ins = counter("sign_ins", "Sign-ins, by what came of them.", "outcome")
        self._throttled = counter("throttled", "Attempts refused for being too many.", "limit")
        self._streams = gauge("live_streams", "Live streams open.")
        self._lines = counter("log_lines", "Lines logged as warning or error, by their event.", "level", "event")
        info = gauge("info", "Always 1; tells the version.", "version", over_workers="livemax")
        info.labels(published.VERSION).set(1)
        # What is not there yet looks like a scrape that failed.
        self._streams.set(0)
        self._in_progress.set(0)
        self._notes: dict[type[Happening], Callable[[Any], None]] = {
            RequestBegan: self._note_request_began,
            RequestEnded: self._note_request_ended,
            UpstreamCalled: self._note_upstream_called,
            WriterWaited: self._note_writer_waited,
            Audited: self._note_audited,
            Throttled: self._note_throttled,
            StreamsOpen: self._note_streams_open,
            Logged: self._note_logged,
        }

    def note(self, happening: Happening) -> None:
        """Count something that happened."""
        self._notes[type(happening)](happening)

    def note_connections(self, used: int, limit: int) -> None:
        """Note how many connections to the database are in use, of how many."""
        self._connections.set(used)
        self._connection_limit.set(limit)

    def _note_request_began(self, _: RequestBegan) -> None:
        self._in_progress.inc()

    def _note_request_ended(self, ended: RequestEnded) -> None:
        method = ended.method if ended.method in METHODS else OTHER_METHOD
        self._in_progress.dec()
        self._requests.labels(method, ended.route, str(ended.status or NO_ANSWER)).inc()
        self._durations.labels(method, ended.route).observe(ended.seconds)

    def _note_upstream_called(self, called: UpstreamCalled) -> None:
        self._calls.labels(called.upstream, called.outcome).inc()
        self._tripped.labels(called.upstream).set(called.is_tripped)
        if called.outcome != "not_asked":
            self._call_durations.labels(called.upstream).observe(called.seconds)

    def _note_writer_waited(self, waited: WriterWaited) -> None:
        self._waits.observe(waited.seconds)

    def _note_audited(self, audited: Audited) -> None:
        self._acts.labels(audited.act, audited.outcome).inc()
        if audited.act == SIGN_IN:
            self._sign_ins.labels("succeeded" if audited.outcome == "allowed" else audited.reason).inc()

    def _note_throttled(self, throttled: Throttled) -> None:
        self._throttled.labels(throttled.limit).inc()

    def _note_streams_open(self, streams: StreamsOpen) -> None:
        self._streams.set(streams.count)

    def _note_logged(self, line: Logged) -> None:
        if line.level in LOUD:
            self._lines.labels(line.level, line.event).inc()


def shared_directory() -> str | None:
    """Return where the workers of one server keep their counts together; ``None`` for a worker alone."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR")
