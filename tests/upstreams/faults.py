"""A line between a client and a server on this machine which a test lets go wrong: a TCP proxy with faults.

It knows nothing of what passes through it, so it serves HTTP, PostgreSQL, Redis and SMTP alike.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Fault = Literal["none", "refuse", "hang", "freeze", "cut", "half", "slow", "answer", "speak"]
"""What the line does with connections made, and bytes sent, from now on:

- ``none``: carries everything.
- ``refuse``: nobody listens (``ECONNREFUSED``); open connections are reset.
- ``hang``: takes connections and bytes, and never answers.
- ``freeze``: the same, and what is open stays open: a machine that stands still, or a cable that was pulled.
- ``cut``: carries what is asked, and resets the connection in place of the answer: it arrived and nobody knows.
- ``half``: carries the first bytes of an answer and then ends the connection.
- ``slow``: carries an answer a few bytes at a time.
- ``answer``: says what the test gave, in place of the server.
- ``speak``: the same, without waiting to be asked: somebody else listens there.
"""

HALF_BYTES = 120
SLOW_BYTES = 16
SLOW_PAUSE_SECONDS = 0.05


class FaultyLine:
    """A loopback port that leads to another one.

    Args:
        host: where the server listens.
        port: where the server listens.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._fault: Fault = "none"
        self._canned = b""
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self.port = 0
        self._in_loop(self._listen())

    @property
    def connections(self) -> int:
        """Return how many clients are connected at the moment."""
        return len(self._tasks)

    def break_with(self, fault: Fault, answer: bytes = b"") -> None:
        """Let the line go wrong from now on, for open connections too."""
        self._in_loop(self._change(fault, answer))

    def answer_http(
        self,
        status: int,
        body: bytes = b"{}",
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Say this to every request from now on."""
        lines = [f"HTTP/1.1 {status} Fault", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        head = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
        self.break_with("answer", head + body)

    def mend(self) -> None:
        """Carry everything again."""
        self.break_with("none")

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._in_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _change(self, fault: Fault, answer: bytes) -> None:
        was_refusing, self._fault, self._canned = self._fault == "refuse", fault, answer
        if fault == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
        elif was_refusing and fault != "refuse":
            await self._listen()
        self._changed.set()
        self._changed = asyncio.Event()
        if fault == "freeze":
            return
        # What is open already would go on as before; a real outage ends it too.
        for writer in list(self._writers):
            writer.transport.abort()

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort() if self._fault == "cut" else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault in {"hang", "freeze"}:
            while await reader.read(65536):
                pass
            return
        if self._fault in {"answer", "speak"}:
            if self._fault == "answer":
                await reader.readuntil(b"\r\n\r\n")
            writer.write(self._canned)
            await writer.drain()
            return
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._writers.add(there_writer)
        onward = asyncio.create_task(self._forward(reader, there_writer))
        try:
            await self._bring_back(there_reader, writer)
        finally:
            onward.cancel()
            await asyncio.gather(onward, return_exceptions=True)
            self._writers.discard(there_writer)
            there_writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._stand_still()
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def _bring_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._stand_still()
            if self._fault == "cut":
                return
            if self._fault == "half":
                writer.write(data[:HALF_BYTES])
                await writer.drain()
                return
            if self._fault == "slow":
                await self._trickle(data, writer)
                continue
            writer.write(data)
            await writer.drain()

    async def _stand_still(self) -> None:
        if self._fault == "freeze":
            await self._changed.wait()

    async def _trickle(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), SLOW_BYTES):
            writer.write(data[start : start + SLOW_BYTES])
            await writer.drain()
            await asyncio.sleep(SLOW_PAUSE_SECONDS)


@contextmanager
def faulty_line(address: str) -> Iterator[FaultyLine]:
    """Open a line to ``host:port`` or to an ``http://host:port`` address; closed when the block ends."""
    host, _, port = address.removeprefix("http://").partition("/")[0].partition(":")
    line = FaultyLine(host, int(port))
    try:
        yield line
    finally:
        line.close()
