"""Sending requests and taking the time: wrk in a closed loop, or ``clients`` where an answer shapes what follows."""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.scenarios import HERE, Call
from bench.servers import ROOT, Served, on_core

SCRIPT = HERE / "drive.lua"
LONGEST_ROUND_SECONDS = 30


class Failed(Exception):
    """What was measured is not what should have been: a refused or broken answer."""


@dataclass(frozen=True, slots=True)
class Round:
    """One short run: requests a second, the times of answers, and the server's processor time for one, in seconds."""

    per_second: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What rounds of one side came to: the median of each figure."""

    per_second: float
    p50: float
    p99: float
    cpu: float


def median(rounds: Sequence[Round]) -> Measured:
    """Return the medians of some rounds."""
    return Measured(
        statistics.median(found.per_second for found in rounds),
        statistics.median(found.p50 for found in rounds),
        statistics.median(found.p99 for found in rounds),
        statistics.median(found.cpu for found in rounds),
    )


def round_of(result: Mapping[str, Any], cpu_seconds: float) -> Round:
    """Return a round from a driver's result and the processor time the server used meanwhile."""
    count = result["requests"]
    return Round(count / result["seconds"], result["p50"], result["p99"], cpu_seconds / count)


def has_wrk() -> bool:
    """Tell whether wrk is installed."""
    return shutil.which("wrk") is not None


def ask(server: Served, call: Call) -> bytes:
    """Send one request and return the answer's body; raises ``Failed`` when it is refused."""
    request = urllib.request.Request(
        f"http://{server.host}{call.path}",
        method=call.method,
        headers=dict(call.headers) | ({"Content-Type": "application/json"} if call.body else {}),
        data=call.body.encode() if call.body is not None else None,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        raise Failed(f"{call.method} {call.path} was answered {error.code}: {error.read(300)!r}") from error


class Wrk:
    """Sends one side's requests with wrk; goes on where the round before ended."""

    def __init__(self, server: Served, calls: Sequence[Call], *, connections: int, core: int | None) -> None:
        self._server = server
        self._connections = connections
        self._core = core
        self._at = 0
        self._file = tempfile.NamedTemporaryFile(prefix="calls-")  # noqa: SIM115 - lives as long as this does
        for call in calls:
            raw = call.raw(server.host)
            self._file.write(b"%d\n%s" % (len(raw), raw))
        self._file.flush()

    def begin_anew(self) -> None:
        """Go back to the first request."""
        self._at = 0

    def run(self, seconds: int) -> Round:
        """Run one round, a longer one when nothing was answered; raises ``Failed`` for an answer not 2xx or 3xx."""
        command = [
            *("wrk", "--threads", "1", "--connections", str(self._connections), "--duration", f"{seconds}s"),
            *("--timeout", "20s", "--script", str(SCRIPT), f"http://{self._server.host}"),
            *("--", self._file.name, str(self._at)),
        ]
        cpu = self._server.cpu_seconds
        done = subprocess.run(on_core(self._core, command), capture_output=True, text=True, check=False)
        result = _result(done)
        self._at += int(result["requests"])
        if not result["requests"] and seconds < LONGEST_ROUND_SECONDS:
            return self.run(3 * seconds)
        if result["refused"] or result["broken"] or not result["requests"]:
            raise Failed(f"{result['refused']} refused, {result['broken']} broken of {result['requests']} requests")
        return round_of(result, self._server.cpu_seconds - cpu)


def run_client(words: Sequence[str], task: dict[str, Any], core: int | None) -> dict[str, Any]:
    """Run a client of ours in a process of its own; its task goes in, and its result comes out, as JSON."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bench.clients import main; main()"
    done = subprocess.run(
        on_core(core, [sys.executable, "-c", program, *words]),
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    return _result(done)


def _result(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return result
    raise Failed(f"The driver ended with status {done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}")
