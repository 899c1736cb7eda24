"""Several workers behind one socket: all answer, those that die are replaced, and stopping fails no request."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_serving import get, serving

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
    # Three processes are started here; on a busy machine that takes its time.
    pytest.mark.timeout(240),
]

LOGIN = b'{"username": "nobody", "password": "wrong"}'


def workers_of(process: "subprocess.Popen[str]") -> set[int]:
    """Return the processes that serve, by number."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(port: int) -> bool:
    try:
        return get(port, "/api/health/ready")[0] == 200
    except OSError:
        return False


@contextlib.contextmanager
def paused(*workers: int) -> Iterator[None]:
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)


class Callers:
    """Strangers who open a connection for each request, until they are refused one."""

    def __init__(self, port: int, count: int = 4) -> None:
        self.answered = 0
        self.failed: list[BaseException] = []
        self._port = port
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.connect()
            except OSError:
                # Nothing was sent: whoever stands in front asks another server.
                return
            try:
                connection.request("GET", "/api/health/live")
                assert connection.getresponse().status == 200
                self.answered += 1
            except Exception as error:  # noqa: BLE001 - told by the test
                self.failed.append(error)
            finally:
                connection.close()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()


class HalfSent:
    """A request of which the second half is sent later."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        head = f"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LOGIN)}\r\n"
        self._socket.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + LOGIN[:10])

    def finish(self) -> bytes:
        self._socket.sendall(LOGIN[10:])
        with self._socket, self._socket.makefile("rb") as file:
            return file.read()


def test_workers_answer_are_replaced_and_stop_without_failing_a_request(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    with serving(tmp_path / "data", "--workers", "2") as (port, process):
        assert process.stdout is not None
        assert process.stdout.readline() == f"Quill answers at http://127.0.0.1:{port}\n"
        first, second = workers_of(process)
        for other in (first, second):
            with paused(other):
                until(lambda: answers(port))

        os.kill(first, signal.SIGKILL)
        until(lambda: len(workers_of(process) - {first}) == 2)
        (third,) = workers_of(process) - {first, second}
        with paused(second):
            until(lambda: answers(port))
        assert workers_of(process) == {second, third}

        callers, half_sent = Callers(port), HalfSent(port)
        until(lambda: callers.answered > 20)
        process.send_signal(signal.SIGTERM)
        # Nobody is let in any more, and what is under way is finished.
        callers.wait()
        answer = half_sent.finish()
        assert b"400 Bad Request" in answer
        assert b"connection: close" in answer.lower()
        assert process.wait(timeout=60) == 0
        assert callers.failed == []
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert not Path(f"/proc/{second}").exists()
    assert quill("audit", "verify").returncode == 0
