"""The application in the event loop of another thread, reached in one trip each time.

The loop lasts as long as the test process; the application starts and stops in it for each test, so that whatever it
keeps in memory ends with the test it belongs to. Ending checks that nothing is left over.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import httpx2
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI

BACKGROUND_TASKS = frozenset({"sweep", "sealer", "letter-template", "feed", "outbox", "outbox-delivery"})
LASTING_TASKS = frozenset({"sweep", "sealer", "feed", "outbox"})
"""Those that work as long as the application does."""

_loops: WeakKeyDictionary[BlockingPortal, asyncio.AbstractEventLoop] = WeakKeyDictionary()


def call(portal: BlockingPortal, act: Callable[..., Any], *args: Any) -> Any:
    """Return what ``act`` returns in the portal's loop.

    The portal's own way takes two trips to the other thread and back, and the waiting is what costs.
    """
    if portal not in _loops:
        _loops[portal] = portal.call(asyncio.get_running_loop)

    async def work() -> Any:
        result = act(*args)
        return await result if inspect.isawaitable(result) else result

    return asyncio.run_coroutine_threadsafe(work(), _loops[portal]).result()


class OneTrip(httpx2.BaseTransport):
    """Takes a request to the application and brings the whole answer back.

    Args:
        app: the application.
        portal: returns the way to where it runs; ``None`` when it does not run.
        raises: whether what goes wrong in the application goes wrong here; otherwise it is the answer 500.
        client: the address and port requests come from.
    """

    def __init__(
        self, app: Any, portal: Callable[[], BlockingPortal | None], *, raises: bool, client: tuple[str, int]
    ) -> None:
        self._app = app
        self._portal = portal
        self._raises = raises
        self._client = client

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer, read to its end."""
        portal = self._portal()
        assert portal is not None, "The application is not running."
        answer = _Answer(request.read())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": unquote(request.url.path),
            "raw_path": request.url.raw_path.split(b"?", 1)[0],
            "root_path": "",
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": self._client,
            "server": (request.url.host, request.url.port or {"http": 80, "https": 443}[request.url.scheme]),
        }
        try:
            call(portal, self._app, scope, answer.receive, answer.send)
        except Exception:
            if self._raises:
                raise
        if not answer.is_complete.is_set():
            return httpx2.Response(500, request=request)
        body = b"" if request.method == "HEAD" else b"".join(answer.body)
        return httpx2.Response(answer.status, headers=answer.headers, stream=httpx2.ByteStream(body), request=request)


class _Answer:
    def __init__(self, request_body: bytes) -> None:
        self._request_body: bytes | None = request_body
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.is_complete = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._request_body is None:
            await self.is_complete.wait()
            return {"type": "http.disconnect"}
        body, self._request_body = self._request_body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
        elif message["type"] == "http.response.body":
            assert not self.is_complete.is_set(), "There is more of an answer that was complete."
            self.body.append(message.get("body", b""))
            if not message.get("more_body", False):
                self.is_complete.set()


@contextmanager
def running(app: FastAPI, portal: BlockingPortal) -> Iterator[None]:
    """Start the application, and stop it in the end.

    Raises:
        AssertionError: one of its background tasks had died, or it left something running.
    """
    life = call(portal, _Life.begin, app)
    try:
        yield
    finally:
        call(portal, life.end)


class _Life:
    """One start and stop; both happen in the same task, as they do in a server."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._others = asyncio.all_tasks() - {asyncio.current_task()}
        self._stopping = asyncio.Event()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(), name="lifespan")

    @classmethod
    async def begin(cls, app: FastAPI) -> "_Life":
        life = cls(app)
        await asyncio.wait({life._started, life._task}, return_when=asyncio.FIRST_COMPLETED)
        if life._task.done():
            await life._task
        return life

    async def end(self) -> None:
        missing = LASTING_TASKS - _names(asyncio.all_tasks())
        self._stopping.set()
        await self._task
        left = _names(asyncio.all_tasks() - self._others - {asyncio.current_task()})
        assert not missing, f"ended before the application did: {sorted(missing)}"
        assert not left, f"still there after the application: {sorted(left)}"

    async def _live(self) -> None:
        async with self._app.router.lifespan_context(self._app):
            self._started.set_result(None)
            await self._stopping.wait()


def _names(tasks: Any) -> set[str]:
    return {task.get_name() for task in tasks}
