"""What happens, told to whoever watches: metrics and traces.

The places where something happens know nothing of who watches, and with nobody watching telling costs next to nothing.
A happening holds words of the program and numbers only, never what a person wrote and never an id: it ends in places
that more people see than the records.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class RequestBegan:
    """A request came in."""


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request was answered, or broke off.

    Attributes:
        method: as the caller wrote it.
        route: the route's template, or ``unmatched``.
        status: of the answer; 0 when none was begun.
        seconds: from the first byte to the last.
    """

    method: str
    route: str
    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class UpstreamCalled:
    """A service elsewhere was called, repetitions included.

    Attributes:
        upstream: its name, such as ``fhir``.
        method: of HTTP.
        outcome: ``refused`` is a wrong answer, ``not_asked`` means that the service was known to be down.
        seconds: until the caller knew.
        is_tripped: whether the circuit breaker takes the service for down after this call.
    """

    upstream: str
    method: str
    outcome: Literal["answered", "unavailable", "refused", "not_asked", "abandoned"]
    seconds: float
    is_tripped: bool


@dataclass(frozen=True, slots=True)
class WriterWaited:
    """A writer on SQLite got its turn after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Audited:
    """An act was noted in the audit trail; its reason is a slug."""

    act: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Somebody was refused for trying too often, by the limit of this name."""

    limit: str


@dataclass(frozen=True, slots=True)
class StreamsOpen:
    """So many live streams are open in this process."""

    count: int


@dataclass(frozen=True, slots=True)
class Logged:
    """A line was logged; its event is a slug."""

    level: str
    event: str


Happening: TypeAlias = (
    RequestBegan | RequestEnded | UpstreamCalled | WriterWaited | Audited | Throttled | StreamsOpen | Logged
)
Watcher: TypeAlias = Callable[[Happening], None]

_watchers: tuple[Watcher, ...] = ()


def tell(happening: Happening) -> None:
    """Tell every watcher, in the task and at the moment it happens."""
    for watcher in _watchers:
        watcher(happening)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher what happens while the block runs; it neither waits nor raises."""
    global _watchers  # noqa: PLW0603 - like the log: one per process, so that no signature has to pass it on
    _watchers = (*_watchers, watcher)
    try:
        yield
    finally:
        # Compared by equality: a bound method is a new object each time it is named.
        left = list(_watchers)
        left.remove(watcher)
        _watchers = tuple(left)
