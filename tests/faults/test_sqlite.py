"""The SQLite file locked by another program, or its disk full: told in time, nothing half done, healed by itself."""

import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from fastapi import FastAPI

from quill.health import service as health
from quill.kit import database as databases
from quill.kit.ids import new_uuid
from quill.kit.logs import configure
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.databases import SqliteDatabases, directory_for_files
from tests.faults.house import PATIENCE, Call, all_at_once, new_sign_in, started

WAIT = 1.0
"""Seconds somebody waits for the file here; ``WAIT_SECONDS`` otherwise."""
CODES = {"database_unavailable", "audit_unavailable"}


@dataclass(frozen=True)
class House:
    """The application on a file, with a clinician and a patient."""

    file: Path
    clinic: Clinic
    doctor: Person
    patient: str

    def reads(self) -> dict[str, Call]:
        """Return calls that read, each of which leaves an audit row."""
        at = f"/api/patients/{self.patient}"
        return {
            "patients": lambda: self.doctor.get("/api/patients"),
            "patient": lambda: self.doctor.get(at),
            "letters": lambda: self.doctor.get(f"{at}/letters"),
            "conversations": lambda: self.doctor.get("/api/conversations"),
        }

    def writes(self) -> dict[str, Call]:
        """Return calls that write; made again they carry the same keys."""
        begun = {"patient_id": self.patient, "subject": "New", "initial_message": "Hello"}
        order = {"patient_id": self.patient, "medication": "morphine", "dose": "5 mg", "duration_days": 7}
        keys = [{"Idempotency-Key": new_uuid()} for _ in range(2)]
        return {
            "sign-in": new_sign_in(self.doctor),
            "conversation": lambda: self.doctor.post("/api/conversations", begun, headers=keys[0]),
            "prescription": lambda: self.doctor.post("/api/prescriptions/controlled", order, headers=keys[1]),
        }

    def kept(self) -> tuple[int, int]:
        """Return how many conversations and prescriptions there are."""
        at = f"/api/patients/{self.patient}"
        talks = self.doctor.get(f"{at}/conversations").json()["conversations"]
        return len(talks), len(self.doctor.get(f"{at}/prescriptions").json()["prescriptions"])


@pytest.fixture(scope="module")
def house(
    application: FastAPI, tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases
) -> Iterator[House]:
    directory = directory_for_files(tmp_path_factory, "sqlite-faults")
    url = sqlite_databases.fresh(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databases, "WAIT_SECONDS", WAIT)
        patch.setattr(databases, "PING_SECONDS", 0.2)
        patch.setattr(health, "CACHE_SECONDS", 0.0)
        with started(application, cheap_settings(directory, database_url=url)) as browser:
            clinic = Clinic(browser)
            surgery = clinic.organisation()
            file = Path(url.partition("///")[2])
            yield House(file, clinic, clinic.clinician(surgery), clinic.patient(surgery))


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the write lock as another program would."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full(file: Path) -> Iterator[None]:
    """Let the system refuse every further byte in a file, as it does on a full disk."""
    del file
    # What the program writes on standard error may be kept in a file on the same disk.
    configured = structlog.get_config()
    configure("error", as_json=True)
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
        structlog.configure(**configured)


Trouble = Callable[[Path], AbstractContextManager[None]]
every_trouble = pytest.mark.parametrize("trouble", [pytest.param(locked, marks=pytest.mark.thorough), full])


@every_trouble
def test_trouble_with_the_file_is_told_in_time_by_everything_and_heals(house: House, trouble: Trouble) -> None:
    before, writes = house.kept(), house.writes()
    calls = {f"{name} {number}": call for number in range(2) for name, call in (house.reads() | writes).items()}
    client = house.clinic.client
    probes: dict[str, Call] = {
        "health": lambda: client.get("/api/health"),
        "ready": lambda: client.get("/api/health/ready"),
    }
    with trouble(house.file):
        began = time.monotonic()
        outcomes = all_at_once(calls)
        seconds = time.monotonic() - began
        told = {name: call() for name, call in probes.items()}
        alive = client.get("/api/health/live")
    refusals = {outcome.told for outcome in outcomes.values()}
    assert refusals <= {(503, code) for code in CODES}
    assert all(outcome.answer.headers["retry-after"] == "5" for outcome in outcomes.values())
    assert seconds < 3 * WAIT + PATIENCE, "they wait side by side, and not each for all before it"
    assert told["health"].json()["services"]["auth_db"]["available"] is False
    assert (told["ready"].status_code, alive.status_code) == (503, 200)

    healed = all_at_once(house.reads() | writes)
    assert {outcome.answer.status_code for outcome in healed.values()} <= {200, 201}
    assert client.get("/api/health").json()["status"] == "healthy"
    assert house.kept() == (before[0] + 1, before[1] + 1)


def test_short_write_of_another_program_is_waited_for(house: House) -> None:
    with closing(sqlite3.connect(house.file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        end = threading.Timer(WAIT / 4, lambda: other.execute("ROLLBACK"))
        end.start()
        outcomes = all_at_once(house.writes())
        end.join()
    assert {outcome.answer.status_code for outcome in outcomes.values()} <= {200, 201}
