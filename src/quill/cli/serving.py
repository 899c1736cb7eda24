"""Running the server, and saying where it is and who can sign in."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import typer
import uvicorn

from quill.cli.console import fail, open_services, read_settings, run
from quill.settings import Settings
from quill.telemetry.switches import TracingNotInstalled, check_installed

DRAIN_SECONDS = 20
"""How long requests under way may take to finish after the server was told to stop."""


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
    banner = "\n".join([f"Quill answers at http://{host}:{port}", *lines])
    options: dict[str, Any] = {
        "factory": True,
        "host": host,
        "port": port,
        "access_log": False,
        "log_config": None,
        # The edge works out where a request came from, with the proxies the settings trust.
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
    _check_free(host, port)
    if settings.metrics_port is not None:
        _check_free(settings.metrics_host, settings.metrics_port)
    if workers > 1:
        typer.echo(banner)
        with _counting_together():
            uvicorn.run("quill.app:from_environment", workers=workers, **options)
        return
    server = _AnnouncingServer(uvicorn.Config("quill.app:from_environment", **options), banner)
    server.run()
    if not server.started:
        raise typer.Exit(1)


class _AnnouncingServer(uvicorn.Server):
    """A server that says where it is once it answers."""

    def __init__(self, config: uvicorn.Config, banner: str) -> None:
        super().__init__(config)
        self._banner = banner

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            typer.echo(self._banner)


@contextlib.contextmanager
def _counting_together() -> Iterator[None]:
    """Give the workers a directory where each counts and any can tell for all; it goes with them."""
    with tempfile.TemporaryDirectory(prefix="quill-metrics-") as directory:
        # The Prometheus library looks for this name in each worker.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        try:
            yield
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise fail(f"Cannot listen on {host}:{port} ({error.strerror}); is something there already?") from None


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
