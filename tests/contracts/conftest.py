import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.adapters.fhir.remote import RemoteFhirStore
from quill.adapters.upstream import Troubles, Upstream
from quill.errors import FhirRefused, FhirUnavailable
from quill.kit.database import Database
from quill.ports.fhir import FhirStore
from tests.databases import SqliteDatabases, directory_for_files
from tests.upstreams.fhir_server import FhirServer, fhir_server

OpenFhir = Callable[[], AbstractAsyncContextManager[FhirStore]]

HAPI_URL = os.environ.get("QUILL_TEST_FHIR_URL")
"""A real FHIR server to hold to the contract, too."""

STORES = [
    "embedded",
    "remote",
    *([pytest.param("real", marks=pytest.mark.live)] if HAPI_URL else []),
]


@pytest.fixture(scope="session")
def shared_fhir_server(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases
) -> Iterator[FhirServer]:
    """Return a FHIR server of our own that all tests share, as a real one would be."""
    with fhir_server(sqlite_databases.fresh(directory_for_files(tmp_path_factory, "fhir"))) as server:
        yield server


@pytest.fixture(params=STORES)
def fhir_address(request: pytest.FixtureRequest) -> str:
    """Return where the store is: the URL of a database for the embedded one."""
    if request.param == "embedded":
        return str(request.getfixturevalue("settings").resolved_database_url)
    return HAPI_URL if request.param == "real" and HAPI_URL else request.getfixturevalue("shared_fhir_server").address


@pytest.fixture
async def open_fhir(fhir_address: str) -> AsyncIterator[OpenFhir]:
    """Open a FHIR store; what was written through it is kept when the block ends well."""
    if not fhir_address.startswith("http"):
        database = Database(fhir_address)
        yield _embedded(database)
        await database.dispose()
        return
    upstream = Upstream("fhir", fhir_address, Troubles(FhirUnavailable, FhirRefused))
    yield _remote(upstream)
    await upstream.close()


def _embedded(database: Database) -> OpenFhir:
    @asynccontextmanager
    async def opened() -> AsyncIterator[FhirStore]:
        async with database.writing() as session:
            yield EmbeddedFhirStore(session)

    return opened


def _remote(upstream: Upstream) -> OpenFhir:
    @asynccontextmanager
    async def opened() -> AsyncIterator[FhirStore]:
        yield RemoteFhirStore(upstream)

    return opened
