"""What a process does whose records are moved: it writes nothing more, and stops."""

import asyncio
import signal

import pytest
import sqlalchemy as sa

from quill import app
from quill.adapters.home import ClinicalHome, move_home
from quill.kit import clock
from quill.unit import Unit
from tests.clinic import Clinic


def set_home(clinic: Clinic, **values: object) -> None:
    async def change(unit: Unit) -> None:
        await unit.session.execute(sa.update(ClinicalHome).values(**values))

    clinic.in_unit(change)


def test_process_stops_once_its_records_have_moved(
    clinic: Clinic, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "HOME_SECONDS", 0.01)

    async def watch() -> None:
        watching = asyncio.create_task(app._stop_when_moved(clinic.services))
        await asyncio.sleep(0.05)
        assert not told
        async with clinic.services.database.writing() as session:
            await move_home(session, "openehr", "remote")
        async with asyncio.timeout(5):
            await watching

    clinic.run(watch)
    assert signal.SIGTERM in told


@pytest.mark.parametrize("store", ["fhir", "openehr"])
def test_nothing_is_written_to_a_store_the_records_have_left(clinic: Clinic, store: str) -> None:
    here = clinic.organisation()
    doctor, patient = clinic.clinician(here), clinic.patient(here)

    async def move(unit: Unit) -> None:
        await move_home(unit.session, store, "remote")  # type: ignore[arg-type]

    clinic.in_unit(move)
    answer = doctor.post(f"/api/patients/{patient}/letters", {"title": "Letter", "body": "All is well."})
    assert (answer.status_code, answer.json()["error_code"]) == (503, "records_moving")
    assert int(answer.headers["Retry-After"]) > 0
    assert doctor.get(f"/api/patients/{patient}/letters").json()["letters"] == []


def test_writes_are_held_up_only_as_long_as_the_mover_says_so(clinic: Clinic) -> None:
    here = clinic.organisation()
    doctor, patient = clinic.clinician(here), clinic.patient(here)
    letter = {"title": "Letter", "body": "All is well."}
    # The mover counts on less than the writers wait.
    set_home(clinic, mover="m", moving_until=clock.now())
    assert doctor.post(f"/api/patients/{patient}/letters", letter).status_code == 503
    assert doctor.get(f"/api/patients/{patient}").status_code == 200, "reading goes on"
    set_home(clinic, mover="m", moving_until=None)
    assert doctor.post(f"/api/patients/{patient}/letters", letter).status_code == 200
