"""Serving the metrics on a port of their own, from a thread: a busy application answers a scrape all the same.

Workers of one server count into files of a directory they share, and all listen on the one port; whichever is asked
tells for all of them.
"""

import asyncio
import contextlib
import os
import socket
import socketserver
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy as sa
import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy.pool import QueuePool

from quill.kit import observing
from quill.kit.database import Database
from quill.kit.logs import where
from quill.telemetry.collectors import QueueCollector, WorkersCollector, living_workers
from quill.telemetry.meters import Meters, shared_directory

PATH = "/metrics"
CLIENT_SECONDS = 10.0
"""How long a scraper may take to ask and to read."""

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def measuring(database: Database, host: str, port: int) -> AsyncIterator[None]:
    """Count what happens and serve it while the application runs.

    Raises:
        OSError: the address cannot be listened on.
    """
    # When a series began is a series of its own, which nobody here asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    counted, told = CollectorRegistry(), CollectorRegistry()
    meters = Meters(counted)
    told.register(QueueCollector(database, asyncio.get_running_loop()))
    shared = shared_directory()
    if shared is None:
        told.register(WorkersCollector(lambda: [os.getpid()]))
        told.register(counted)
    else:
        directory = Path(shared)
        # Looked up first: what a dead worker left behind is gone before the files are read.
        told.register(WorkersCollector(lambda: living_workers(directory)))
        MultiProcessCollector(told, shared)  # type: ignore[no-untyped-call]
    with (
        observing.watching(meters.note),
        _watching_connections(database, meters),
        _serving(told, host, port, is_shared=shared is not None),
    ):
        yield


@contextlib.contextmanager
def _watching_connections(database: Database, meters: Meters) -> Iterator[None]:
    engine = database.engine.sync_engine
    # As many again may be opened for a burst.
    limit = engine.pool.size() if isinstance(engine.pool, QueuePool) else 1

    def taken(*_: object) -> None:
        meters.note_connections(_in_use(engine), limit)

    def given_back(*_: object) -> None:
        # The pool tells before it takes the connection back.
        meters.note_connections(max(0, _in_use(engine) - 1), limit)

    meters.note_connections(_in_use(engine), limit)
    sa.event.listen(engine, "checkout", taken)
    sa.event.listen(engine, "checkin", given_back)
    try:
        yield
    finally:
        sa.event.remove(engine, "checkout", taken)
        sa.event.remove(engine, "checkin", given_back)


def _in_use(engine: sa.Engine) -> int:
    return engine.pool.checkedout() if isinstance(engine.pool, QueuePool) else 0


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, registry: CollectorRegistry, host: str, port: int, *, is_shared: bool) -> None:
        self.registry = registry
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.allow_reuse_port = is_shared
        super().__init__((host, port), _Handler)

    def handle_error(self, *_: object) -> None:
        """Log what went wrong as a line; a scraper that went away is no news."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            log.warning("scrape_failed", cause=where(error))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_SECONDS
    server_version = "quill"
    sys_version = ""

    def do_GET(self) -> None:
        if urlsplit(self.path).path != PATH:
            self.send_error(404)
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: scrapes come every few seconds."""


@contextlib.contextmanager
def _serving(registry: CollectorRegistry, host: str, port: int, *, is_shared: bool) -> Iterator[None]:
    with _Server(registry, host, port, is_shared=is_shared) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
