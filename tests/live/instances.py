"""Real servers as processes of their own, on free ports of this machine, gone when the test is."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 60.0


def free_port() -> int:
    """Return a port nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(is_so: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "It has not come about in time."
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Tell whether somebody takes connections on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Server:
    """A program that serves on one port.

    Args:
        command: its words.
        port: where it listens.
        is_up: tells whether it answers.
        environment: added to ours.
        log: file that takes what it says.
    """

    def __init__(
        self,
        command: list[str],
        port: int,
        *,
        is_up: Callable[[int], bool] = is_listening,
        environment: Mapping[str, str] | None = None,
        log: Path,
    ) -> None:
        self.port = port
        self._command = command
        self._is_up = is_up
        self._environment = dict(environment or os.environ)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        process = self._process

        def is_up() -> bool:
            assert process.poll() is None, self._log.read_text()[-2000:]
            return self._is_up(self.port)

        until(is_up)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Tell it to stop and return once it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(STOP_SECONDS)

    def end(self) -> None:
        """End it whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def has(program: str) -> bool:
    """Tell whether a program is installed."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") is not None


def path_of(program: str) -> str:
    """Return where a program is."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found is not None
    return found


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[Server]:
    """Run a Redis that keeps nothing on disk."""
    port = free_port()
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory)]
    server = Server([path_of("redis-server"), *words], port, log=directory / "redis.log")
    server.start()
    try:
        yield server
    finally:
        server.send(signal.SIGCONT)
        server.end()


def quill_command(*words: str) -> list[str]:
    """Return the words that run ``quill …`` with this Python."""
    return [sys.executable, "-c", "from quill.cli import main; main()", *words]
