"""The server as a process: up, told to stop, up again with everything still there."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Run, environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(data_dir: Path, *words: str, **settings: str) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    port = free_port()
    # Its log goes to a file: a pipe that nobody reads is full after some hundred requests, and then the server waits.
    log = data_dir.with_name(f"log-{port}")
    with log.open("w") as file:
        process = subprocess.Popen(  # noqa: S603 - the program under test
            [*PROGRAM, "serve", "--port", str(port), *words],
            env=environment(data_dir, **settings),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,
        )
    process.stderr = log.open()
    try:
        wait_until_up(port, process)
        yield port, process
    finally:
        # With its workers, which would outlive it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


WITHIN_THE_SERVER = """
import gc, json, os, signal
from quill.cli.listening import listen_on
from quill.cli.serving import serve_on

def tell():
    print(json.dumps([gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects())]))
    os.kill(os.getpid(), signal.SIGTERM)

serve_on(listen_on("127.0.0.1", 0), tell)
"""


@pytest.mark.thorough
def test_server_looks_for_garbage_once_it_answers_but_not_among_what_its_start_made(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    within = [sys.executable, "-c", WITHIN_THE_SERVER]
    done = subprocess.run(  # noqa: S603 - the program under test
        within, env=environment(tmp_path / "data"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGTERM, done.stderr
    is_looking, kept, others = json.loads(done.stdout)
    assert is_looking
    assert kept > 50_000
    assert others < kept / 20


def wait_until_up(port: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended before it answered"
        try:
            if get(port, "/api/health/ready")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not come up")


def get(port: int, path: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}


@pytest.mark.thorough
def test_server_stops_cleanly_and_keeps_its_data(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    quill("create-organisation", "--name", "Riverside Surgery", "--type", "gp_practice")
    for told in (signal.SIGINT, signal.SIGTERM):
        with serving(tmp_path / "data") as (port, process):
            status, body, headers = get(port, "/api/health")
            assert (status, json.loads(body)["status"]) == (200, "healthy")
            assert "server" not in headers
            status, _, headers = get(port, "/")
            assert (status, headers["location"]) == (307, "/api/docs")
            assert "swagger-ui-bundle.js" in get(port, "/api/docs")[1]
            assert get(port, "/api/docs/static/swagger-ui-bundle.js")[0] == 200
            process.send_signal(told)
            process.wait(timeout=20)
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
    assert "1 events" in quill("audit", "verify").stdout


class Sending:
    """A connection on which a request is sent piece by piece, asking to keep it open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._socket.sendall(piece)

    def first_answer(self) -> bytes:
        """Return what came up to the end of a first JSON object."""
        answer = b""
        while not answer.endswith(b"}"):
            answer += self._socket.recv(65536) or b"closed}"
        return answer

    def answer(self) -> bytes:
        """Return all that came until the other side closed."""
        with self._socket.makefile("rb") as file:
            return file.read()

    def close(self) -> None:
        self._socket.close()


def test_body_is_never_longer_than_announced(quill: Run, tmp_path: Path) -> None:
    """The edge counts the bytes of those bodies only whose length nobody announces."""
    quill("migrate")
    post = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    body = b'{"username": "nobody", "password": "nothing"}'
    many = b"%x\r\n%s\r\n" % (100_000, b"x" * 100_000)

    def answer_to(port: int, *pieces: bytes) -> bytes:
        with closing(Sending(port)) as sending, suppress(ConnectionError):
            sending.send(*pieces)
            return sending.answer()
        return b""

    with serving(tmp_path / "data") as (port, _):
        length = b"Content-Length: %d\r\n" % len(body)
        assert b'"error_code":"invalid_credentials"' in answer_to(port, post, length, b"\r\n", body)
        # What follows is no part of it, and no request.
        assert b'"error_code":"invalid_credentials"' in answer_to(port, post, length, b"\r\n", body, b"x" * 2_000_000)
        chunked = b"Transfer-Encoding: chunked\r\n"
        assert b" 400 " in answer_to(port, post, length, chunked, b"\r\n", many)[:40]
        huge = answer_to(port, post, chunked, b"\r\n", *[many] * 30, b"0\r\n\r\n")
        assert huge == b"" or b'"error_code":"body_too_large"' in huge


