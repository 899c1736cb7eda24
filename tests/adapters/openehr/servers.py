"""Ways to the openEHR server of a test, and what makes its answers go wrong at the right moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from quill.adapters.openehr.wire import rest_base
from quill.adapters.upstream import Troubles, Upstream
from quill.errors import OpenEhrRefused, OpenEhrUnavailable
from tests.upstreams.faults import FaultyLine
from tests.upstreams.openehr_server import PASSWORD, USER, Refusal


@asynccontextmanager
async def upstream_at(line: FaultyLine, password: str = PASSWORD, seconds: float = 5.0) -> AsyncIterator[Upstream]:
    """Open a way to the server behind a line; closed when the block ends."""
    upstream = Upstream(
        "openehr",
        rest_base(f"http://127.0.0.1:{line.port}/ehrbase"),
        Troubles(OpenEhrUnavailable, OpenEhrRefused),
        auth=(USER, password),
        deadline_seconds=seconds,
    )
    yield upstream
    await upstream.close()


def cutting(line: FaultyLine) -> Callable[[], Awaitable[None]]:
    """Return what cuts the line, so that the answer under way is lost."""

    async def cut() -> None:
        await asyncio.to_thread(line.break_with, "cut")

    return cut


def breaking(status: int) -> Callable[[], Awaitable[None]]:
    """Return what makes the server answer with an error, whether it did what was asked or not."""

    async def refuse() -> None:
        raise Refusal(status)

    return refuse
