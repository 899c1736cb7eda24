"""The processes that are killed: Quill as an operator runs it, and a PostgreSQL of this run's own."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2

from tests.live.postgresql import PostgreSQL
from tests.live.processes import NotReady, free_port

PROGRAM = (sys.executable, "-c", "from quill.cli import main; main()")
READY_SECONDS = 90
"""How long a start may take on a busy machine before it counts as failed."""


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
        return subprocess.run(
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
            self._process = subprocess.Popen(
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
        """Return once the server says that it can work and so can everything it depends on.

        Raises:
            NotReady: it ended, or did not say so in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        async with httpx2.AsyncClient(base_url=self.url, timeout=10) as client:
            while time.monotonic() < deadline:
                if self._process is None or self._process.poll() is not None:
                    raise NotReady(f"quill serve ended; see {self.log}")
                try:
                    if (await client.get("/api/health")).json()["status"] == "healthy":
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.02)
        raise NotReady(f"quill serve did not become ready; see {self.log}")


class Postgresql(PostgreSQL):
    """A PostgreSQL of this campaign's own, which keeps what it acknowledged as a careful operator would have it.

    Raises:
        Unavailable: there is none on this machine, and it cannot be installed.
    """

    def __init__(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="quill-crashes-postgresql-"))
        # The server runs as another user and must be able to pass through.
        self._scratch.chmod(0o711)
        super().__init__(
            self._scratch / "postgresql", {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
        )
        self.prepare()

    def kill(self) -> None:
        """End the server and every process of it at once, as when its machine goes down."""
        postmaster = self._process.pid if self._process is not None else None
        if postmaster is None:
            return
        children = [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
        super().kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A new server refuses to start while one of the old one's processes still holds the shared memory.
        while any(_is_alive(pid) for pid in children):
            time.sleep(0.01)

    def remove(self) -> None:
        """End the server and delete its data."""
        self.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
