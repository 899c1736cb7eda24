"""Moving a clinic to real servers and back, killed on the way."""

import os
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cli.conftest import PROGRAM, environment

pytestmark = [pytest.mark.live("fhir", "openehr"), pytest.mark.timeout(900)]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return environment(
        tmp_path / "data",
        QUILL_OPENEHR_USER=os.environ["QUILL_TEST_OPENEHR_USER"],
        QUILL_OPENEHR_PASSWORD=os.environ["QUILL_TEST_OPENEHR_PASSWORD"],
    )


def quill(settings: dict[str, str], *words: str) -> str:
    """Run a command to its good end and return what it said."""
    done = subprocess.run([*PROGRAM, *words], env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def place(tmp_path: Path) -> set[str]:
    with sqlite3.connect(tmp_path / "data" / "quill.sqlite3") as database:
        return {row[0] for row in database.execute("SELECT place FROM clinical_home")}


def empty(tmp_path: Path) -> None:
    """Forget the embedded records, as a new database would."""
    tables = ("fhir_search_key", "fhir_resource_version", "fhir_resource", "openehr_composition", "openehr_ehr")
    with sqlite3.connect(tmp_path / "data" / "quill.sqlite3") as database:
        for table in tables:
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours


def clear_conversations(fhir: str) -> None:
    """Take out the conversations of other tests' clinics: a way back brings everybody's, and their numbers clash."""
    with httpx2.Client(timeout=60, headers={"Cache-Control": "no-cache"}) as client:
        found: list[dict[str, Any]] = []
        url = f"{fhir}/Communication?_count=500&_sort=-_lastUpdated"
        while url:
            page = client.get(url).raise_for_status().json()
            found += [entry["resource"] for entry in page.get("entry", [])]
            url = next((link["url"] for link in page["link"] if link["relation"] == "next"), "")
        # What refers to others goes first, the newest of it before what it may amend.
        for resource in sorted(found, key=lambda resource: "partOf" not in resource):
            client.delete(f"{fhir}/Communication/{resource['id']}").raise_for_status()


def test_clinic_moves_to_real_servers_and_back_though_the_copy_is_killed(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    fhir, openehr = os.environ["QUILL_TEST_FHIR_URL"], os.environ["QUILL_TEST_OPENEHR_URL"]
    there = {"QUILL_FHIR_URL": fhir, "QUILL_OPENEHR_URL": openehr}
    clear_conversations(fhir)
    copy = ("copy-clinical", "--to-fhir", fhir, "--to-openehr", openehr)
    quill(settings, "migrate")
    quill(settings, "demo", "--patients", "60", "--conversations", "30", "--messages", "240", "--json")

    for seconds in (4.0, 5.0):
        process = subprocess.Popen([*PROGRAM, *copy], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # Somewhere in the middle, however fast the machine is; ended already is right, too.
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    if place(tmp_path) == {"embedded"}:
        quill(settings, *copy)
    assert place(tmp_path) == {"remote"}
    assert "Both sides are alike." in quill(settings, *copy, "--verify")
    refused = subprocess.run([*PROGRAM, "reconcile"], env=settings, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "QUILL_FHIR_URL is not set" in refused.stderr
    told = subprocess.run(
        [*PROGRAM, "reconcile", "--dry-run"], env=settings | there, capture_output=True, text=True, check=False
    ).stdout
    # Others write to the same servers, so there may be patients that this clinic does not list.
    assert "older in the tables" not in told
    assert "in the tables and not in the store" not in told

    empty(tmp_path)
    quill(settings | there, "copy-clinical", "--to-embedded")
    assert place(tmp_path) == {"embedded"}
    assert "Tables and stores agree." in quill(settings, "reconcile")
