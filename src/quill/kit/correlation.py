"""Which request the work at hand belongs to, for log lines and for services that are called on its behalf.

It follows the task: whatever a request awaits belongs to it, and background work belongs to none.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

REQUEST_ID_HEADER = "X-Request-ID"

_request_id: ContextVar[str | None] = ContextVar("quill_request_id", default=None)
_sources: tuple[Callable[[], Mapping[str, str]], ...] = ()


class belonging_to:  # noqa: N801 - read as a verb, as context managers are
    """Lets the work of the block belong to a request."""

    __slots__ = ("_before", "_request_id")

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id

    def __enter__(self) -> None:
        self._before = _request_id.set(self._request_id)

    def __exit__(self, *_: object) -> None:
        _request_id.reset(self._before)


def current_request_id() -> str | None:
    """Return the id of the request the work at hand belongs to; ``None`` for background work."""
    return _request_id.get()


def outgoing_headers() -> dict[str, str]:
    """Return the headers that tell a service elsewhere on whose behalf it is called."""
    request_id = _request_id.get()
    headers = {} if request_id is None else {REQUEST_ID_HEADER: request_id}
    for source in _sources:
        headers.update(source())
    return headers


@contextmanager
def telling_also(source: Callable[[], Mapping[str, str]]) -> Iterator[None]:
    """Add the headers of a source to the outgoing ones while the block runs; tracing has some."""
    global _sources  # noqa: PLW0603 - one per process, as the log is
    _sources = (*_sources, source)
    try:
        yield
    finally:
        _sources = tuple(left for left in _sources if left is not source)


def add_request_id(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write the request's id into a log line; a processor of structlog."""
    request_id = _request_id.get()
    if request_id is not None:
        line.setdefault("request_id", request_id)
    return line
