"""Fixtures of the two FHIR stores.

Query plans are a matter of the one database they are read from: SQLite. The remote store has a server of our own at the
other end of a line that a test can break.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from quill.adapters import upstream as upstream_module
from quill.adapters.fhir.remote import RemoteFhirStore
from quill.adapters.upstream import Troubles, Upstream
from quill.errors import FhirRefused, FhirUnavailable
from quill.kit.database import Database
from tests.databases import SqliteDatabases, directory_for_files
from tests.upstreams.faults import FaultyLine, faulty_line
from tests.upstreams.fhir_server import LARGEST_PAGE, FhirServer, fhir_server

HASTY_SECONDS = 0.1


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """Return a SQLite database whatever the suite runs on."""
    return sqlite_database


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases) -> Iterator[FhirServer]:
    """Return a server that the tests of a file share."""
    with fhir_server(sqlite_databases.fresh(directory_for_files(tmp_path_factory, "fhir"))) as server:
        yield server


@pytest.fixture
def server(one_server: FhirServer) -> FhirServer:
    """Return the server with its usual ways, and no request noted yet."""
    one_server.largest_page, one_server.is_strict = LARGEST_PAGE, False
    one_server.requests.clear()
    return one_server


@pytest.fixture
def line(server: FhirServer) -> Iterator[FaultyLine]:
    """Return the line to the server."""
    with faulty_line(server.address) as line:
        yield line


@pytest.fixture
async def direct(server: FhirServer) -> AsyncIterator[RemoteFhirStore]:
    """Return a store that reaches the server whatever becomes of the line."""
    upstream = Upstream("fhir", server.address, Troubles(FhirUnavailable, FhirRefused))
    yield RemoteFhirStore(upstream)
    await upstream.close()


@pytest.fixture
async def store(line: FaultyLine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RemoteFhirStore]:
    """Return a store at the end of the line."""
    monkeypatch.setattr(upstream_module, "FIRST_PAUSE_SECONDS", 0.001)
    upstream = Upstream("fhir", f"http://127.0.0.1:{line.port}/fhir/", Troubles(FhirUnavailable, FhirRefused))
    yield RemoteFhirStore(upstream)
    await upstream.close()


@pytest.fixture
async def hasty_store(line: FaultyLine) -> AsyncIterator[RemoteFhirStore]:
    """Return a store at the end of the line that waits for an answer no longer than a test can."""
    troubles = Troubles(FhirUnavailable, FhirRefused)
    upstream = Upstream("fhir", f"http://127.0.0.1:{line.port}/fhir", troubles, deadline_seconds=HASTY_SECONDS)
    yield RemoteFhirStore(upstream)
    await upstream.close()
