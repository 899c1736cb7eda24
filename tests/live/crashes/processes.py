"""The processes that are killed: Quill as an operator runs it, and a PostgreSQL of this run's own."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2

PROGRAM = (sys.executable, "-c", "from quill.cli import main; main()")
READY_SECONDS = 90
"""How long a start may take on a busy machine before it counts as failed."""


class NotReady(RuntimeError):
    """A process did not come up; what it printed is in its log."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Quill:
    """One installation of Quill: its commands, and its server, which is killed and started again on the same port.

    Args:
        directory: where its data and its log are kept.
        settings: further settings, by the names of their environment variables.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.data_dir = directory / "data"
        self.log = directory / "quill.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QUILL_")}
        self.settings = {
            "QUILL_DATA_DIR": str(self.data_dir),
            "QUILL_PUBLIC_URL": self.url,
            "QUILL_LOG_LEVEL": "warning",
            # A run signs in once, and signing in is not what it is about.
            "QUILL_ACCESS_TOKEN_SECONDS": "86400",
            "QUILL_ARGON2_TIME_COST": "1",
            "QUILL_ARGON2_MEMORY_KIB": "8",
            "QUILL_ARGON2_PARALLELISM": "1",
            **settings,
        }
        self._environment = kept | self.settings
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run ``quill …`` to its end."""
        return subprocess.run(  # noqa: S603 - the program under test
            [*PROGRAM, *words],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_SECONDS,
        )

    def start(self) -> None:
        """Start the server; ``wait_until_ready`` tells when it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program under test
                [*PROGRAM, "serve", "--port", str(self.port)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End the server at once: it is told nothing and finishes nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def wait_until_ready(self) -> None:
        """Return once the server says that it can work.

        Raises:
            NotReady: it ended, or did not say so in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        async with httpx2.AsyncClient(base_url=self.url, timeout=5) as client:
            while time.monotonic() < deadline:
                if self._process is None or self._process.poll() is not None:
                    raise NotReady(f"quill serve ended; see {self.log}")
                try:
                    if (await client.get("/api/health/ready")).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.02)
        raise NotReady(f"quill serve did not become ready; see {self.log}")


class Postgresql:
    """A PostgreSQL server in a scratch directory, which keeps what it acknowledged as a careful operator would have it.

    Raises:
        NotReady: there is none on this machine, or it cannot be set up.
    """

    def __init__(self) -> None:
        self._programs = _postgresql_programs()
        self._user = "postgres" if os.geteuid() == 0 else None
        self._directory = Path(tempfile.mkdtemp(prefix="quill-crashes-postgresql-"))
        self._log = self._directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        password = secrets.token_urlsafe(24)
        self.url = f"postgresql+asyncpg://quill:{password}@127.0.0.1:{self.port}/postgres"
        kept = self._directory / "password"
        kept.write_text(password)
        if self._user is not None:
            for path in (self._directory, kept):
                shutil.chown(path, self._user)
        words = ["--username", "quill", "--pwfile", str(kept), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        done = subprocess.run(  # noqa: S603 - found by _postgresql_programs
            [self._programs / "initdb", "--pgdata", self._directory / "data", "--locale", "C.UTF-8", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._directory,
            user=self._user,
        )
        if done.returncode != 0:
            self.remove()
            raise NotReady(f"initdb failed: {done.stderr.strip()}")

    def start(self) -> None:
        """Start the server; nothing is turned off that protects what was committed."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._directory),
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - found by _postgresql_programs
                [self._programs / "postgres", "-D", self._directory / "data", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                user=self._user,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"PostgreSQL did not start; see {self._log}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server and every process of it at once, as when its machine goes down."""
        if self._process is None:
            return
        postmaster = self._process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None
        # A new server refuses to start while one of the old one's processes still holds the shared memory.
        while any(_is_alive(int(pid)) for pid in children):
            time.sleep(0.01)

    def remove(self) -> None:
        """End the server and delete its data."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accepts(self) -> bool:
        words = ["--quiet", "--host", "127.0.0.1", "--port", str(self.port)]
        return subprocess.run([self._programs / "pg_isready", *words], check=False).returncode == 0  # noqa: S603


def _postgresql_programs() -> Path:
    """Return the directory of the newest PostgreSQL's programs.

    Raises:
        NotReady: there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    elsewhere = shutil.which("initdb")
    found += [Path(elsewhere).resolve().parent] if elsewhere is not None else []
    for directory in found:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise NotReady("PostgreSQL is not installed on this machine")


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