REQUEST_LINE, REST_OF_HEAD = b"GET /api/health/live HTTP/1.1\r\n", b"Host: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK"


@pytest.mark.skipif(sys.platform != "linux", reason="only there can new connections be held up")
@pytest.mark.parametrize("workers", [pytest.param("1"), pytest.param("2", marks=pytest.mark.thorough)])
def test_requests_on_their_way_when_the_server_is_told_to_stop_are_answered(
    quill: Run, tmp_path: Path, workers: str
) -> None:
    quill("migrate")
    with serving(tmp_path / "data", "--workers", workers) as (port, process), ExitStack() as sockets:

        def connected() -> Sending:
            return sockets.enter_context(closing(Sending(port)))

        half_head, kept = connected(), connected()
        half_head.send(REQUEST_LINE)
        kept.send(REQUEST_LINE, REST_OF_HEAD)
        assert kept.first_answer().startswith(OK)
        # Nobody of the server runs: what comes now is neither accepted nor read when it hears that it is to stop.
        answering = [process.pid] if workers == "1" else children_of(process.pid)
        for pid in answering:
            os.kill(pid, signal.SIGSTOP)
        unread = [connected() for _ in range(20)]
        for one in (kept, *unread):
            one.send(REQUEST_LINE, REST_OF_HEAD)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for pid in answering:
            os.kill(pid, signal.SIGCONT)

        assert [one.answer()[: len(OK)] for one in (kept, *unread)] == [OK] * 21
        with pytest.raises(ConnectionError):
            connected()
        half_head.send(REST_OF_HEAD)
        answer = half_head.answer()
        assert answer.startswith(OK)
        assert b"connection: close" in answer.lower()
        process.wait(timeout=60)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_second_server_on_the_same_port_says_why_it_cannot(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    with serving(tmp_path / "data") as (port, _process):
        refused = quill("serve", "--port", str(port))
        assert refused.returncode == 1
        assert "is something there already?" in refused.stderr


@pytest.mark.thorough
def test_any_of_several_workers_tells_the_counts_of_all(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    metrics_port = free_port()
    counted = 'quill_http_requests_total{method="GET",route="/api/health/live",status="200"} 30.0'
    with serving(tmp_path / "data", "--workers", "2", QUILL_METRICS_PORT=str(metrics_port)) as (port, process):
        wait_for_workers(metrics_port, 2)
        for _ in range(30):
            assert get(port, "/api/health/live")[0] == 200
        scrapes = [get(metrics_port, "/metrics")[1] for _ in range(8)]
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    assert [counted in scrape for scrape in scrapes] == [True] * 8


def wait_for_workers(metrics_port: int, count: int) -> None:
    deadline = time.monotonic() + 40
    while get(metrics_port, "/metrics")[1].count("process_resident_memory_bytes{") < count:
        assert time.monotonic() < deadline, "not every worker came up"
        time.sleep(0.05)


def test_server_refuses_a_metrics_port_in_use(quill: Run) -> None:
    quill("migrate")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = quill("serve", "--port", str(free_port()), QUILL_METRICS_PORT=str(taken.getsockname()[1]))
    assert refused.returncode == 1
    assert "is something there already?" in refused.stderr


def test_server_that_cannot_trace_says_what_to_install(quill: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    refused = quill("serve", QUILL_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert refused.returncode == 1
    assert "quill[otel]" in refused.stderr


def test_server_refuses_tables_that_are_not_there(quill: Run) -> None:
    refused = quill("serve", "--port", str(free_port()))
    assert refused.returncode == 1
    assert "quill migrate" in refused.stderr
