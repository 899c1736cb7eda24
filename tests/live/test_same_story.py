"""The same story gives the same answers, byte for byte, with HAPI FHIR and EHRbase."""

import os
from contextlib import ExitStack

import pytest
from fastapi import FastAPI

from tests.clinic import Clinic
from tests.conftest import cheap_settings
from tests.databases import Databases, directory_for_files
from tests.faults.house import fresh_database, started
from tests.journeys.story import Story

pytestmark = pytest.mark.live("fhir", "openehr")


def test_real_servers_give_the_same_answers(
    application: FastAPI, tmp_path_factory: pytest.TempPathFactory, databases: Databases
) -> None:
    elsewhere = {
        "fhir_url": os.environ["QUILL_TEST_FHIR_URL"],
        "openehr_url": os.environ["QUILL_TEST_OPENEHR_URL"],
        "openehr_user": os.environ["QUILL_TEST_OPENEHR_USER"],
        "openehr_password": os.environ["QUILL_TEST_OPENEHR_PASSWORD"],
        "clinical_timeout_seconds": 20,
    }
    told: list[list[bytes]] = []
    for name, settings in (("embedded", {}), ("real", elsewhere)):
        with ExitStack() as stack:
            directory = directory_for_files(tmp_path_factory, f"story-{name}")
            url = stack.enter_context(fresh_database(databases, directory))
            browser = stack.enter_context(started(application, cheap_settings(directory, database_url=url, **settings)))
            told.append(Story(Clinic(browser)).tell())
    for here, there in zip(*told, strict=True):
        assert here == there
