"""Redis from the distribution's packages."""

import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from tests.live import packages
from tests.live.processes import Process, free_port
from tests.live.server import Server


class Redis(Server):
    """A Redis that asks for a password and keeps nothing over a restart."""

    name = "redis"
    title = "Redis"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def version(self) -> str:
        told = subprocess.run(["redis-server", "--version"], text=True, capture_output=True, check=True)
        return told.stdout.split("v=")[1].split()[0]

    @property
    def environment(self) -> dict[str, str]:
        return {"QUILL_TEST_REDIS_URL": self.url}

    def prepare(self) -> None:
        if shutil.which("redis-server") is None:
            packages.install("redis-server")

    def process(self) -> Process:
        settings = self.directory / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind 127.0.0.1\nport {self._port}\nrequirepass {self._password}\ndir {self.directory}\n"
            'save ""\nappendonly no\n'
        )
        return Process(["redis-server", str(settings)], self.directory)

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
                return b"+PONG" in connection.makefile("rb").read()
        except OSError:
            return False
