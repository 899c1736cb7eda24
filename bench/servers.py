"""What is measured, as real processes: ``quill serve`` with one worker, the floor, and the databases below them."""

import contextlib
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.live.postgresql import PostgreSQL
from tests.live.processes import Process, answers, free_port, wait_until

from bench.floor import DATABASE_VARIABLE
from quill.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 60
PRODUCTION = {
    "QUILL_ENVIRONMENT": "production",
    "QUILL_PUBLIC_URL": "https://quill.example",
    # Tokens are made when the clinic is filled, and must last until the last round.
    "QUILL_ACCESS_TOKEN_SECONDS": "86400",
}
"""Measured as it is operated: strict settings, log lines as JSON."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which processors serve and which drive; everything may run everywhere where there is one only."""

    server: int | None
    driver: int | None

    @classmethod
    def found(cls) -> "Cores":
        """Return the first two that this process may use."""
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(usable) < 2 or shutil.which("taskset") is None:
            return cls(None, None)
        return cls(usable[0], usable[1])


def on_core(core: int | None, command: list[str]) -> list[str]:
    """Return a command that runs on one processor."""
    return command if core is None else ["taskset", "--cpu-list", str(core), *command]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an installation of Quill keeps things: its directory, and the settings that say so."""

    directory: Path
    values: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process of this installation finds in its environment."""
        return {f"QUILL_{name.upper()}": value for name, value in self.values.items()}

    @property
    def settings(self) -> Settings:
        """Return the same as settings, whatever else is in our environment."""
        return Settings.model_validate(
            {**self.values, "access_token_seconds": int(PRODUCTION["QUILL_ACCESS_TOKEN_SECONDS"])}
        )

    @property
    def database_url(self) -> str:
        """Return where its tables are."""
        return self.settings.resolved_database_url


def new_place(directory: Path, database_url: str | None = None) -> Place:
    """Return a new installation, on SQLite in its directory unless a database is given."""
    directory.mkdir(parents=True)
    values = {"data_dir": str(directory), "secret_key": secrets.token_urlsafe(48), "log_level": "warning"}
    return Place(directory, values | ({"database_url": database_url} if database_url else {}))


class Served:
    """A server that answers on a port of its own.

    Attributes:
        seconds_to_first_answer: from starting the process until its health was answered.
    """

    def __init__(self, process: Process, port: int, health: str) -> None:
        self._process = process
        self.port = port
        self._health = f"http://127.0.0.1:{port}{health}"
        self.seconds_to_first_answer = 0.0

    @property
    def host(self) -> str:
        """Return what the ``Host`` header says."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the number of its process, which must run."""
        pid = self._process.pid
        if pid is None:
            raise RuntimeError("The server is not running.")
        return pid

    @property
    def rss_bytes(self) -> int | None:
        """Return the memory it holds (``VmRSS``, proc(5)); ``None`` where the system does not say."""
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return None

    @property
    def cpu_seconds(self) -> float:
        """Return the processor time it and its workers have used; 0 where the system does not say."""
        return _cpu_seconds(self.pid)

    def start(self) -> None:
        """Start it and wait for its first answer."""
        began = time.monotonic()
        self._process.start()
        wait_until("server", lambda: answers(self._health, {}) is not None, self._process, PATIENCE_SECONDS)
        self.seconds_to_first_answer = time.monotonic() - began

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._process.end(signal.SIGTERM, patience=15)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stop its clock for a while, so that what it does on its own time does not disturb its neighbour."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def spread(self) -> None:
        """Let it use every processor."""
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), os.sched_getaffinity(0))


def _cpu_seconds(pid: int) -> float:
    """Return ``utime`` and ``stime`` of a process and those it started and still has (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        started = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _started_by(task)]
    except FileNotFoundError:
        return 0.0
    return own + sum(map(_cpu_seconds, started))


def _started_by(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def quill_server(place: Place, core: int | None, workers: int = 1) -> Served:
    """Return a Quill that serves an installation."""
    port = free_port()
    words = ["serve", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    program = [sys.executable, "-c", "from quill.cli import main; main()", *words]
    environment = place.environment | PRODUCTION | {"QUILL_LOG_LEVEL": "info"}
    directory = place.directory / f"quill-{port}"
    return Served(_process(on_core(core, program), directory, environment), port, "/api/health/live")


def floor_server(place: Place, core: int | None) -> Served:
    """Return the floor on the same tables."""
    port = free_port()
    words = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bench.floor import serve; serve({port})"
    environment = {DATABASE_VARIABLE: place.database_url}
    command = on_core(core, [sys.executable, "-c", words])
    return Served(_process(command, place.directory / "floor", environment), port, "/health")


def _process(command: list[str], directory: Path, environment: Mapping[str, str]) -> Process:
    directory.mkdir(exist_ok=True)
    return Process(command, directory, environment=environment)


@contextlib.contextmanager
def running(*servers: Served) -> Iterator[None]:
    """Start servers one after the other, and stop them when the block ends."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


@contextlib.contextmanager
def postgresql(directory: Path) -> Iterator[PostgreSQL]:
    """Run a PostgreSQL of our own whose commits reach the disk.

    Raises:
        Unavailable: there is none on this machine.
    """
    server = PostgreSQL(directory, {"fsync": "on", "full_page_writes": "on"}, may_install=False)
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def make_database(server: PostgreSQL, name: str) -> str:
    """Make a database and return its address."""
    server.sql(f'CREATE DATABASE "{name}"')
    return server.url.rpartition("/")[0] + f"/{name}"
