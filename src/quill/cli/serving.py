"""Running the server, and saying where it is and who can sign in."""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import typer
import uvicorn

from quill.cli import workers as processes
from quill.cli.console import fail, open_services, read_settings, run
from quill.cli.listening import Connection, listen_on, wait_for_the_last
from quill.kit import garbage
from quill.settings import Settings
from quill.telemetry.switches import TracingNotInstalled, check_installed

DRAIN_SECONDS = 20
"""How long requests under way may take to finish after the server was told to stop."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than proxies keep theirs (nginx: 60 s), so that the proxy ends it. Were
it us, a request could meet the end on its way, and a proxy does not repeat what changes something."""


def serve(*, host: str, port: int, workers: int, is_demo: bool) -> None:
    """Serve until told to stop.

    Raises:
        Exit: 1, the settings, the tables or the address do not allow it.
    """
    settings = read_settings()
    try:
        check_installed(settings)
    except TracingNotInstalled as error:
        raise fail(str(error)) from None
    lines = _prepare_demo(settings) if is_demo else _prepare(settings)
    if settings.metrics_port is not None:
        # Each worker opens it by itself; here it is tried, so that the reason is told where somebody looks.
        _listen_on(settings.metrics_host, settings.metrics_port).close()
    listener = _listen_on(host, port)
    banner = "\n".join([f"Quill answers at http://{host}:{listener.getsockname()[1]}", *lines])
    if workers > 1:
        garbage.resume()
        supervisor = processes.Supervisor(serve_on, listener, workers, settings.stop_notice_seconds)
        with _counting_together(settings):
            is_well = supervisor.run(lambda: typer.echo(banner))
    else:
        is_well = serve_on(listener, lambda: typer.echo(banner), holds_connections=True)
    if not is_well:
        raise typer.Exit(1)


def _listen_on(host: str, port: int) -> socket.socket:
    try:
        return listen_on(host, port)
    except OSError as error:
        raise fail(f"Cannot listen on {host}:{port} ({error.strerror}); is something there already?") from None


@contextlib.contextmanager
def _counting_together(settings: Settings) -> Iterator[None]:
    """Give the workers a directory where each counts and any can tell for all; it goes with them."""
    if settings.metrics_port is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="quill-metrics-") as directory:
        # The Prometheus library looks for this name in each worker.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        try:
            yield
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def serve_on(listener: socket.socket, on_ready: Callable[[], None], *, holds_connections: bool = False) -> bool:
    """Serve on a listening socket until told to stop.

    Args:
        listener: where requests come in.
        on_ready: called once the server answers.
        holds_connections: whether this process alone has the socket, and so may hold up new connections at its end.

    Returns:
        Whether it ever answered.
    """
    options: dict[str, Any] = {
        "factory": True,
        "http": Connection,
        "access_log": False,
        "log_config": None,
        # The edge works out where a request came from, with the proxies the settings trust.
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
    }
    garbage.pause()
    server = _Server(uvicorn.Config("quill.app:from_environment", **options), on_ready, holds_connections)
    server.run([listener])
    return server.started


class _Server(uvicorn.Server):
    """A server that says when it answers, and at its end accepts whoever has connected already."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], holds_connections: bool) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._holds_connections = holds_connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        garbage.resume()
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._holds_connections:
            for listener in sockets or []:
                # In a thread, since it is this loop that accepts.
                await asyncio.to_thread(wait_for_the_last, listener)
        await super().shutdown(sockets)


def _prepare(settings: Settings) -> list[str]:
    async def check() -> None:
        async with open_services(settings):
            pass

    run(check)
    return _where_data_lies(settings)


def _prepare_demo(settings: Settings) -> list[str]:
    from quill.cli import demo, schema

    if settings.is_production:
        raise fail("A demo clinic has known people in it; it is for development only.")
    schema.migrate()
    accounts = demo.ensure_clinic(settings)
    return [*_where_data_lies(settings), "Interactive API pages: /api/docs", *demo.describe(accounts)]


def _where_data_lies(settings: Settings) -> list[str]:
    if settings.database_url is not None:
        return ["Data lies in the configured database."]
    return [f"Data lies in {settings.data_dir.absolute()}"]
