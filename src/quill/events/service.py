"""What one open stream is told, in which order, and what all streams of a process share."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from sqlalchemy.exc import SQLAlchemyError

from quill.auth.service import Authenticator
from quill.errors import Unauthenticated
from quill.events import wire
from quill.events.feed import Feed, Listener
from quill.events.rights import Rights, WhoMayReadConversation
from quill.kit import clock
from quill.kit.together import Together
from quill.outbox import service as outbox
from quill.outbox.service import KeptEvent
from quill.unit import Services

RECHECK_SECONDS = 5.0
"""How long a stream stays open after its login ended, at most."""
HEARTBEAT_SECONDS = 15.0
"""Silence at most; proxies cut connections that are silent for longer (HTML Living Standard, section 9.2.7)."""
RECONNECT_MILLISECONDS = 3000
REPLAYED_AT_MOST = 1000
"""Who missed more than this had better read afresh."""
REPLAY_BATCH = 100


class Streaming:
    """What every stream of a process shares; no database connection is held while a stream is open.

    Args:
        services: each look into the database takes a short session of its own.
        authenticator: says whether a login still stands.
        who_may_read: the conversations' own decision.

    Attributes:
        feed: where events come from.
        rights: says what may be told to whom.
    """

    def __init__(self, services: Services, authenticator: Authenticator, who_may_read: WhoMayReadConversation) -> None:
        self._database = services.database
        self.feed = Feed(services)
        self.rights = Rights(services.database, authenticator, who_may_read)
        self._bounds: Together[None, tuple[int, int]] = Together("live-bounds", self._read_bounds)

    async def bounds(self) -> tuple[int, int]:
        """Return the numbers of the oldest and the newest event there is."""
        return await self._bounds.ask(None)

    async def events_after(self, number: int) -> list[KeptEvent]:
        """Return the first events after one, oldest first."""
        async with self._database.reading() as session:
            return await outbox.list_events(session, number, REPLAY_BATCH)

    async def finish(self) -> None:
        """Return when nothing is being looked up any more."""
        await self.rights.finish()
        await self._bounds.finish()

    async def _read_bounds(self, asked: list[None]) -> list[tuple[int, int] | Exception]:
        await outbox.number_events(self._database)
        async with self._database.reading() as session:
            bounds = await outbox.event_bounds(session)
        return [bounds for _ in asked]


class Stream:
    """One open stream: from where it resumes to why it ends.

    Args:
        streaming: what all streams share.
        listener: what comes in.
        access_token: the proof the request came with; a stream lasts no longer than it does.
        resume_after: number of the last event the browser saw, if it was here before.
    """

    def __init__(
        self, streaming: Streaming, listener: Listener, access_token: str | None, resume_after: int | None
    ) -> None:
        self._streaming = streaming
        self._listener = listener
        self._access_token = access_token
        self._resume_after = resume_after
        self._last_number = 0

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the stream in the format of server-sent events (HTML Living Standard, section 9.2).

        First ``ready``, or ``reset`` when what was missed is not known any more and must be read afresh. Then what
        happens, as far as it may be seen. Last ``end``, with the reason.
        """
        try:
            async for chunk in self._told():
                yield chunk
        except Unauthenticated as error:
            yield wire.written("end", {"reason": error.code})
        except (SQLAlchemyError, OSError):
            # Silence would read as "nothing happened".
            yield wire.written("end", {"reason": "unavailable"})

    async def _told(self) -> AsyncGenerator[bytes]:
        newest, is_reset = await self._start()
        yield f"retry: {RECONNECT_MILLISECONDS}\n".encode()
        yield wire.written("reset" if is_reset else "ready", {}, self._last_number)
        while self._last_number < newest:
            if chunk := await self._replay(newest):
                yield chunk
        spoken_at = clock.monotonic_seconds()
        while True:
            events = await self._listener.wait(_next_recheck())
            if self._listener.end_reason is not None:
                yield wire.written("end", {"reason": self._listener.end_reason})
                return
            chunk = await self._visible([kept for kept in events if kept.number > self._last_number])
            # The next occasion to speak may be as far away as the next recheck.
            if not chunk and clock.monotonic_seconds() - spoken_at + RECHECK_SECONDS > HEARTBEAT_SECONDS:
                chunk = wire.heartbeat(self._last_number)
            if chunk:
                spoken_at = clock.monotonic_seconds()
                yield chunk

    async def _start(self) -> tuple[int, bool]:
        """Work out where to begin: returns the newest event there is, and whether some were missed for good."""
        oldest, newest = await self._streaming.bounds()
        self._streaming.feed.follow_from(newest)
        wanted = self._resume_after
        is_reset = wanted is not None and (wanted > newest or wanted + 1 < oldest or newest - wanted > REPLAYED_AT_MOST)
        self._last_number = newest if wanted is None or is_reset else wanted
        return newest, is_reset

    async def _replay(self, newest: int) -> bytes:
        events = await self._streaming.events_after(self._last_number)
        chunk = await self._visible(events)
        if not events:
            # They were forgotten at this very moment: nothing is left to catch up with.
            self._last_number = newest
        return chunk

    async def _visible(self, events: Sequence[KeptEvent]) -> bytes:
        """Return the events the person may see at this moment, written; asks for the login in any case.

        Raises:
            Unauthenticated: the login or the account has ended.
        """
        chunk = await self._streaming.rights.tell(self._access_token, events)
        if events:
            self._last_number = events[-1].number
        return chunk


def _next_recheck() -> float:
    """Return when to look at rights next, by the event loop's clock: the same instant for all streams of a process.

    They then ask at the same time, and are answered with one statement.
    """
    return (asyncio.get_running_loop().time() // RECHECK_SECONDS + 1) * RECHECK_SECONDS
