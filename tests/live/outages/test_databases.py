"""A database that crashes under HAPI FHIR and EHRbase, and comes back: what they acknowledged is still there."""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from quill.kit.documents import Document
from tests.live.control import server

PATIENCE = 40
"""Seconds after which a store must have found its database again."""


@pytest.fixture
def fhir() -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=os.environ["QUILL_TEST_FHIR_URL"], timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def openehr() -> Iterator[httpx2.Client]:
    credentials = (os.environ["QUILL_TEST_OPENEHR_USER"], os.environ["QUILL_TEST_OPENEHR_PASSWORD"])
    with httpx2.Client(base_url=os.environ["QUILL_TEST_OPENEHR_URL"], auth=credentials, timeout=PATIENCE) as client:
        yield client


@pytest.mark.live("postgresql", "fhir", "openehr")
def test_records_survive_a_crash_of_the_database(fhir: httpx2.Client, openehr: httpx2.Client) -> None:
    patient, ehr = f"Patient/{uuid.uuid4()}", f"ehr/{uuid.uuid4()}"
    assert fhir.put(patient, json={"resourceType": "Patient", "id": patient.split("/")[1]}).status_code == 201
    assert openehr.put(ehr).status_code == 201

    server("postgresql").kill()
    server("postgresql").start()

    assert _found_again(fhir, patient)["id"] == patient.split("/")[1]
    assert _found_again(openehr, ehr)["ehr_id"]["value"] == ehr.split("/")[1]


@pytest.mark.live("redis")
def test_a_killed_server_is_gone_and_comes_back_at_the_same_place() -> None:
    redis = server("redis")
    redis.kill()
    with pytest.raises(OSError, match="refused"):
        _greet(redis.url)
    redis.start()
    assert _greet(redis.url).startswith(b"-NOAUTH")


def _found_again(client: httpx2.Client, path: str) -> Document:
    """Read until the store has found its database again; it may say 500 meanwhile, but never that there is nothing."""
    deadline = time.monotonic() + PATIENCE
    while (answer := client.get(path, headers={"Accept": "application/json"})).status_code != 200:
        assert answer.status_code >= 500
        assert time.monotonic() < deadline
        time.sleep(0.2)
    found: Document = answer.json()
    return found


def _greet(url: str) -> bytes:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(100)
