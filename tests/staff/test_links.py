"""Which patient record is an account's own."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from quill.actor import Level
from quill.patients.models import PatientIndex
from quill.unit import Unit
from tests.clinic import Clinic, Person


def link(admin: Person, person: Person, patient: Any) -> Any:
    return admin.patch(f"/api/users/{person.id}/link-patient", json={"fhir_patient_id": patient})


def test_link_opens_the_own_record_and_unlinking_closes_it(clinic: Clinic) -> None:
    """gap: no way to unlink, and no endpoint reads the link back."""
    admin, person = clinic.admin(), clinic.person(level=Level.PATIENT, profession="patient")
    patient, other = clinic.patient(), clinic.patient()
    picker = f"/api/users?patient_id={patient}"
    assert person.get(picker).status_code == 404
    answer = link(admin, person, patient)
    assert (answer.status_code, answer.json()) == (200, {"user_id": person.id, "fhir_patient_id": patient})
    assert person.get(picker).status_code == 200
    assert person.get("/api/auth/me").json()["fhir_patient_id"] == patient
    assert admin.get(f"/api/users/{person.id}").json()["fhir_patient_id"] == patient
    assert link(admin, person, patient).status_code == 200, "linking the same pair again succeeds"
    assert link(admin, person, other).status_code == 200, "a new link takes the place of the old"
    assert person.get(picker).status_code == 404
    for _ in range(2):
        gone = admin.delete(f"/api/users/{person.id}/link-patient")
        assert (gone.status_code, gone.json()) == (200, {"user_id": person.id, "fhir_patient_id": None})
    assert person.get(f"/api/users?patient_id={other}").status_code == 404
    assert [row.patient_id for row in clinic.audited("user:unlink-patient")] == [other]


def test_record_belongs_to_one_account(clinic: Clinic) -> None:
    admin = clinic.admin()
    patient = clinic.patient()
    first, second = (clinic.person(level=Level.PATIENT, is_signed_in=False) for _ in range(2))
    assert link(admin, first, patient).status_code == 200
    answer = link(admin, second, patient)
    assert (answer.status_code, answer.json()["detail"]) == (409, "FHIR patient already linked to another user")
    admin.delete(f"/api/users/{first.id}/link-patient")
    assert link(admin, second, patient).status_code == 200


def test_parallel_links_of_one_record_leave_one(clinic: Clinic) -> None:
    admins = [clinic.admin(), clinic.admin()]
    patient = clinic.patient()
    persons = [clinic.person(is_signed_in=False) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(lambda a, p: link(a, p, patient).status_code, admins, persons))
    assert sorted(statuses) == [200, 409]


def test_bad_link_is_refused_and_changes_nothing(clinic: Clinic) -> None:
    """gap: the patient is not looked up in FHIR."""
    admin, person = clinic.admin(), clinic.person(is_signed_in=False)
    kept, closed = clinic.patient(), clinic.patient()
    link(admin, person, kept)

    async def deactivate(unit: Unit) -> None:
        await unit.session.execute(
            sa.update(PatientIndex).where(PatientIndex.patient_id == closed).values(is_active=False)
        )

    clinic.in_unit(deactivate)
    url = f"/api/users/{person.id}/link-patient"
    for absent in ({}, {"fhir_patient_id": ""}, {"fhir_patient_id": "  "}, {"fhir_patient_id": None}):
        answer = admin.patch(url, json=absent)
        assert (answer.status_code, answer.json()["detail"]) == (422, "fhir_patient_id is required")
    bad: list[tuple[Any, int, str]] = [
        ("nobody-knows", 404, "patient_not_found"),
        ("not a fhir id", 404, "patient_not_found"),
        (closed, 409, "patient_deactivated"),
        (7, 422, "validation_failed"),
        ("x" * 256, 422, "validation_failed"),
        ("a\x00b", 422, "validation_failed"),
    ]
    for patient, status, code in bad:
        answer = link(admin, person, patient)
        assert (patient, answer.status_code, answer.json()["error_code"]) == (patient, status, code)
    assert admin.patch(url, json={"fhir_patient_id": kept, "force": "yes"}).status_code == 422
    assert admin.get(f"/api/users/{person.id}").json()["fhir_patient_id"] == kept


def test_level_is_considered(clinic: Clinic) -> None:
    """gap: the user's permission level is not considered."""
    admin = clinic.admin()
    for level, status in (
        (Level.PATIENT, 200),
        (Level.STAFF, 200),
        (Level.EXTERNAL_HCP, 409),
        (Level.PATIENT_ADVOCATE, 409),
        (Level.ADMIN, 403),
        (Level.SUPERADMIN, 403),
    ):
        person = clinic.person(level=level, is_signed_in=False)
        assert (level, link(admin, person, clinic.patient()).status_code) == (level, status)
