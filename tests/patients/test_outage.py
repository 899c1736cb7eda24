"""The FHIR store away, slow or losing answers: never "no data", never a double, nothing acknowledged lost."""

import asyncio

import pytest
import sqlalchemy as sa

from quill.app import KINDS
from quill.errors import FhirUnavailable
from quill.patients import contact
from tests.clinic import Clinic, Person
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, acts, detail, remote_fhir, rows
from tests.remote_like import sweep_after_leases_ran_out

AWAY = "The patient record store is not available right now"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the store at every list, and wait for it no longer than a test can."""
    monkeypatch.setattr(contact, "GOOD_SECONDS", 0.0)
    monkeypatch.setattr(contact, "BAD_SECONDS", 0.0)
    monkeypatch.setattr(contact, "DEADLINE_SECONDS", 0.05)


@pytest.fixture
def here(clinic: Clinic) -> int:
    return clinic.organisation()


@pytest.fixture
def gp(clinic: Clinic, here: int) -> Person:
    return clinic.clinician(here)


@pytest.mark.usefixtures("impatient")
def test_list_shows_the_last_known_patients_and_says_from_when(clinic: Clinic, gp: Person, here: int) -> None:
    """Gap: with FHIR stopped the reply was 200, patients empty, fhir_ready true: reads as 'no patients'."""
    clinic.patient(here)
    good = gp.get("/api/patients").json()
    assert good["fhir_ready"] is True
    remote_fhir(clinic, is_away=True)
    bad = gp.get("/api/patients")
    assert bad.status_code == 200
    assert bad.json() == good | {"fhir_ready": False}


@pytest.mark.usefixtures("impatient")
def test_list_does_not_wait_for_a_store_that_hangs(clinic: Clinic, gp: Person, here: int) -> None:
    """Gap: no request timeout: a hung FHIR server holds a worker indefinitely."""
    patient_id = clinic.patient(here)
    remote_fhir(clinic).before_next("ping", lambda: asyncio.sleep(30))
    body = gp.get("/api/patients").json()
    assert (body["fhir_ready"], [patient["id"] for patient in body["patients"]]) == (False, [patient_id])
    # Never heard from since the start: the newest version we hold says what the list is as of.
    assert body["as_of"] == body["patients"][0]["meta"]["lastUpdated"]


@pytest.mark.usefixtures("impatient")
def test_list_is_ready_again_when_the_store_is(clinic: Clinic, gp: Person) -> None:
    line = remote_fhir(clinic, is_away=True)
    assert gp.get("/api/patients").json() == {
        "patients": [],
        "fhir_ready": False,
        "as_of": None,
        "next_cursor": None,
        "total": 0,
    }
    line.mend()
    assert gp.get("/api/patients").json()["fhir_ready"] is True


def test_store_is_asked_how_it_is_once_in_a_while(clinic: Clinic, gp: Person) -> None:
    line = remote_fhir(clinic)
    for _ in range(3):
        assert gp.get("/api/patients").json()["fhir_ready"] is True
    assert line.count("ping") < 3


def test_reading_one_patient_is_503_and_not_404(clinic: Clinic, gp: Person, here: int) -> None:
    """Gap: outage reported as absence."""
    patient_id = clinic.patient(here)
    remote_fhir(clinic, is_away=True)
    for answer in (
        gp.get(f"/api/patients/{patient_id}"),
        gp.get(f"/api/patients/{patient_id}/demographics"),
        gp.post(f"/api/patients/verify?patient_id={patient_id}"),
        gp.patch(f"/api/patients/{patient_id}", {"given_name": "Eve"}),
        gp.put(f"/api/patients/{patient_id}/demographics", {"given_name": "Eve"}),
    ):
        assert detail(answer) == (503, AWAY)
        assert answer.json()["error_code"] == "fhir_unavailable"
        assert answer.headers["retry-after"] == "5"
    assert ("patient:read", "failed") in acts(clinic, patient_id)
    assert gp.get(f"/api/patients/{patient_id}/metadata").status_code == 200


def test_patient_the_store_did_not_take_is_nowhere(clinic: Clinic, gp: Person) -> None:
    line = remote_fhir(clinic, is_away=True)
    body = {"given_name": "Ann", "family_name": "Lee", "patient_id": "p1"}
    assert detail(gp.post("/api/patients", body)) == (503, AWAY)
    line.mend()
    sweep(clinic)
    assert gp.get("/api/patients").json()["patients"] == []
    assert gp.post("/api/patients", body).status_code == 200


def test_patient_whose_answer_was_lost_is_found_by_the_sweep(clinic: Clinic, gp: Person) -> None:
    remote_fhir(clinic).lose_next("write", FhirUnavailable)
    body, key = {"given_name": "Ann", "family_name": "Lee"}, {"Idempotency-Key": "k"}
    assert detail(gp.post("/api/patients", body, headers=key)) == (503, AWAY)
    assert gp.get("/api/patients").json()["patients"] == []
    sweep(clinic)
    [patient] = gp.get("/api/patients").json()["patients"]
    again = gp.post("/api/patients", body, headers=key)
    assert (again.status_code, again.json()["id"]) == (200, patient["id"])


def test_patient_whose_answer_was_lost_is_added_once_by_the_repeated_call(clinic: Clinic, gp: Person) -> None:
    line = remote_fhir(clinic)
    line.lose_next("write", FhirUnavailable)
    body, key = {"given_name": "Ann", "family_name": "Lee"}, {"Idempotency-Key": "k"}
    assert detail(gp.post("/api/patients", body, headers=key)) == (503, AWAY)
    again = gp.post("/api/patients", body, headers=key)
    assert (again.status_code, line.count("write")) == (200, 1)
    assert [found["id"] for found in gp.get("/api/patients").json()["patients"]] == [again.json()["id"]]


def test_edit_whose_answer_was_lost_is_found_by_the_sweep(clinic: Clinic, gp: Person, here: int) -> None:
    address = f"/api/patients/{clinic.patient(here)}"
    remote_fhir(clinic).lose_next("write", FhirUnavailable)
    assert detail(gp.patch(address, {"family_name": "Leigh"})) == (503, AWAY)
    sweep(clinic)
    [listed] = gp.get("/api/patients?name=leigh").json()["patients"]
    assert listed["meta"]["versionId"] == "2"


def test_remote_store_serves_the_whole_life_of_a_record(clinic: Clinic, gp: Person) -> None:
    remote_fhir(clinic)
    patient = gp.post("/api/patients", {"given_name": "Ann", "family_name": "Lee"}).json()
    address = f"/api/patients/{patient['id']}"
    changed = gp.patch(address, {"family_name": "Leigh"}, headers={"If-Match": 'W/"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"2"')
    assert gp.get(address).json() == changed.json()
    body = {"patient_id": patient["id"], "medication": "morphine", "dose": "5 mg", "duration_days": 7}
    assert gp.post("/api/prescriptions/controlled", body).status_code == 201
    assert len(gp.get(f"{address}/prescriptions").json()["prescriptions"]) == 1
    assert rows(clinic, "SELECT count(*) FROM intent WHERE state <> 'done'") == [(0,)]
    assert rows(clinic, "SELECT count(*) FROM intent_claim") == [(0,)]


def test_prescription_the_store_did_not_take_is_nowhere(clinic: Clinic, gp: Person, here: int) -> None:
    patient_id = clinic.patient(here)
    remote_fhir(clinic, is_away=True)
    body = {"patient_id": patient_id, "medication": "morphine", "dose": "5 mg", "duration_days": 7}
    assert detail(gp.post("/api/prescriptions/controlled", body)) == (503, AWAY)
    assert gp.get(f"/api/patients/{patient_id}/prescriptions").json()["prescriptions"] == []


def test_number_taken_in_the_meantime_does_not_hide_a_record_the_store_has(clinic: Clinic, gp: Person) -> None:
    other = clinic.patient(identifier=[{"system": NHS_SYSTEM, "value": NHS_NUMBER}])
    clinic.admin().post(f"/api/patients/{other}/deactivate")

    async def activate() -> None:
        async with clinic.services.database.writing() as session:
            await session.execute(sa.text("UPDATE patient_index SET is_active = true"))

    remote_fhir(clinic).after_next("write", activate)
    answer = gp.post("/api/patients", {"given_name": "Ann", "family_name": "Lee", "nhs_number": NHS_NUMBER})
    assert answer.status_code == 200
    [listed] = gp.get(f"/api/patients?search={NHS_NUMBER}").json()["patients"]
    assert listed["id"] == answer.json()["id"]


def sweep(clinic: Clinic) -> None:
    clinic.run(sweep_after_leases_ran_out, clinic.services, KINDS)
