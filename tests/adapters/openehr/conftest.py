"""A remote openEHR store whose line to the server a test can break."""

from collections.abc import AsyncIterator, Iterator

import pytest

from quill.adapters import upstream as upstreams
from quill.adapters.openehr.remote import RemoteOpenEhrStore
from quill.kit.ids import new_uuid
from quill.letters.composition import TEMPLATE_ID, operational_template
from tests.adapters.openehr.servers import upstream_at
from tests.databases import directory_for_files
from tests.upstreams.faults import FaultyLine, faulty_line
from tests.upstreams.openehr_server import OpenEhrServer, openehr_server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenEhrServer, str]]:
    with openehr_server(directory_for_files(tmp_path_factory, "openehr")) as served:
        yield served


@pytest.fixture
def server(served: tuple[OpenEhrServer, str]) -> OpenEhrServer:
    server = served[0]
    server.before_next.clear()
    server.after_next.clear()
    server.creation_status = 201
    return server


@pytest.fixture
def line(served: tuple[OpenEhrServer, str]) -> Iterator[FaultyLine]:
    with faulty_line(served[1]) as line:
        yield line


@pytest.fixture
async def store(
    server: OpenEhrServer, line: FaultyLine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RemoteOpenEhrStore]:
    monkeypatch.setattr(upstreams, "FIRST_PAUSE_SECONDS", 0.001)
    async with upstream_at(line) as upstream:
        store = RemoteOpenEhrStore(upstream)
        await store.ensure_template(TEMPLATE_ID, operational_template())
        server.calls.clear()
        yield store


@pytest.fixture
async def ehr_id(store: RemoteOpenEhrStore, server: OpenEhrServer) -> str:
    ehr_id = await store.ensure_ehr(new_uuid())
    server.calls.clear()
    return ehr_id
