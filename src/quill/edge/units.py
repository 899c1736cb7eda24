"""Units for routes: a reader or a transaction for the time of one request.

The scope is ``function`` on purpose: with FastAPI's default the answer leaves before the transaction is committed, so a
failed commit would still read as success.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from quill.unit import Reader, RequestFacts, Services, Unit, open_reader, open_unit


def services_of(request: Request) -> Services:
    """Return what the assembly put together for this process."""
    services: Services = request.app.state.services
    return services


def facts_of(request: Request) -> RequestFacts:
    """Return where the request came from."""
    state = request.scope["state"]
    return RequestFacts(request_id=state["request_id"], source=state["source"])


async def _reader(request: Request) -> AsyncIterator[Reader]:
    async with open_reader(services_of(request), facts_of(request)) as reader:
        yield reader


async def _unit(request: Request) -> AsyncIterator[Unit]:
    async with open_unit(services_of(request), facts_of(request)) as unit:
        yield unit


ReaderDep = Annotated[Reader, Depends(_reader, scope="function")]
"""A read-only unit; what it read is in the audit trail before the answer leaves."""

UnitDep = Annotated[Unit, Depends(_unit, scope="function")]
"""One transaction, committed before the answer leaves."""
