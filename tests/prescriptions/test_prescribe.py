"""Prescribing controlled medicines, and a patient's list of prescriptions."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from quill.kit.documents import loads
from tests.clinic import Clinic, Person
from tests.patients.helpers import acts, detail, rows

URL = "/api/prescriptions/controlled"


@pytest.fixture
def here(clinic: Clinic) -> int:
    return clinic.organisation()


@pytest.fixture
def gp(clinic: Clinic, here: int) -> Person:
    return clinic.clinician(here, username="dr.lee", full_name="Doctor Lee")


def order(patient_id: str, /, **fields: Any) -> dict[str, Any]:
    return {"patient_id": patient_id, "medication": "Morphine sulfate", "dose": "5 mg", "duration_days": 7} | fields


def test_prescription_is_really_stored(clinic: Clinic, gp: Person, here: int) -> None:
    """Gap: reports success for a prescription that exists nowhere; no audit although the competency is high risk."""
    patient_id = clinic.patient(here)
    answer = gp.post(URL, order(patient_id))
    assert answer.status_code == 201
    prescription_id = answer.json()["prescription_id"]
    assert answer.json() == {
        "status": "success",
        "prescription_id": prescription_id,
        "prescriber": "dr.lee",
        "patient_id": patient_id,
        "medication": "Morphine sulfate",
        "dose": "5 mg",
        "duration_days": 7,
    }
    [(text,)] = rows(clinic, "SELECT document FROM fhir_resource WHERE resource_type = 'MedicationRequest'")
    stored = loads(text)
    assert (stored["id"], stored["intent"], stored["status"]) == (prescription_id, "order", "active")
    assert stored["subject"] == {"reference": f"Patient/{patient_id}"}
    assert stored["requester"]["display"] == "Doctor Lee"
    assert stored["dispenseRequest"]["expectedSupplyDuration"]["value"] == 7
    assert ("prescription:write", "allowed") in acts(clinic, patient_id)
    [row] = gp.get(f"/api/patients/{patient_id}/prescriptions").json()["prescriptions"]
    assert row.pop("prescribed_at").endswith("Z")
    assert row == {k: v for k, v in answer.json().items() if k != "status"} | {"status": "active"}


def test_competency_patient_and_csrf_are_checked(clinic: Clinic, client: TestClient, gp: Person, here: int) -> None:
    """Gap: no patient check, no CSRF, no clinical guard."""
    patient_id = clinic.patient(here)
    nurse = clinic.person(profession="registered_nurse", organisations=[here])
    refusal = (403, "Forbidden: User lacks required competency 'prescribe_controlled_schedule_2'")
    assert detail(nurse.post(URL, order(patient_id))) == refusal
    assert detail(nurse.post(URL, {})) == refusal, "the competency is checked before the body"
    outsider = clinic.clinician(clinic.organisation("Hilltop"))
    assert detail(outsider.post(URL, order(patient_id))) == (404, "Patient not found")
    assert detail(client.post(URL, json=order(patient_id)))[0] == 401
    assert detail(gp.client.post(URL, json=order(patient_id))) == (403, "CSRF failed")
    for unknown in ("nobody", "a/b"):
        assert detail(gp.post(URL, order(unknown))) == (404, "Patient not found")
    admin = clinic.admin(additional_competencies=["prescribe_controlled_schedule_2"])
    assert detail(admin.post(URL, order("nobody"))) == (404, "Patient not found")
    assert detail(clinic.admin().post(URL, order(patient_id))) == refusal
    assert rows(clinic, "SELECT count(*) FROM prescription") == [(0,)]


@pytest.mark.parametrize(
    "field",
    [
        {"duration_days": 0},
        {"duration_days": 367},
        {"duration_days": -1},
        {"duration_days": "7"},
        {"duration_days": 1.5},
        {"duration_days": True},
        {"medication": " "},
        {"medication": "a\x00b"},
        {"dose": ""},
        {"dose": "x" * 256},
        {"dose": None},
        {"patient_id": ""},
        {"colour": "blue"},
    ],
)
def test_bad_input_is_422_and_stores_nothing(clinic: Clinic, gp: Person, here: int, field: dict[str, Any]) -> None:
    """Gap: "no range; negative accepted"."""
    assert detail(gp.post(URL, order(clinic.patient(here), **field)))[0] == 422
    assert rows(clinic, "SELECT count(*) FROM fhir_resource WHERE resource_type = 'MedicationRequest'") == [(0,)]


@pytest.mark.parametrize("days", [1, 366])
def test_shortest_and_longest_duration_are_taken(clinic: Clinic, gp: Person, here: int, days: int) -> None:
    assert gp.post(URL, order(clinic.patient(here), duration_days=days)).json()["duration_days"] == days


def test_repeated_key_prescribes_once(clinic: Clinic, gp: Person, here: int) -> None:
    patient_id, key = clinic.patient(here), {"Idempotency-Key": "k"}
    first = gp.post(URL, order(patient_id), headers=key)
    assert gp.post(URL, order(patient_id), headers=key).json() == first.json()
    assert detail(gp.post(URL, order(patient_id, dose="9 mg"), headers=key))[0] == 409
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda _: gp.post(URL, order(patient_id), headers={"Idempotency-Key": "m"}), range(2)))
    assert len({answer.json()["prescription_id"] for answer in again if answer.status_code == 201}) == 1
    assert rows(clinic, "SELECT count(*) FROM prescription") == [(2,)]


def test_list_is_paged_newest_first_and_guarded(clinic: Clinic, client: TestClient, gp: Person, here: int) -> None:
    patient_id = clinic.patient(here)
    url = f"/api/patients/{patient_id}/prescriptions"
    made = [gp.post(URL, order(patient_id, dose=f"{n} mg")).json()["prescription_id"] for n in range(3)]
    gp.post(URL, order(clinic.patient(here)))
    page = gp.get(f"{url}?limit=2").json()
    rest = gp.get(f"{url}?limit=2&cursor={page['next_cursor']}").json()
    assert [row["prescription_id"] for row in page["prescriptions"] + rest["prescriptions"]] == made[::-1]
    assert rest["next_cursor"] is None
    assert ("prescription:list", "allowed") in acts(clinic, patient_id)
    for cursor in ("%21", "WyJ4IiwieSJd", "WyIyMDI2LTAxLTAxIiwieSJd"):
        assert detail(gp.get(f"{url}?cursor={cursor}"))[0] == 422
    assert detail(client.get(url))[0] == 401
    assert detail(clinic.clinician().get(url)) == (404, "Patient not found")
    assert detail(clinic.person(profession="receptionist", organisations=[here]).get(url))[0] == 403
    assert detail(clinic.admin().get("/api/patients/nobody/prescriptions")) == (404, "Patient not found")
