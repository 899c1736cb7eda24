"""While many requests wait for a store that hangs nobody else waits: not for connections, threads or the loop."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI

from quill.patients import contact
from tests.conftest import cheap_settings
from tests.databases import Databases, SqliteDatabases, directory_for_files
from tests.faults.house import House, all_at_once, fresh_database, open_house, until
from tests.faults.scene import Scene, people_of, scene_of

pytestmark = pytest.mark.thorough

HANGING_SECONDS = 15.0
"""Far longer than a test takes; nothing waits for it to pass."""
POOL = 2
"""Connections to the database, and as many in a burst: far fewer than there are requests that hang."""


@pytest.fixture(scope="module")
def house(
    application: FastAPI,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    sqlite_databases: SqliteDatabases,
) -> Iterator[House]:
    directory = directory_for_files(tmp_path_factory, "bulkheads")
    with fresh_database(databases, directory) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(contact, "DEADLINE_SECONDS", HANGING_SECONDS)
        settings = cheap_settings(
            directory, database_url=url, clinical_timeout_seconds=HANGING_SECONDS, database_pool_size=POOL
        )
        with open_house(application, settings, sqlite_databases) as house:
            yield house


@pytest.fixture
def scene(house: House) -> Scene:
    return scene_of(house, people_of(house))


def test_requests_that_hang_starve_nobody(scene: Scene) -> None:
    """34 requests wait for a store and 10 lists want to know how FHIR is; the database has 4 connections."""
    house, doctor = scene.house, scene.people.doctor
    hanging = [lambda: doctor.get("/api/patients")] * 10
    for part in ("fhir", "openehr") * 2:
        for calls in (scene.reads(part), scene.writes(part), scene.changes(part)):
            hanging += calls.values()
    for line in house.lines.values():
        line.break_with("hang")
    with ThreadPoolExecutor(len(hanging)) as pool:
        began = time.monotonic()
        waiting = [pool.submit(call) for call in hanging]
        until(lambda: min(line.connections for line in house.lines.values()) >= 10, 10)
        quick = all_at_once(scene.everything_else())
        seconds = time.monotonic() - began
        still_waiting = sum(not future.done() for future in waiting)
        house.mend()
        done = [future.result().status_code for future in waiting]
    assert {name: outcome.told for name, outcome in quick.items()} == dict.fromkeys(quick, (200, ""))
    assert still_waiting == len(hanging), f"some came to an end within {seconds} s"
    assert set(done) <= {200, 201, 409, 412, 503}, done
