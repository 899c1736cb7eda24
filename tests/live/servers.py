"""Start PostgreSQL, Redis, HAPI FHIR and EHRbase for tests: ``python -m tests.live.servers up`` or ``run -- COMMAND``.

All of them listen on free loopback ports, with passwords made for this run, and keep everything in one scratch
directory that is removed with them. A part that cannot be had on this machine is left out and said so.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tests.live.control import SOCKET_VARIABLE, Control
from tests.live.java_servers import Ehrbase, Hapi
from tests.live.postgresql import PostgreSQL
from tests.live.processes import NotReady, Unavailable
from tests.live.redis import Redis
from tests.live.server import Server

PARTS = ("postgresql", "redis", "fhir", "openehr")


class Servers:
    """The servers of one run, in one scratch directory.

    Args:
        parts: which of ``PARTS`` to start.
        h2: let HAPI FHIR keep its records in a file of its own instead of PostgreSQL.
        open_openehr: let EHRbase ask for no password.
    """

    def __init__(self, parts: Sequence[str] = PARTS, *, h2: bool = False, open_openehr: bool = False) -> None:
        self._wanted = parts
        self._h2 = h2
        self._open_openehr = open_openehr
        self._begun: list[Server] = []
        self.skipped: dict[str, str] = {}
        # PostgreSQL runs as another user and must be able to pass through.
        self._scratch = Path(tempfile.mkdtemp(prefix="quill-live-"))
        self._scratch.chmod(0o711)
        self.running: dict[str, Server] = {}
        self.control = Control(self._scratch / "control", self.running)

    @property
    def environment(self) -> dict[str, str]:
        """Return what tests find in their environment about the servers."""
        environment = {SOCKET_VARIABLE: str(self.control.path)}
        for server in self.running.values():
            environment |= server.environment
        return environment

    def start(self) -> None:
        """Start what was asked for, HAPI FHIR and EHRbase side by side; say what runs and what was left out, and why.

        Raises:
            NotReady: a server that was started does not answer.
        """
        began = time.monotonic()
        postgresql = PostgreSQL(self._scratch / "postgresql")
        database = postgresql if self._prepare(postgresql) else None
        redis = Redis(self._scratch / "redis")
        quick: list[Server] = [redis] if self._prepare(redis) else []
        if database is not None:
            quick.append(database)
        slow: list[Server] = [
            Hapi(self._scratch / "fhir", None if self._h2 else database),
            Ehrbase(self._scratch / "openehr", database, asks_for_password=not self._open_openehr),
        ]
        slow = [server for server in slow if self._prepare(server)]
        for server in quick:
            server.launch()
            self._wait(server, began)
        slow = [server for server in slow if self._launch(server)]
        for server in slow:
            self._wait(server, began)
        for title, reason in self.skipped.items():
            print(f"skipped: {title} ({reason})", flush=True)

    def close(self) -> None:
        """End every server at once, and remove what they kept."""
        self.control.close()
        for server in reversed(self._begun):
            server.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _prepare(self, server: Server) -> bool:
        if server.name not in self._wanted:
            return False
        self._begun.append(server)
        try:
            server.prepare()
        except Unavailable as reason:
            self.skipped[server.title] = str(reason)
            return False
        return True

    def _launch(self, server: Server) -> bool:
        try:
            server.launch()
        except Unavailable as reason:
            self.skipped[server.title] = str(reason)
            return False
        return True

    def _wait(self, server: Server, began: float) -> None:
        server.wait()
        self.running[server.name] = server
        print(f"{server.title} {server.version}: ready after {time.monotonic() - began:.0f} s", flush=True)


@contextlib.contextmanager
def started(servers: Servers) -> Iterator[Servers]:
    """Start servers; end them when the block ends, whatever ends it, SIGTERM and SIGINT included."""
    for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(which, _end)
    try:
        servers.start()
        yield servers
    finally:
        for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(which, signal.SIG_IGN)
        servers.close()


def up(servers: Servers, file: Path) -> NoReturn:
    """Keep the servers running until a signal comes; meanwhile a file, for our eyes only, tells where they are."""
    with started(servers):
        try:
            file.unlink(missing_ok=True)
            file.touch(mode=0o600)
            file.write_text("".join(f"{name}={value}\n" for name, value in servers.environment.items()))
            print(f"Their addresses are in {file}; end them with Ctrl-C", flush=True)
            while True:
                servers.control.serve(patience=3600)
        finally:
            file.unlink(missing_ok=True)


def run(servers: Servers, command: Sequence[str]) -> int:
    """Run a command with the servers in its environment; return its exit status."""
    with started(servers), _child(command, servers.environment) as child:
        while child.poll() is None:
            servers.control.serve(patience=0.1)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode


@contextlib.contextmanager
def _child(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, env=os.environ | dict(environment))
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.servers", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="start this part; may be repeated")
    parser.add_argument("--h2", action="store_true", help="HAPI FHIR on an H2 file instead of PostgreSQL")
    parser.add_argument("--open-openehr", action="store_true", help="EHRbase without a password")
    commands = parser.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("up", help="keep them running until Ctrl-C")
    keep.add_argument("--env-file", type=Path, default=Path("live.env"), help="where to write their addresses")
    once = commands.add_parser("run", help="run a command with them")
    once.add_argument("argv", nargs="+", metavar="COMMAND")
    asked = parser.parse_args()
    servers = Servers(asked.only or PARTS, h2=asked.h2, open_openehr=asked.open_openehr)
    try:
        return up(servers, asked.env_file.resolve()) if asked.command == "up" else run(servers, asked.argv)
    except NotReady as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
