"""What a copy tells: how far it is, what was done, and which records it could not bring over."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from quill.errors import QuillError, StaleEdit

AT_ONCE = 8
"""How many records are on their way at the same time."""
PAUSES_SECONDS = (0.5, 2.0, 6.0)
"""How long is waited before something is tried again with a store that did not answer."""

T = TypeVar("T")

OnProgress = Callable[[str, int, int | None], None]
"""Called with what is done, how many records of it are, and how many there are in all where that is known."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A record the two sides do not have alike.

    Attributes:
        record: its kind and id, such as ``Patient/123``; never anything it says.
        reason: a slug: ``missing``, ``behind``, ``other_content``, ``gaps``, ``other_number``, or an error's code.
    """

    record: str
    reason: str


@dataclass(slots=True)
class Report:
    """What one walk over all records found and did.

    Attributes:
        records: FHIR resources and compositions of the source.
        versions: their versions.
        copied: versions written to the target by this walk.
        troubles: what the target does not have as the source has it, after this walk.
        extra: records the target has and the source has not.
        notes: sentences the operator should read.
        systems: what the source's compositions have as the middle part of their version uids.
    """

    records: int = 0
    versions: int = 0
    copied: int = 0
    troubles: list[Trouble] = field(default_factory=list)
    extra: int = 0
    notes: list[str] = field(default_factory=list)
    systems: set[str] = field(default_factory=set)

    def __add__(self, other: "Report") -> "Report":
        """Return both together."""
        return Report(
            self.records + other.records,
            self.versions + other.versions,
            self.copied + other.copied,
            self.troubles + other.troubles,
            self.extra + other.extra,
            self.notes + other.notes,
            self.systems | other.systems,
        )


async def side_by_side(items: Iterable[T] | AsyncIterator[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do something with each item, ``AT_ONCE`` of them at a time; the first error ends it all."""
    queue: asyncio.Queue[T | None] = asyncio.Queue(AT_ONCE)

    async def worker() -> None:
        while (item := await queue.get()) is not None:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())
            group.create_task(_feed(items, queue))
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors


async def _feed(items: Iterable[T] | AsyncIterator[T], queue: asyncio.Queue[T | None]) -> None:
    """Hand out the items, and then to each worker the end."""
    if isinstance(items, AsyncIterator):
        async for item in items:
            await queue.put(item)
    else:
        for item in items:
            await queue.put(item)
    for _ in range(AT_ONCE):
        await queue.put(None)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do something that may be repeated, again when a store does not answer.

    Raises:
        Unavailable: 503, it never did.
    """
    for pause in PAUSES_SECONDS:
        try:
            return await work()
        except QuillError as error:
            if error.status != 503:
                raise
        await asyncio.sleep(pause)
    return await work()


async def again_if_stale(work: Callable[[], Awaitable[None]]) -> None:
    """Do something ``patiently``, and once more when the target was not in the state it was thought to be in."""
    try:
        await patiently(work)
    except StaleEdit:
        await patiently(work)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
