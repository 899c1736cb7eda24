"""Adding patients through ``POST /api/patients``."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from quill.actor import Level
from tests.clinic import Clinic, Person
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, acts, detail, rows

ANN = {"given_name": "Ann", "family_name": "Lee"}
MRN_SYSTEM = "http://hospital.example.org/identifiers/mrn"


@pytest.fixture
def gp(clinic: Clinic) -> Person:
    return clinic.clinician(clinic.organisation())


def test_staff_add_a_patient_who_joins_their_organisation(clinic: Clinic, gp: Person) -> None:
    """Gap: "attaches the patient to no organisation"; "the reply is what was sent" (no meta)."""
    answer = gp.post(
        "/api/patients",
        ANN | {"birth_date": "1980-02-29", "gender": "Female", "nhs_number": "999 052 7113", "mrn": "A-1"},
    )
    assert answer.status_code == 200
    patient = answer.json()
    assert patient["name"] == [{"use": "official", "family": "Lee", "given": ["Ann"]}]
    assert (patient["birthDate"], patient["gender"]) == ("1980-02-29", "female")
    assert patient["identifier"] == [
        {"system": NHS_SYSTEM, "value": NHS_NUMBER},
        {"system": MRN_SYSTEM, "value": "A-1"},
    ]
    [avatar] = patient["extension"]
    assert avatar["url"] == "urn:quillmedical:avatar-gradient"
    assert avatar["valueInteger"] in range(30)
    assert patient["meta"]["versionId"] == "1"
    assert answer.headers["etag"] == 'W/"1"'
    assert [found["id"] for found in gp.get("/api/patients").json()["patients"]] == [patient["id"]]
    assert gp.get(f"/api/patients/{patient['id']}").json() == patient
    assert ("patient:create", "allowed") in acts(clinic, patient["id"])


def test_blank_optional_fields_count_as_absent(gp: Person) -> None:
    blank = {"birth_date": "", "gender": " ", "nhs_number": "", "mrn": "", "patient_id": ""}
    patient = gp.post("/api/patients", ANN | blank).json()
    assert {"birthDate", "gender", "identifier"}.isdisjoint(patient)


def test_id_wanted_is_the_id_given(gp: Person) -> None:
    assert gp.post("/api/patients", ANN | {"patient_id": "ward-7.a"}).json()["id"] == "ward-7.a"


def test_known_id_is_refused_and_the_record_stays(gp: Person) -> None:
    """Gap: supplying an existing patient_id silently overwrites that record's demographics."""
    gp.post("/api/patients", ANN | {"patient_id": "p1"})
    answer = gp.post("/api/patients", {"given_name": "Eve", "family_name": "Other", "patient_id": "p1"})
    assert detail(answer) == (409, "A patient with this id already exists")
    assert gp.get("/api/patients/p1").json()["name"][0]["given"] == ["Ann"]


def test_nhs_number_of_a_live_record_is_refused(clinic: Clinic, gp: Person) -> None:
    """Gap: NHS number is stored with its spaces and duplicates are not detected."""
    first = gp.post("/api/patients", ANN | {"nhs_number": NHS_NUMBER}).json()["id"]
    answer = gp.post("/api/patients", ANN | {"nhs_number": "999 052 7113"})
    assert detail(answer) == (409, "A patient with this NHS number already exists")
    assert clinic.admin().post(f"/api/patients/{first}/deactivate").status_code == 200
    assert gp.post("/api/patients", ANN | {"nhs_number": NHS_NUMBER}).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("given_name", "  "),
        ("given_name", None),
        ("given_name", 7),
        ("given_name", "x" * 256),
        ("family_name", "a\x00b"),
        ("family_name", "\ud800"),
        ("birth_date", "1980-02-30"),
        ("birth_date", "29/02/1980"),
        ("birth_date", "2999-01-01"),
        ("birth_date", "2999"),
        ("gender", "X"),
        ("nhs_number", "9990527114"),
        ("nhs_number", "12345"),
        ("nhs_number", 9990527113),
        ("mrn", "x" * 256),
        ("patient_id", "12345"),
        ("patient_id", ".."),
        ("patient_id", "a/b"),
        ("patient_id", "x" * 65),
        ("colour", "blue"),
    ],
)
def test_bad_input_is_422_and_adds_nobody(clinic: Clinic, gp: Person, field: str, value: Any) -> None:
    """Gap: input errors are 500."""
    headers = {"Content-Type": "application/json"}
    body = _ascii_json(ANN | {field: value})
    answer = gp.client.post("/api/patients", content=body, headers=gp.csrf | headers)
    assert detail(answer)[0] == 422
    assert isinstance(value, int | None) or str(value) not in answer.text
    assert rows(clinic, "SELECT count(*) FROM patient_index") == [(0,)]
    assert gp.post("/api/patients?colour=blue", ANN).status_code == 422


