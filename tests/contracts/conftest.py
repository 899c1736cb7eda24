from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.kit.database import Database
from quill.ports.fhir import FhirStore

OpenFhir = Callable[[], AbstractAsyncContextManager[FhirStore]]


@pytest.fixture
def open_fhir(database: Database) -> OpenFhir:
    """Open a FHIR store; what was written through it is kept when the block ends well."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[FhirStore]:
        async with database.writing() as session:
            yield EmbeddedFhirStore(session)

    return opened
