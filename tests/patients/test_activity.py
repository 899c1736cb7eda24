"""Deactivating a patient's record and bringing it back."""

import pytest
from starlette.testclient import TestClient

from tests.clinic import Clinic
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, acts, detail, rows

NUMBERED = [{"system": NHS_SYSTEM, "value": NHS_NUMBER}]


def test_admin_deactivates_and_activates(clinic: Clinic) -> None:
    """Gap: "no CSRF check, no reason, actor or time recorded"; activation "no audit"."""
    patient_id, admin = clinic.patient(), clinic.admin()
    answer = admin.post(f"/api/patients/{patient_id}/deactivate")
    assert (answer.status_code, answer.json()) == (
        200,
        {"patient_id": patient_id, "is_active": False, "message": "Patient deactivated successfully"},
    )
    select = "SELECT is_active, activity_changed_by_user_id, activity_changed_at FROM patient_index"
    [first] = rows(clinic, select)
    assert (bool(first[0]), first[1], first[2] is not None) == (False, admin.id, True)
    assert clinic.admin().post(f"/api/patients/{patient_id}/deactivate").status_code == 200
    assert rows(clinic, select) == [first], "deactivating twice must not hide who did it first"
    answer = admin.post(f"/api/patients/{patient_id}/activate")
    assert answer.json() == {"patient_id": patient_id, "is_active": True, "message": "Patient activated successfully"}
    assert admin.post(f"/api/patients/{patient_id}/activate").status_code == 200
    trail = acts(clinic, patient_id)
    assert trail.count(("patient:deactivate", "allowed")) == trail.count(("patient:activate", "allowed")) == 2


@pytest.mark.parametrize("verb", ["deactivate", "activate"])
def test_only_admins_do(clinic: Clinic, client: TestClient, verb: str) -> None:
    here = clinic.organisation()
    address = f"/api/patients/{clinic.patient(here)}/{verb}"
    gp, admin = clinic.clinician(here), clinic.admin()
    assert detail(gp.post(address)) == (403, f"Admin or superadmin permission required to {verb} patients")
    assert detail(clinic.clinician().post(address)) == (404, "Patient not found")
    assert detail(client.post(address))[0] == 401
    assert detail(admin.client.post(address)) == (403, "CSRF failed")
    assert detail(admin.post(f"/api/patients/nobody/{verb}")) == (404, "Patient not found")
    assert [bool(active) for (active,) in rows(clinic, "SELECT is_active FROM patient_index")] == [True]


def test_deactivated_record_takes_no_entries(clinic: Clinic) -> None:
    """Gap: deactivation affects list_patients only: letters, messages and single reads still work."""
    here = clinic.organisation()
    patient_id, gp = clinic.patient(here), clinic.clinician(here)
    clinic.admin().post(f"/api/patients/{patient_id}/deactivate")
    refusal = (409, "This patient record is deactivated")
    assert detail(gp.patch(f"/api/patients/{patient_id}", {"given_name": "Eve"})) == refusal
    assert detail(gp.put(f"/api/patients/{patient_id}/demographics", {"given_name": "Eve"})) == refusal
    body = {"patient_id": patient_id, "medication": "morphine", "dose": "5 mg", "duration_days": 1}
    assert detail(gp.post("/api/prescriptions/controlled", body)) == refusal
    assert gp.get(f"/api/patients/{patient_id}").json()["meta"]["versionId"] == "1"


def test_record_stays_inactive_while_another_holds_its_nhs_number(clinic: Clinic) -> None:
    admin = clinic.admin()
    first = clinic.patient(identifier=NUMBERED)
    admin.post(f"/api/patients/{first}/deactivate")
    second = clinic.patient(identifier=NUMBERED)
    assert detail(admin.post(f"/api/patients/{first}/activate")) == (
        409,
        "A patient with this NHS number already exists",
    )
    admin.post(f"/api/patients/{second}/deactivate")
    assert admin.post(f"/api/patients/{first}/activate").status_code == 200
