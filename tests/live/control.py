"""Stopping, killing and starting single servers from a test, while a launcher in another process owns them.

The launcher listens on a Unix socket; ``QUILL_TEST_SERVERS`` names it. One JSON object per connection each way:
``{"server": "redis", "do": "kill"}`` is answered with ``{}`` or ``{"error": "…"}`` when it is done.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.live.processes import NotReady
from tests.live.server import Server

SOCKET_VARIABLE = "QUILL_TEST_SERVERS"
URL_VARIABLES = {
    "postgresql": "QUILL_TEST_DATABASE_URL",
    "redis": "QUILL_TEST_REDIS_URL",
    "fhir": "QUILL_TEST_FHIR_URL",
    "openehr": "QUILL_TEST_OPENEHR_URL",
}
"""Where a test finds the URL of each part of ``tests.live.servers``."""
_ACTIONS = ("start", "stop", "kill", "restart")


class RemoteServer:
    """A server the launcher runs; every method returns when it is done.

    Args:
        name: ``postgresql``, ``redis``, ``fhir`` or ``openehr``.
        url: where it is; the same after a restart.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._ask("start")

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._ask("stop")

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        self._ask("kill")

    def restart(self) -> None:
        """Stop it and start it again."""
        self._ask("restart")

    def _ask(self, action: str) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.environ[SOCKET_VARIABLE])
            connection.sendall(json.dumps({"server": self.name, "do": action}).encode() + b"\n")
            told = json.loads(connection.makefile().readline())
        if "error" in told:
            raise NotReady(told["error"])


def server(name: str) -> RemoteServer:
    """Return one of the launcher's servers, to be stopped, killed and started; only tests in ``outages`` may."""
    return RemoteServer(name, os.environ[URL_VARIABLES[name]])


class Control:
    """The launcher's end: carries out one request after the other, in the thread that asks for it."""

    def __init__(self, directory: Path, servers: Mapping[str, Server]) -> None:
        directory.mkdir(mode=0o700)
        self.path = directory / "socket"
        self._servers = servers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()

    def close(self) -> None:
        """Listen no longer."""
        self._listener.close()

    def serve(self, patience: float) -> None:
        """Carry out the next request, if one comes within ``patience`` seconds."""
        self._listener.settimeout(patience)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return
        with connection:
            connection.settimeout(10)
            answer = self._carry_out(connection.makefile().readline())
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _carry_out(self, line: str) -> dict[str, str]:
        asked = json.loads(line)
        server = self._servers.get(asked["server"])
        if server is None or asked["do"] not in _ACTIONS:
            return {"error": f"no such server or action: {line.strip()}"}
        try:
            getattr(server, asked["do"])()
        except NotReady as error:
            return {"error": str(error)}
        return {}
