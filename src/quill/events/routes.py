"""The route of live updates."""

import asyncio
import contextlib
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quill.access.guards import SignedInReader
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import cookies
from quill.edge.inputs import refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep
from quill.errors import TooManyRequests
from quill.events.feed import Listener
from quill.events.service import Stream, Streaming
from quill.kit.ids import UserId

SEND_SECONDS = 20.0
"""How long a browser may leave what it was sent unread."""
MEDIA_TYPE = "text/event-stream"

log = structlog.get_logger()

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api/events",
    tags=["events"],
    dependencies=[Depends(refuse_unknown_query)],
)


def streaming_of(request: Request) -> Streaming:
    """Return what this process's streams share."""
    streaming: Streaming = request.app.state.streaming
    return streaming


class EventStream(Response):
    """An answer that goes on: ends by itself, when the browser leaves, or when it stops reading.

    Args:
        streaming: what all streams share.
        user_id: who listens.
        access_token: the proof the request came with.
        resume_after: number of the last event the browser saw, if it was here before.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, streaming: Streaming, user_id: UserId, access_token: str | None, resume_after: int | None
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streaming = streaming
        self._user_id = user_id
        self._access_token = access_token
        self._resume_after = resume_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until there is an end."""
        del scope
        with self._streaming.feed.listening(self._user_id) as listener:
            watcher = asyncio.create_task(_watch(receive, listener), name="event-stream-watcher")
            try:
                await self._send_all(listener, send)
            except TimeoutError:
                # Returning with the answer unfinished breaks the connection, and nothing of it is kept any longer.
                log.info("event_stream_unread")
            finally:
                watcher.cancel()

    async def _send_all(self, listener: Listener, send: Send) -> None:
        stream = Stream(self._streaming, listener, self._access_token, self._resume_after)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with contextlib.aclosing(stream.chunks()) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _watch(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    listener.end("disconnected")


@router.get(
    "",
    status_code=200,
    response_class=EventStream,
    responses={
        200: {
            "description": "Server-sent events `message`, `read`, `status` and `letter`, whose data are ids only; "
            "`ready` or `reset` first, `end` last.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **answers(TooManyRequests),
    },
)
async def listen(
    actor: SignedInReader,
    reader: ReaderDep,
    request: Request,
    last_event_id: Annotated[
        str | None,
        Header(max_length=18, pattern="^[0-9]*$", description="Number of the last event seen; those after it follow."),
    ] = None,
) -> Response:
    """Tell what happens as it happens, as far as the caller may see it.

    `reset` means that what was missed is not known any more: read afresh what is on show. `end` says why it ends:
    `invalid_token` asks for a refresh before coming back, `inactive_user` for signing in; else come back soon.
    """
    streaming = streaming_of(request)
    streaming.feed.check_room(actor.person_id)
    audit.record(reader, actor, Act.EVENTS_LISTEN)
    resume_after = int(last_event_id) if last_event_id else None
    return EventStream(streaming, actor.person_id, cookies.access_token_of(request), resume_after)
