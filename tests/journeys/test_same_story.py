"""The same story gives the same answers, byte for byte, wherever the clinical records are kept."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.clinic import Clinic
from tests.conftest import cheap_settings
from tests.databases import Databases, SqliteDatabases, directory_for_files
from tests.faults.house import fresh_database, open_house, started
from tests.journeys.story import Story

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def at_home(application: FastAPI, tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> list[bytes]:
    """Return the answers of a house that keeps its records itself."""
    directory = directory_for_files(tmp_path_factory, "story-embedded")
    with (
        fresh_database(databases, directory) as url,
        started(application, cheap_settings(directory, database_url=url)) as browser,
    ):
        return Story(Clinic(browser)).tell()


def test_records_elsewhere_give_the_same_answers(
    application: FastAPI,
    at_home: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    sqlite_databases: SqliteDatabases,
) -> None:
    directory: Path = directory_for_files(tmp_path_factory, "story-remote")
    with (
        fresh_database(databases, directory) as url,
        open_house(application, cheap_settings(directory, database_url=url), sqlite_databases) as house,
    ):
        elsewhere = Story(house.clinic).tell()
    for here, there in zip(at_home, elsewhere, strict=True):
        assert here == there


def test_story_reaches_far(at_home: list[bytes]) -> None:
    """Most of it succeeds, and what is to be refused is."""
    statuses = [int(answer.partition(b"\n")[0].rpartition(b": ")[2]) for answer in at_home]
    assert len(statuses) >= 70
    assert {200, 201, 404, 409, 412, 422, 428} <= set(statuses)
    assert statuses.count(200) > 45
    assert max(statuses) < 500
