"""Who may be told of an event, and what one open stream is told in which order."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.access import service as access
from quill.access.service import Requirement
from quill.actor import Actor
from quill.auth import service as auth
from quill.auth.service import Authenticator
from quill.errors import Unauthenticated
from quill.events.feed import Feed, Listener
from quill.identity import catalogue
from quill.kit import clock
from quill.kit.database import Database
from quill.kit.documents import Document, dumps
from quill.kit.ids import ConversationId
from quill.outbox import service as outbox
from quill.outbox.service import KeptEvent, LiveEvent

RECHECK_SECONDS = 5.0
"""How long a stream stays open after its login ended, at most."""
HEARTBEAT_SECONDS = 15.0
"""Proxies cut connections that are silent for a minute or less; HTML Living Standard, section 9.2.7, names this."""
RECONNECT_MILLISECONDS = 3000
REPLAYED_AT_MOST = 1000
"""Who missed more than this had better read afresh."""
REPLAY_BATCH = 100

MayReadConversation = Callable[[AsyncSession, Actor, ConversationId], Awaitable[bool]]
"""Tells whether somebody may read a conversation at this moment."""

_TO_READ_LETTERS = Requirement(competency=catalogue.ACCESS_PATIENT_RECORDS)


@dataclass(frozen=True, slots=True)
class Streaming:
    """What every stream of a process shares.

    Attributes:
        database: each look at rights takes a short session of its own; none is held while a stream is open.
        authenticator: says whether a login still stands.
        feed: where events come from.
        may_read_conversation: the conversations' own decision.
    """

    database: Database
    authenticator: Authenticator
    feed: Feed
    may_read_conversation: MayReadConversation


async def may_see(
    session: AsyncSession, actor: Actor, event: LiveEvent, may_read_conversation: MayReadConversation
) -> bool:
    """Tell whether somebody may be told of an event at this moment.

    What happens in a conversation is told to those who may read it, a letter to those who may read the patient's
    letters: whoever is tied to the patient, as the routes ask it, and may read records.
    """
    if event.conversation_id is not None:
        return await may_read_conversation(session, actor, event.conversation_id)
    relationship = await access.find_relationship(session, actor, event.patient_id)
    return relationship is not None and access.missing_right(actor, _TO_READ_LETTERS) is None


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
            yield _written("end", {"reason": error.code})
        except (SQLAlchemyError, OSError):
            # Silence would read as "nothing happened".
            yield _written("end", {"reason": "unavailable"})

    async def _told(self) -> AsyncGenerator[bytes]:
        newest, is_reset = await self._start()
        yield f"retry: {RECONNECT_MILLISECONDS}\n".encode()
        yield _written("reset" if is_reset else "ready", {}, self._last_number)
        while self._last_number < newest:
            if chunk := await self._replay(newest):
                yield chunk
        spoken_at = clock.monotonic_seconds()
        while True:
            events = await self._listener.wait(RECHECK_SECONDS)
            if self._listener.end_reason is not None:
                yield _written("end", {"reason": self._listener.end_reason})
                return
            chunk = await self._visible([kept for kept in events if kept.number > self._last_number])
            if not chunk and clock.monotonic_seconds() - spoken_at >= HEARTBEAT_SECONDS:
                # The number alone moves the browser's memory on past what was not for its eyes.
                chunk = f": still here\nid: {self._last_number}\n\n".encode()
            if chunk:
                spoken_at = clock.monotonic_seconds()
                yield chunk

    async def _start(self) -> tuple[int, bool]:
        """Work out where to begin: returns the newest event there is, and whether some were missed for good."""
        await outbox.number_events(self._streaming.database)
        async with self._streaming.database.reading() as session:
            oldest, newest = await outbox.event_bounds(session)
        self._streaming.feed.follow_from(newest)
        wanted = self._resume_after
        is_reset = wanted is not None and (wanted > newest or wanted + 1 < oldest or newest - wanted > REPLAYED_AT_MOST)
        self._last_number = newest if wanted is None or is_reset else wanted
        return newest, is_reset

    async def _replay(self, newest: int) -> bytes:
        async with self._streaming.database.reading() as session:
            events = await outbox.list_events(session, self._last_number, REPLAY_BATCH)
        chunk = await self._visible(events)
        if not events:
            # They were forgotten at this very moment: nothing is left to catch up with.
            self._last_number = newest
        return chunk

    async def _visible(self, events: list[KeptEvent]) -> bytes:
        """Return the events the person may see at this moment; asks for the login in any case.

        Raises:
            Unauthenticated: the login or the account has ended.
        """
        rule = self._streaming.may_read_conversation
        async with self._streaming.feed.checking, self._streaming.database.reading() as session:
            signed_in = await auth.authenticate(session, self._streaming.authenticator, self._access_token)
            visible = [kept for kept in events if await may_see(session, signed_in.actor, kept.event, rule)]
        if events:
            self._last_number = events[-1].number
        return b"".join(_written(kept.event.kind, _document(kept.event), kept.number) for kept in visible)


def _document(event: LiveEvent) -> Document:
    facts = {
        name: int(value) if value.isascii() and value.isdecimal() else value for name, value in event.facts.items()
    }
    return {"patient_id": event.patient_id, "conversation_id": event.conversation_id, **facts}


def _written(kind: str, document: Document, number: int | None = None) -> bytes:
    line = f"id: {number}\n" if number is not None else ""
    return f"{line}event: {kind}\ndata: {dumps(document)}\n\n".encode()
