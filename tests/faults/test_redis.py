"""Redis away, slow or wrong: limits hold in each process, and nothing else notices."""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from quill.adapters.redis import link
from quill.health import service as health
from tests.accounts.browsers import stranger, tries
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.databases import Databases, directory_for_files
from tests.faults.house import PATIENCE, Break, all_at_once, fresh_database, new_sign_in, started
from tests.upstreams.faults import FaultyLine, faulty_line

NOBODY = "127.0.0.1:9"
"""Where a line leads that carries nothing anyway."""

FAULTS: dict[str, Break] = {
    "refused": lambda line: line.break_with("refuse"),
    "timeout": lambda line: line.break_with("hang"),
    "500": lambda line: line.break_with("speak", b"-ERR internal error\r\n" * 30),
    "429": lambda line: line.break_with("speak", b"-OOM command not allowed when used memory > 'maxmemory'\r\n" * 30),
    "half": lambda line: line.break_with("speak", b"$100\r\nhalf of"),
    "content-type": lambda line: line.break_with("speak", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


class House:
    """The application, the line to its Redis, and a clinician."""

    def __init__(self, clinic: Clinic, line: FaultyLine) -> None:
        self.clinic = clinic
        self.line = line
        self.doctor: Person = clinic.clinician(clinic.organisation())
        clinic.patient(1)


@pytest.fixture(scope="module")
def house(application: FastAPI, tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[House]:
    directory = directory_for_files(tmp_path_factory, "redis-faults")
    with (
        fresh_database(databases, directory) as url,
        faulty_line(NOBODY) as line,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(link, "DEADLINE_SECONDS", 0.1)
        patch.setattr(health, "CACHE_SECONDS", 0.0)
        line.break_with("refuse")
        settings = cheap_settings(directory, database_url=url, redis_url=f"redis://127.0.0.1:{line.port}/0")
        with started(application, settings) as browser:
            yield House(Clinic(browser), line)


@pytest.mark.parametrize("fault", FAULTS)
def test_limits_hold_and_nothing_else_notices(house: House, fault: str) -> None:
    FAULTS[fault](house.line)
    client, doctor = house.clinic.client, house.doctor
    began = time.monotonic()
    outcomes = all_at_once(
        {
            "sign-in": new_sign_in(doctor),
            "me": lambda: doctor.get("/api/auth/me"),
            "patients": lambda: doctor.get("/api/patients"),
            "conversations": lambda: doctor.get("/api/conversations"),
            "ready": lambda: client.get("/api/health/ready"),
        }
    )
    assert {name: outcome.told for name, outcome in outcomes.items()} == dict.fromkeys(outcomes, (200, ""))
    told = client.get("/api/health").json()
    assert (told["status"], told["services"]["redis"]["available"]) == ("degraded", False)
    assert told["services"]["auth_db"]["available"]

    guessed = house.clinic.person(is_signed_in=False)
    elsewhere = stranger(house.clinic, f"10.0.1.{list(FAULTS).index(fault) + 1}")
    assert Counter(tries(elsewhere, guessed.username).status_code for _ in range(7)) == {400: 5, 429: 2}
    assert time.monotonic() - began < PATIENCE + 2
