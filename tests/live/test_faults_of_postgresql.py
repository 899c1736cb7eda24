"""PostgreSQL away, slow or wrong: told in time by everything, and healed without a restart."""

import struct
from collections.abc import Callable, Iterator, Mapping

import pytest
from fastapi import FastAPI
from sqlalchemy.engine import make_url

from quill.health import service as health
from quill.kit import database as kit_database
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.databases import Databases
from tests.faults.house import Call, all_at_once, new_sign_in, started, until
from tests.upstreams.faults import FaultyLine, faulty_line

pytestmark = pytest.mark.live("postgresql")

WAIT = 1.0
BOUND = 3 * WAIT + 5
"""For a connection, for what it takes to open one, for a statement; and this machine's own time."""


def fatal(code: str) -> bytes:
    """Return what PostgreSQL says instead of taking a client (Frontend/Backend Protocol, ``ErrorResponse``)."""
    fields = b"".join(field + b"\0" for field in (b"SFATAL", b"VFATAL", b"C" + code.encode(), b"Mnot now")) + b"\0"
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


FAULTS: Mapping[str, Callable[[FaultyLine], None]] = {
    "refused": lambda line: line.break_with("refuse"),
    "timeout": lambda line: line.break_with("freeze"),
    "500": lambda line: line.break_with("speak", fatal("57P03")),
    "429": lambda line: line.break_with("speak", fatal("53300")),
    "half": lambda line: line.break_with("half"),
    "content-type": lambda line: line.break_with("speak", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "slow": lambda line: line.break_with("slow"),
    "restart": lambda line: line.break_with("cut"),
}


class House:
    """The application, a line to its database, and two people."""

    def __init__(self, line: FaultyLine, clinic: Clinic) -> None:
        self.line = line
        self.clinic = clinic
        self.surgery = clinic.organisation()
        self.doctor: Person = clinic.clinician(self.surgery)
        self.patient = clinic.patient(self.surgery)

    def calls(self) -> dict[str, Call]:
        """Return calls of every kind."""
        at = f"/api/patients/{self.patient}"
        begun = {"patient_id": self.patient, "subject": "New", "initial_message": "Hello"}
        return {
            "sign-in": new_sign_in(self.doctor),
            "me": lambda: self.doctor.get("/api/auth/me"),
            "patients": lambda: self.doctor.get("/api/patients"),
            "patient": lambda: self.doctor.get(at),
            "letters": lambda: self.doctor.get(f"{at}/letters"),
            "conversation": lambda: self.doctor.post("/api/conversations", begun, headers={"Idempotency-Key": "1"}),
            "ready": lambda: self.doctor.get("/api/health/ready"),
        }


@pytest.fixture(scope="module")
def house(application: FastAPI, tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("postgresql-faults")
    fresh = databases.fresh(directory)
    url = make_url(fresh)
    with (
        faulty_line(f"{url.host}:{url.port}") as line,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(kit_database, "WAIT_SECONDS", WAIT)
        patch.setattr("quill.app.STATEMENT_SECONDS", WAIT)
        patch.setattr(health, "CACHE_SECONDS", 0.0)
        behind = url.set(host="127.0.0.1", port=line.port, query={"ssl": "disable"}).render_as_string(
            hide_password=False
        )
        with started(application, cheap_settings(directory, database_url=behind, database_pool_size=2)) as browser:
            yield House(line, Clinic(browser))
            line.mend()
    databases.drop(fresh)


@pytest.mark.parametrize("fault", FAULTS)
def test_trouble_with_the_database_is_told_in_time_by_everything_and_heals(house: House, fault: str) -> None:
    calls = {f"{name} {number}": call for number in range(2) for name, call in house.calls().items()}
    FAULTS[fault](house.line)
    outcomes = all_at_once(calls)
    told = house.clinic.client.get("/api/health").json()
    alive = house.clinic.client.get("/api/health/live")
    house.line.mend()
    assert {outcome.told for outcome in outcomes.values()} <= {
        (503, "database_unavailable"),
        (503, "audit_unavailable"),
    }
    assert all(outcome.answer.headers["retry-after"] == "5" for outcome in outcomes.values())
    assert max(outcome.seconds for outcome in outcomes.values()) < BOUND
    assert (told["status"], told["services"]["auth_db"]["available"], alive.status_code) == ("degraded", False, 200)

    until(lambda: house.clinic.client.get("/api/health").json()["status"] == "healthy", 10)
    healed = all_at_once(house.calls())
    assert {name: outcome.told for name, outcome in healed.items()} == dict.fromkeys(healed, (200, ""))
    listed = house.doctor.get(f"/api/patients/{house.patient}/conversations").json()["conversations"]
    assert len(listed) == 1, "the same key made one conversation over all the outages"
