"""Clients for what wrk cannot drive: tokens that change with each answer, streams, and two loads side by side.

Run in a process of their own (``driver.run_client``). ``refresh`` is a closed loop; ``beside`` and ``streams`` send on
a clock, whether answers have come or not (open loop), and take the time from when a request was due.
"""

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.scenarios import Call

Task = dict[str, Any]
READ_SECONDS = 60.0


class Connection:
    """One connection that is kept, for one request after the other (RFC 9112)."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, call: Call) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send a request; return status, headers and body."""
        reader, status, headers = await self.begin(call)
        length = int(next(value for name, value in headers if name == "content-length"))
        return status, headers, await reader.readexactly(length)

    async def begin(self, call: Call) -> tuple[asyncio.StreamReader, int, list[tuple[str, str]]]:
        """Send a request; return where its body comes from, status and headers."""
        if self._streams is None:
            name, _, port = self._host.partition(":")
            self._streams = await asyncio.open_connection(name, int(port))
        reader, writer = self._streams
        writer.write(call.raw(self._host))
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), READ_SECONDS)).decode("latin-1").split("\r\n")
        parted = (line.partition(":") for line in head[1:] if line)
        return reader, int(head[0].split()[1]), [(name.strip().lower(), value.strip()) for name, _, value in parted]

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


def percentile(times: Sequence[float], share: float) -> float:
    """Return the time within which this share of the answers came."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(times: Sequence[float], seconds: float, refused: int) -> Task:
    """Return a result in the form that ``drive.lua`` has."""
    return {
        "seconds": seconds,
        "requests": len(times),
        "p50": percentile(times, 0.5),
        "p99": percentile(times, 0.99),
        "refused": refused,
    }


async def refresh(task: Task) -> Task:
    """Refresh one login after the other, each with the token its last answer gave; a closed loop."""
    tokens: list[str] = task["tokens"]
    waiting = list(range(len(tokens)))[::-1]
    times: list[float] = []
    refused = 0
    began = time.perf_counter()

    async def one() -> None:
        nonlocal refused
        connection = Connection(task["host"])
        while time.perf_counter() - began < task["seconds"] and waiting:
            number = waiting.pop()
            sent = time.perf_counter()
            call = Call("POST", task["path"], {"Cookie": f"refresh_token={tokens[number]}"})
            status, headers, _ = await connection.ask(call)
            times.append(time.perf_counter() - sent)
            refused += status >= 400
            tokens[number] = _cookie(headers, "refresh_token") or tokens[number]
            waiting.insert(0, number)
        connection.close()

    await asyncio.gather(*(one() for _ in range(task["connections"])))
    return summary(times, time.perf_counter() - began, refused) | {"tokens": tokens}


async def beside(task: Task) -> Task:
    """Ask at one rate while others sign in at another; both on a clock."""
    asked = asyncio.create_task(_on_a_clock(task["host"], [_call(task["call"])], task["per_second"], task["seconds"]))
    calls = [_call(entry) for entry in task["sign_ins"]]
    signed_in = asyncio.create_task(_on_a_clock(task["host"], calls, task["sign_ins_per_second"], task["seconds"]))
    times, refused = await asked
    hashed, also_refused = await signed_in
    return summary(times, task["seconds"], refused + also_refused) | {"sign_ins": len(hashed)}


async def _on_a_clock(host: str, calls: Sequence[Call], per_second: float, seconds: float) -> tuple[list[float], int]:
    """Send requests when they are due; return how long after that each was answered, and how many were refused."""
    free: list[Connection] = []
    times: list[float] = []
    refused = 0
    began = time.perf_counter()

    async def one(due: float, call: Call) -> None:
        nonlocal refused
        connection = free.pop() if free else Connection(host)
        status, _, _ = await connection.ask(call)
        times.append(time.perf_counter() - due)
        refused += status >= 400
        free.append(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due, calls[number % len(calls)]))
    for connection in free:
        connection.close()
    return times, refused


class Tally:
    """What streams were told, and when; ``expected`` is how often they should be told anything."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.ready = asyncio.Semaphore(0)
        self.opening = asyncio.Semaphore(50)
        self.sent_at: dict[int, float] = {}
        self.newest = 0.0
        self.arrived: list[float] = []
        self.is_whole = asyncio.Event()

    def note(self, message_id: int) -> None:
        """A stream was told of a message; of one whose number we have not been answered yet, it is the newest."""
        self.arrived.append(time.perf_counter() - self.sent_at.get(message_id, self.newest))
        if len(self.arrived) >= self.expected:
            self.is_whole.set()


async def _listen(host: str, call: Call, tally: Tally) -> None:
    connection = Connection(host)
    async with tally.opening:
        reader, status, _ = await connection.begin(call)
        if status != 200:
            raise RuntimeError(f"A stream was answered {status}.")
        await reader.readuntil(b"event: ready")
    tally.ready.release()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await reader.readuntil(b"event: message\n")
            data = (await reader.readuntil(b"\n\n")).partition(b"data: ")[2]
            tally.note(json.loads(data.partition(b"\n")[0])["message_id"])


async def streams(task: Task) -> Task:
    """Open streams, send a message a second, and take the time until each stream has told it."""
    _allow_files(len(task["streams"]) + 100)
    tally = Tally(task["seconds"] * len(task["streams"]))
    began = time.perf_counter()
    listeners = [asyncio.create_task(_listen(task["host"], _call(entry), tally)) for entry in task["streams"]]
    for _ in listeners:
        await asyncio.wait_for(tally.ready.acquire(), READ_SECONDS)
    opened = time.perf_counter() - began
    sender = Connection(task["host"])
    first = time.perf_counter()
    for second in range(task["seconds"]):
        await asyncio.sleep(max(0.0, first + second - time.perf_counter()))
        sent = tally.newest = time.perf_counter()
        status, _, body = await sender.ask(_call(task["send"]))
        if status >= 400:
            raise RuntimeError(f"A message was answered {status}.")
        tally.sent_at[json.loads(body)["id"]] = sent
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(tally.is_whole.wait(), task["patience"])
    for listener in listeners:
        listener.cancel()
    missing = tally.expected - len(tally.arrived)
    return summary(tally.arrived or [task["patience"]], task["seconds"], missing) | {"opened_seconds": opened}


def _call(entry: Task) -> Call:
    return Call(entry["method"], entry["path"], entry["headers"], entry.get("body"))


def _cookie(headers: Sequence[tuple[str, str]], name: str) -> str | None:
    for header, value in headers:
        if header == "set-cookie" and value.startswith(f"{name}="):
            return value.partition("=")[2].partition(";")[0].strip('"')
    return None


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )


CLIENTS = {"refresh": refresh, "beside": beside, "streams": streams}


def main() -> None:
    """Do the task on standard input, and print the result."""
    result = asyncio.run(CLIENTS[sys.argv[1]](json.load(sys.stdin)))
    print(f"RESULT {json.dumps(result)}")
