"""Every fault on the way to a real Redis, and that counting together is found again without a restart."""

import os
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from quill.health import service as health
from tests.accounts.browsers import stranger, tries
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.databases import Databases, directory_for_files
from tests.faults.house import PATIENCE, Break, all_at_once, fresh_database, new_sign_in, started, until
from tests.faults.test_redis import FAULTS
from tests.upstreams.faults import FaultyLine, faulty_line

pytestmark = pytest.mark.live("redis")

ALL_FAULTS: dict[str, Break] = FAULTS | {
    "timeout": lambda line: line.break_with("freeze"),
    "slow": lambda line: line.break_with("slow"),
    "restart": lambda line: line.break_with("cut"),
}


@pytest.fixture(scope="module")
def line() -> Iterator[FaultyLine]:
    with faulty_line(os.environ["QUILL_TEST_REDIS_URL"].rpartition("@")[2]) as line:
        yield line


@pytest.fixture(scope="module")
def clinic(
    application: FastAPI, tmp_path_factory: pytest.TempPathFactory, databases: Databases, line: FaultyLine
) -> Iterator[Clinic]:
    directory = directory_for_files(tmp_path_factory, "real-redis-faults")
    credentials = os.environ["QUILL_TEST_REDIS_URL"].rpartition("@")[0]
    with fresh_database(databases, directory) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "CACHE_SECONDS", 0.0)
        settings = cheap_settings(directory, database_url=url, redis_url=f"{credentials}@127.0.0.1:{line.port}/0")
        with started(application, settings) as browser:
            yield Clinic(browser)


@pytest.mark.parametrize("fault", ALL_FAULTS)
def test_redis_is_done_without_and_found_again(clinic: Clinic, line: FaultyLine, fault: str) -> None:
    doctor: Person = clinic.clinician(clinic.organisation(), username=f"doctor-{time.time_ns()}")
    until(lambda: clinic.client.get("/api/health").json()["status"] == "healthy", 10)
    ALL_FAULTS[fault](line)
    outcomes = all_at_once({"sign-in": new_sign_in(doctor), "me": lambda: doctor.get("/api/auth/me")})
    told = clinic.client.get("/api/health").json()
    # From an address of its own, because one address may not fail for ever.
    elsewhere = stranger(clinic, f"10.0.2.{list(ALL_FAULTS).index(fault) + 1}")
    limited = [tries(elsewhere, doctor.username).status_code for _ in range(7)]
    line.mend()
    assert {outcome.told for outcome in outcomes.values()} == {(200, "")}
    assert max(outcome.seconds for outcome in outcomes.values()) < PATIENCE
    if fault != "slow":
        # A slow one may answer a question this short in time.
        assert told["services"]["redis"]["available"] is False
    assert limited.count(429) >= 1
    until(lambda: clinic.client.get("/api/health").json()["status"] == "healthy", 15)
