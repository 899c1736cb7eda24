"""Reading one patient, as resource, demographics and metadata, and asking whether the store holds it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from quill.actor import Level
from tests.clinic import Clinic
from tests.patients.helpers import acts, detail

READS = ["/api/patients/{}", "/api/patients/{}/demographics", "/api/patients/{}/metadata"]


def test_staff_of_the_patients_organisation_read_the_record(clinic: Clinic) -> None:
    here = clinic.organisation()
    patient_id, gp = clinic.patient(here, x_unknown=1), clinic.clinician(here)
    resource = gp.get(f"/api/patients/{patient_id}")
    assert (resource.status_code, resource.headers["etag"]) == (200, 'W/"1"')
    assert (resource.json()["id"], resource.json()["x_unknown"]) == (patient_id, 1)
    assert "is_active" not in resource.json()
    demographics = gp.get(f"/api/patients/{patient_id}/demographics")
    assert demographics.json() == {"patient_id": patient_id, "data": resource.json()}
    assert demographics.headers["etag"] == 'W/"1"'
    metadata = gp.get(f"/api/patients/{patient_id}/metadata")
    assert metadata.json() == {"patient_id": patient_id, "is_active": True}
    assert acts(clinic, patient_id).count(("patient:read", "allowed")) == 3


@pytest.mark.parametrize("url", READS)
def test_outsider_gets_404_insider_without_the_right_403(clinic: Clinic, client: TestClient, url: str) -> None:
    """Gap: "any logged-in user reads any patient's demographics"; metadata has "no access check"."""
    here = clinic.organisation()
    patient_id = clinic.patient(here)
    address = url.format(patient_id)
    outsider = clinic.clinician(clinic.organisation("Hilltop"))
    receptionist = clinic.person(profession="receptionist", organisations=[here])
    other_patient = clinic.person(level=Level.PATIENT, profession="patient", patient_id=clinic.patient(here))
    own = clinic.person(level=Level.PATIENT, profession="patient", patient_id=patient_id)
    assert detail(client.get(address)) == (401, "Not authenticated")
    assert detail(outsider.get(address)) == (404, "Patient not found")
    assert detail(other_patient.get(address)) == (404, "Patient not found")
    assert detail(receptionist.get(address))[0] == 403
    assert own.get(address).status_code == 200
    assert clinic.admin().get(address).status_code == 200
    assert acts(clinic, patient_id).count(("access:check", "refused")) == 3


@pytest.mark.parametrize("url", READS)
@pytest.mark.parametrize("unknown", ["nobody", "a_b", "x" * 65, "%2e%2e", "%00"])
def test_unknown_patient_is_404_for_an_admin_too(clinic: Clinic, url: str, unknown: str) -> None:
    """Gap (metadata): unknown ids answer is_active true."""
    status, sentence = detail(clinic.admin().get(url.format(unknown)))
    assert (status, sentence) in {(404, "Patient not found"), (404, "Not Found")} or (unknown, status) == ("%00", 422)


def test_deactivated_patient_can_be_read(clinic: Clinic) -> None:
    here = clinic.organisation()
    patient_id, gp = clinic.patient(here), clinic.clinician(here)
    clinic.admin().post(f"/api/patients/{patient_id}/deactivate")
    assert gp.get(f"/api/patients/{patient_id}").status_code == 200
    assert gp.get(f"/api/patients/{patient_id}/metadata").json()["is_active"] is False


def test_clinician_verifies_that_the_store_holds_a_patient(clinic: Clinic) -> None:
    here = clinic.organisation()
    patient_id, gp = clinic.patient(here), clinic.clinician(here)
    answer = gp.post(f"/api/patients/verify?patient_id={patient_id}")
    assert (answer.status_code, answer.json()) == (200, {"patient_id": patient_id, "status": "ready"})
    assert ("patient:verify", "allowed") in acts(clinic, patient_id)


def test_verifying_is_for_clinicians_and_their_patients(clinic: Clinic, client: TestClient) -> None:
    here = clinic.organisation()
    address = f"/api/patients/verify?patient_id={clinic.patient(here)}"
    gp, outsider = clinic.clinician(here), clinic.clinician()
    assert detail(clinic.person(organisations=[here]).post(address))[0] == 403
    assert detail(outsider.post(address)) == (404, "Patient not found in FHIR server")
    assert detail(gp.client.post(address)) == (403, "CSRF failed")
    assert detail(client.post(address))[0] == 401
    assert detail(clinic.clinician(here, removed_competencies=["access_patient_records"]).post(address))[0] == 403
    clinical_admin = clinic.admin(roles=["Clinician"])
    for unknown in ("nobody", "a b", "..%2f"):
        answer = clinical_admin.post(f"/api/patients/verify?patient_id={unknown}")
        assert detail(answer) == (404, "Patient not found in FHIR server")
    assert detail(gp.post("/api/patients/verify"))[0] == 422
    assert detail(gp.post("/api/patients/verify?patient_id="))[0] == 422


def test_clinical_services_switched_off_is_503(clinic: Clinic) -> None:
    here = clinic.organisation()
    patient_id, gp = clinic.patient(here), clinic.clinician(here)
    state = clinic.client.app.state  # type: ignore[attr-defined]
    state.services = _switched_off(state.services)
    calls: list[Callable[[], Any]] = [
        lambda: gp.get("/api/patients"),
        lambda: gp.get(f"/api/patients/{patient_id}"),
        lambda: gp.get(f"/api/patients/{patient_id}/metadata"),
        lambda: gp.get(f"/api/patients/{patient_id}/prescriptions"),
        lambda: gp.post("/api/patients", {"given_name": "A", "family_name": "B"}),
        lambda: gp.patch(f"/api/patients/{patient_id}", {}),
        lambda: gp.put(f"/api/patients/{patient_id}/demographics", {}),
        lambda: gp.post(f"/api/patients/verify?patient_id={patient_id}"),
        lambda: gp.post(f"/api/patients/{patient_id}/deactivate"),
        lambda: gp.post(f"/api/patients/{patient_id}/activate"),
        lambda: gp.post("/api/prescriptions/controlled", {}),
    ]
    for call in calls:
        assert detail(call()) == (503, "Clinical services are not available in this deployment")


def _switched_off(services: Any) -> Any:
    settings = services.settings.model_copy(update={"clinical_services_enabled": False})
    return dataclasses.replace(services, settings=settings)
