import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.adapters.fhir.remote import RemoteFhirStore
from quill.adapters.openehr.embedded import EmbeddedOpenEhrStore
from quill.adapters.openehr.remote import RemoteOpenEhrStore
from quill.adapters.openehr.wire import rest_base
from quill.adapters.upstream import Troubles, Upstream
from quill.errors import FhirRefused, FhirUnavailable, OpenEhrRefused, OpenEhrUnavailable
from quill.kit.database import Database
from quill.kit.ids import new_uuid
from quill.letters.composition import TEMPLATE_ID, operational_template
from quill.ports.fhir import FhirStore
from quill.ports.openehr import OpenEhrStore
from tests.databases import SqliteDatabases, directory_for_files
from tests.upstreams.fhir_server import FhirServer, fhir_server
from tests.upstreams.openehr_server import PASSWORD, USER, openehr_server

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


OpenStore = Callable[[], AbstractAsyncContextManager[OpenEhrStore]]
"""Opens a store as one caller has it; what was done is kept when the block ends well."""


FORMER_SYSTEM = "before.the.move"
OPENEHR_STORES = ["embedded", "remote"]
EHRBASE = os.environ.get("QUILL_TEST_OPENEHR_URL")
"""A real EHRbase, and with ``_USER`` and ``_PASSWORD`` how to sign in; none when unset."""


@pytest.fixture(scope="module")
def server_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with openehr_server(directory_for_files(tmp_path_factory, "openehr")) as (_server, address):
        yield address


@pytest.fixture(
    params=[*OPENEHR_STORES, pytest.param("ehrbase", marks=pytest.mark.live)] if EHRBASE else OPENEHR_STORES
)
async def open_store(
    request: pytest.FixtureRequest, database: Database, server_address: str
) -> AsyncIterator[OpenStore]:
    address, auth = server_address, (USER, PASSWORD)
    if request.param == "ehrbase":
        address = str(EHRBASE)
        auth = (os.environ["QUILL_TEST_OPENEHR_USER"], os.environ["QUILL_TEST_OPENEHR_PASSWORD"])
    upstream = Upstream("openehr", rest_base(address), Troubles(OpenEhrUnavailable, OpenEhrRefused), auth=auth)

    @asynccontextmanager
    async def opened() -> AsyncIterator[OpenEhrStore]:
        if request.param != "embedded":
            yield RemoteOpenEhrStore(upstream, former_systems=[FORMER_SYSTEM])
            return
        async with database.writing() as session:
            yield EmbeddedOpenEhrStore(session, system_id="contract.test", former_systems=[FORMER_SYSTEM])

    async with opened() as store:
        await store.ensure_template(TEMPLATE_ID, operational_template())
    yield opened
    await upstream.close()


@pytest.fixture
async def openehr_store(open_store: OpenStore) -> AsyncIterator[OpenEhrStore]:
    async with open_store() as store:
        yield store


@pytest.fixture
async def ehr_id(openehr_store: OpenEhrStore) -> str:
    return await openehr_store.ensure_ehr(new_uuid())
