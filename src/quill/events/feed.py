"""The one place of a process where live events come in, and the listeners they are handed to.

The feed follows the table of live events: woken by commits of this process, and looking every second for those of
others. A listener has room for so many events; one that does not keep up is let go and resumes when it comes back.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Iterator

import structlog

from quill.errors import TooManyRequests
from quill.kit.ids import UserId
from quill.kit.logs import where
from quill.kit.observing import StreamsOpen, tell
from quill.kit.turns import finish_turn
from quill.outbox import service as outbox
from quill.outbox.service import KeptEvent
from quill.unit import Services

LOOK_SECONDS = 1.0
BATCH = 200
ROOM = 256
"""Events that wait for one listener; at this many it has stopped reading or is hopelessly slow."""
STREAMS_PER_PERSON = 10

log = structlog.get_logger()


class Listener:
    """One open stream: the events that wait for it, and why it should end."""

    def __init__(self) -> None:
        self._waiting: deque[KeptEvent] = deque()
        self._called = asyncio.Event()
        self.end_reason: str | None = None

    def offer(self, events: list[KeptEvent]) -> None:
        """Hand over events, oldest first; too many end the stream."""
        if len(self._waiting) + len(events) > ROOM:
            self.end("too_slow")
            return
        self._waiting.extend(events)
        self._called.set()

    def end(self, reason: str) -> None:
        """Say that the stream should end; the first reason stands."""
        self.end_reason = self.end_reason or reason
        self._called.set()

    async def wait(self, until: float) -> list[KeptEvent]:
        """Return what has come in, at the latest at an instant of the event loop's clock."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._called.wait()
        self._called.clear()
        events = list(self._waiting)
        self._waiting.clear()
        return events


class Feed:
    """Hands live events to the listeners of this process."""

    def __init__(self, services: Services) -> None:
        self._database = services.database
        self._signals = services.signals
        self._listeners: set[Listener] = set()
        self._streams: Counter[UserId] = Counter()
        self._last_number: int | None = None
        self._is_closed = False

    async def run(self) -> None:
        """Follow the table until cancelled; trouble with the database is waited out, nothing is passed over."""
        while True:
            try:
                is_behind = bool(await finish_turn(self._look()))
            except Exception as error:  # noqa: BLE001 - the database may be away for a while; the feed outlives that
                log.warning("live_events_unreadable", cause=where(error))
                is_behind = False
            if not is_behind:
                await self._signals.wait(outbox.LIVE, LOOK_SECONDS)

    async def _look(self) -> bool:
        if not self._listeners:
            # Nobody to tell. Whoever comes has events numbered first, and says from where to follow.
            self._last_number = None
        if self._last_number is None:
            return False
        await outbox.number_events(self._database)
        async with self._database.reading() as session:
            events = await outbox.list_events(session, self._last_number, BATCH)
        if not events:
            return False
        self._last_number = events[-1].number
        for listener in self._listeners:
            listener.offer(events)
        return len(events) == BATCH

    def follow_from(self, number: int) -> None:
        """See to it that every event after this one is handed over; for a listener who has read the table up to it.

        Nothing is looked up before somebody listens and has called this.
        """
        if self._last_number is None or number < self._last_number:
            self._last_number = number
            self._signals.notify(outbox.LIVE)

    def check_room(self, user_id: UserId) -> None:
        """Refuse somebody who has too many streams open already.

        Raises:
            TooManyRequests: 429.
        """
        if self._streams[user_id] >= STREAMS_PER_PERSON:
            raise TooManyRequests("Too many streams are open", retry_after_seconds=10)

    @contextlib.contextmanager
    def listening(self, user_id: UserId) -> Iterator[Listener]:
        """Take part from now on: every event that is not yet in the table when this begins is handed over."""
        listener = Listener()
        if self._is_closed:
            listener.end("stopping")
        self._streams[user_id] += 1
        self._listeners.add(listener)
        tell(StreamsOpen(len(self._listeners)))
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            tell(StreamsOpen(len(self._listeners)))
            self._streams[user_id] -= 1
            if not self._streams[user_id]:
                del self._streams[user_id]

    def close(self) -> None:
        """End every stream, and those that begin from now on."""
        self._is_closed = True
        for listener in self._listeners:
            listener.end("stopping")
