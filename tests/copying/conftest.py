"""An installation with a bit of everything in it, and servers elsewhere for it to move to."""

import signal
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from quill.copying import reports
from quill.settings import Settings
from tests.conftest import cheap_settings
from tests.copying.practice import Elsewhere, Practice, filled
from tests.databases import SqliteDatabases, directory_for_files
from tests.published_api import Browser
from tests.upstreams.faults import FaultyLine, faulty_line
from tests.upstreams.fhir_server import fhir_server
from tests.upstreams.openehr_server import PASSWORD, USER, openehr_server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "PAUSES_SECONDS", (0.01,))


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the signals an application has sent to itself; its process is the tests' own and must go on."""
    sent: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", sent.append)
    return sent


@pytest.fixture
def elsewhere(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases, settings: Settings
) -> Iterator[Elsewhere]:
    """Serve an empty FHIR server that checks references, and an empty openEHR server, each behind a line."""
    directory = directory_for_files(tmp_path_factory, "elsewhere")
    url = sqlite_databases.fresh(directory)
    with fhir_server(url) as fhir, openehr_server(directory) as (openehr, openehr_address):
        fhir.checks_references = True
        with faulty_line(fhir.address) as fhir_line, faulty_line(openehr_address) as openehr_line:
            named = settings.model_copy(
                update={
                    "fhir_url": behind(fhir_line, fhir.address),
                    "openehr_url": behind(openehr_line, openehr_address),
                    "openehr_user": USER,
                    "openehr_password": cheap_settings(settings.data_dir, secret_key=PASSWORD * 4).secret_key,
                    "clinical_timeout_seconds": 2.0,
                }
            )
            named = Settings.model_validate(
                named.model_dump(exclude={"openehr_password"}) | {"openehr_password": PASSWORD}
            )
            yield Elsewhere(fhir, openehr, fhir_line, openehr_line, named)
    sqlite_databases.drop(url)


def behind(line: FaultyLine, address: str) -> str:
    return f"http://127.0.0.1:{line.port}/" + address.removeprefix("http://").partition("/")[2]


@pytest.fixture
def practice(application: FastAPI, settings: Settings) -> Practice:
    """Return an installation that is filled and not running."""
    application.state.settings = settings
    with Browser(application, raise_server_exceptions=False) as client:
        return filled(application, client, settings)