def _ascii_json(body: dict[str, Any]) -> str:
    return json.dumps(body)


@pytest.mark.parametrize("missing", ["given_name", "family_name"])
def test_both_names_are_needed(gp: Person, missing: str) -> None:
    assert gp.post("/api/patients", {k: v for k, v in ANN.items() if k != missing}).status_code == 422


def test_only_staff_with_the_competency_or_admins_add_patients(clinic: Clinic, client: TestClient, gp: Person) -> None:
    """Gap: no permission or CSRF check; so can patients and external users."""
    receptionist = clinic.person(profession="receptionist")
    patient = clinic.person(level=Level.PATIENT, profession="patient")
    external = clinic.person(level=Level.EXTERNAL_HCP, profession="general_practitioner")
    assert detail(receptionist.post("/api/patients", ANN)) == (
        403,
        "Forbidden: User lacks required competency 'modify_patient_records'",
    )
    assert detail(patient.post("/api/patients", ANN)) == (403, "Requires staff permissions")
    assert detail(external.post("/api/patients", ANN)) == (403, "Requires staff permissions")
    assert detail(client.post("/api/patients", json=ANN)) == (401, "Not authenticated")
    assert detail(gp.client.post("/api/patients", json=ANN)) == (403, "CSRF failed")
    assert rows(clinic, "SELECT count(*) FROM patient_index") == [(0,)]
    admin = clinic.admin()
    assert admin.post("/api/patients", ANN).status_code == 200
    assert admin.get("/api/patients").json()["patients"] == []
    assert len(admin.get("/api/patients?scope=admin").json()["patients"]) == 1


def test_repeated_key_answers_the_first_patient(gp: Person) -> None:
    key = {"Idempotency-Key": "form-1"}
    first = gp.post("/api/patients", ANN, headers=key)
    again = gp.post("/api/patients", ANN, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert detail(gp.post("/api/patients", ANN | {"mrn": "2"}, headers=key))[0] == 409
    assert gp.get("/api/patients").json()["total"] == 1


def test_two_at_one_moment_with_one_id_make_one_patient(gp: Person) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda name: gp.post("/api/patients", ANN | {"given_name": name, "patient_id": "p1"}), "AB")
        )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


def test_two_at_one_moment_with_one_nhs_number_make_one_patient(gp: Person) -> None:
    with ThreadPoolExecutor(2) as pool:
        body = ANN | {"nhs_number": NHS_NUMBER}
        answers = list(pool.map(lambda _: gp.post("/api/patients", body), range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


def test_two_at_one_moment_with_one_key_answer_one_patient(gp: Person) -> None:
    with ThreadPoolExecutor(2) as pool:
        key = {"Idempotency-Key": "k"}
        answers = list(pool.map(lambda _: gp.post("/api/patients", ANN, headers=key), range(2)))
    assert {answer.json()["id"] for answer in answers if answer.status_code == 200} == {answers[0].json()["id"]}
    assert gp.get("/api/patients").json()["total"] == 1
