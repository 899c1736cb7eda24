"""The FHIR or the openEHR server away, slow or wrong: told in time, taken for nothing else, nothing lost or doubled."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from quill.adapters import breaker
from quill.health import service as health
from quill.patients import contact
from tests.conftest import cheap_settings
from tests.databases import Databases, SqliteDatabases, directory_for_files
from tests.faults.house import DEADLINE, HTTP_FAULTS, PATIENCE, House, all_at_once, fresh_database, open_house
from tests.faults.scene import People, Scene, people_of, scene_of

pytestmark = pytest.mark.thorough

TOLD = {
    "refused": 503,
    "timeout": 503,
    "500": 502,
    "429": 503,
    "half": 503,
    "content-type": 502,
    "slow": 503,
    "restart": 503,
}
"""502 where an answer came and is none; 503 where none came, or the server asks for a pause."""
ANSWER_LOST = {"half", "slow", "restart"}
"""Where a request arrives and its answer does not."""
HEALTH_NAME = {"fhir": "fhir", "openehr": "ehrbase"}


@pytest.fixture(scope="module")
def house(
    application: FastAPI,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    sqlite_databases: SqliteDatabases,
) -> Iterator[House]:
    directory: Path = directory_for_files(tmp_path_factory, "faults")
    with fresh_database(databases, directory) as url, pytest.MonkeyPatch.context() as patch:
        # Each call finds out by itself, instead of being told what the ones before it found.
        patch.setattr(breaker, "FAILURES_TO_OPEN", 10_000)
        for module, name in ((contact, "GOOD_SECONDS"), (contact, "BAD_SECONDS"), (health, "CACHE_SECONDS")):
            patch.setattr(module, name, 0.0)
        settings = cheap_settings(directory, database_url=url, clinical_timeout_seconds=DEADLINE)
        with open_house(application, settings, sqlite_databases) as house:
            yield house


@pytest.fixture(scope="module")
def people(house: House) -> People:
    return people_of(house)


@pytest.fixture
def scene(house: House, people: People) -> Iterator[Scene]:
    yield scene_of(house, people)
    house.mend()


every_fault = pytest.mark.parametrize("fault", HTTP_FAULTS)
both_stores = pytest.mark.parametrize("part", ["fhir", "openehr"])


@both_stores
@every_fault
def test_trouble_is_told_in_time_and_nothing_else_suffers(scene: Scene, part: str, fault: str) -> None:
    house, before = scene.house, scene.listed()
    HTTP_FAULTS[fault](house.lines[part])
    broken = {
        f"{kind}: {name}": call
        for kind, calls in (("read", scene.reads(part)), ("write", scene.writes(part)), ("change", scene.changes(part)))
        for name, call in calls.items()
    }
    fine = scene.essentials(part)
    outcomes = all_at_once(broken | fine | {"health": house.health})

    code = f"{part}_{'refused' if TOLD[fault] == 502 else 'unavailable'}"
    assert {name: outcomes[name].told for name in broken} == dict.fromkeys(broken, (TOLD[fault], code))
    pauses = {outcomes[name].answer.headers.get("retry-after") for name in broken}
    assert pauses == {None if TOLD[fault] == 502 else "7" if fault == "429" else "5"}
    assert {name: outcomes[name].told for name in fine} == dict.fromkeys(fine, (200, ""))
    assert max(outcome.seconds for outcome in outcomes.values()) < PATIENCE
    patients = outcomes["fine: patients"].answer.json()
    assert scene.patient in {found["id"] for found in patients["patients"]}
    assert patients["fhir_ready"] == (part != "fhir")
    told = outcomes["health"].answer.json()
    out = [name for name, service in told["services"].items() if not service["available"]]
    assert (told["status"], out) == ("degraded", [HEALTH_NAME[part]])

    assert scene.listed() == before, "what was not acknowledged is not shown"
    house.mend()
    healed = all_at_once(scene.reads(part) | {"health": house.health})
    assert {outcome.told for outcome in healed.values()} == {(200, "")}
    assert healed["health"].answer.json()["status"] == "healthy"


@both_stores
@every_fault
def test_write_under_way_is_made_once(scene: Scene, part: str, fault: str) -> None:
    """What arrived is found by the sweep, what did not is nowhere, and the same call again makes it once."""
    before, writes = scene.kept(), scene.writes(part)
    HTTP_FAULTS[fault](scene.house.lines[part])
    refused = all_at_once(writes)
    assert {outcome.told[0] for outcome in refused.values()} == {TOLD[fault]}
    scene.house.mend()
    scene.house.sweep()
    swept = scene.kept()
    arrived = {name for name in swept if swept[name] != before[name]}
    assert arrived <= (set(writes) if fault in ANSWER_LOST else set())
    if (part, fault) == ("fhir", "restart"):
        assert arrived == {"patient", "message", "prescription"}, "a conversation takes two requests"
    expected = before | {name: before[name] + 1 for name in writes}
    assert {name: swept[name] for name in arrived} == {name: expected[name] for name in arrived}

    repeated, again = all_at_once(writes), all_at_once(writes)
    made = {name: (201 if name == "prescription" else 200, "") for name in writes}
    assert {name: outcome.told for name, outcome in repeated.items()} == made
    for name in writes:
        assert again[name].answer.json() == repeated[name].answer.json()
    assert scene.house.sweep() == 0
    assert scene.kept() == expected


@both_stores
def test_repeating_a_call_at_once_does_what_the_first_could_not(scene: Scene, part: str) -> None:
    """The caller need not wait for the sweep; what arrived the first time is not there twice."""
    before, writes = scene.kept(), scene.writes(part)
    scene.house.lines[part].break_with("cut")
    all_at_once(writes)
    scene.house.mend()
    repeated = all_at_once(writes)
    assert {outcome.answer.status_code for outcome in repeated.values()} <= {200, 201}
    scene.house.sweep()
    assert scene.kept() == before | {name: before[name] + 1 for name in writes}


@both_stores
def test_store_known_to_be_down_is_not_waited_for_and_found_again(
    scene: Scene, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five failures in a row calls fail at once; when the pause is over one finds out, and all is as before."""
    monkeypatch.setattr(breaker, "FAILURES_TO_OPEN", 5)
    monkeypatch.setattr(breaker, "PAUSE_SECONDS", 30.0)
    read = next(iter(scene.reads(part).values()))
    scene.house.lines[part].break_with("hang")
    all_at_once({str(number): read for number in range(6)})
    told = all_at_once({"read": read})["read"]
    assert told.told == (503, f"{part}_unavailable")
    assert told.seconds < DEADLINE
    assert 1 <= int(told.answer.headers["retry-after"]) <= 30
    scene.house.mend()
    # Who asks how the parts are asks the store itself, and what comes of that is believed.
    assert scene.house.health().json()["status"] == "healthy"
    assert read().status_code == 200
