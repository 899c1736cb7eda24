"""PostgreSQL from the distribution's packages, in a directory of its own."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.live import packages
from tests.live.processes import NotReady, Process, Unavailable, free_port
from tests.live.server import Server

SUPERUSER = "quill"


class PostgreSQL(Server):
    """A PostgreSQL cluster with password authentication; its superuser owns the database for Quill.

    Args:
        directory: a directory of its own, for data and log.
        settings: further server settings; the last word where one is ours too.
        may_install: whether the distribution's package is installed when it is missing.
    """

    name = "postgresql"
    title = "PostgreSQL"
    stops_with = signal.SIGINT  # its "fast" shutdown: does not wait for clients to leave

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None, *, may_install: bool = True) -> None:
        super().__init__(directory)
        self._settings = dict(settings or {})
        self._may_install = may_install
        self.port = free_port()
        self._password = secrets.token_urlsafe(24)
        self._programs: Path | None = None
        self._user = "postgres" if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://{SUPERUSER}:{self._password}@127.0.0.1:{self.port}/quill"

    @property
    def version(self) -> str:
        return self.run("postgres", "--version").split()[2]

    @property
    def environment(self) -> dict[str, str]:
        return {"QUILL_TEST_DATABASE_URL": self.url}

    def prepare(self) -> None:
        self._programs = _find_programs()
        if self._programs is None and self._may_install:
            packages.install("postgresql")
            self._programs = _find_programs()
        if self._programs is None:
            raise Unavailable("there is no initdb, from the distribution's package or elsewhere")
        if self._user is not None:
            _check_user(self._user)
            shutil.chown(self.directory, self._user)

    def process(self) -> Process:
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if self._user is not None:
            shutil.chown(password_file, self._user)
        data = self.directory / "data"
        self.run(
            *("initdb", "--pgdata", str(data), "--username", SUPERUSER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "300",
            # The data need not survive a power cut. It must survive the server's crash, so commits stay synchronous.
            "fsync": "off",
            "full_page_writes": "off",
            **self._settings,
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        command = [self._program("postgres"), "-D", str(data), "-p", str(self.port), *options]
        return Process(command, self.directory, user=self._user, orphaned=signal.SIGQUIT)

    def ready(self) -> bool:
        try:
            self.sql("SELECT 1")
        except NotReady:
            return False
        return True

    def wait(self) -> None:
        """Wait until it answers, and make the database for Quill the first time."""
        super().wait()
        if not self.sql("SELECT 1 FROM pg_database WHERE datname = 'quill'"):
            self.sql("CREATE DATABASE quill")

    def start(self) -> None:
        """Start it; after a kill its last children may still be leaving, and it refuses to start beside them."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return super().start()
            except NotReady:
                if time.monotonic() > deadline:
                    raise

    def sql(self, statements: str, database: str = "postgres") -> str:
        """Run statements as the superuser and return what they print, columns unaligned."""
        return self.run(
            *("psql", "--host", "127.0.0.1", "--port", str(self.port), "--username", SUPERUSER),
            *("--dbname", database, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only"),
            *("--set", "ON_ERROR_STOP=1"),
            text=statements,
        )

    def run(self, program: str, *arguments: str, text: str = "") -> str:
        """Run one of PostgreSQL's programs as its user and return its output.

        Raises:
            NotReady: it failed; with what it said.
        """
        done = subprocess.run(
            [self._program(program), *arguments],
            cwd=self.directory,
            env=os.environ | {"PGPASSWORD": self._password, "PGCONNECT_TIMEOUT": "5"},
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            input=text,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise NotReady(f"{program} failed: {done.stderr}")
        return done.stdout

    def _program(self, name: str) -> str:
        assert self._programs is not None
        return str(self._programs / name)


def _find_programs() -> Path | None:
    """Return the directory of the newest server's programs."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parent.name), reverse=True
    )
    if (initdb := shutil.which("initdb")) is not None:
        installed.append(Path(initdb).parent)
    for place in installed:
        if (place / "initdb").exists() and (place / "postgres").exists() and (place / "psql").exists():
            return place
    return None


def _check_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError as error:
        raise Unavailable(f"it refuses to run as root, and there is no user {name} to run it as") from error
