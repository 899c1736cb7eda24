"""Changing demographics through ``PATCH /api/patients/{id}`` and ``PUT …/demographics``."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from quill.actor import Level
from tests.clinic import Clinic, Person
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, OTHER_NHS_NUMBER, acts, detail

MRN_SYSTEM = "http://hospital.example.org/identifiers/mrn"
RICH: dict[str, Any] = {
    "name": [
        {"use": "official", "text": "Pat Lee Jones", "family": "Jones", "given": ["Pat", "Lee"], "prefix": ["Dr"]},
        {"use": "maiden", "family": "Brown"},
    ],
    "identifier": [
        {"use": "official", "system": NHS_SYSTEM, "value": NHS_NUMBER},
        {"system": MRN_SYSTEM, "value": "M-1"},
        {"system": "urn:other", "value": "X"},
    ],
    "telecom": [
        {"system": "phone", "value": "1", "use": "home", "rank": 1},
        {"system": "phone", "value": "2", "use": "mobile"},
        {"system": "email", "value": "a@example.org"},
    ],
    "address": [{"use": "home", "line": ["4 Mill Lane"], "city": "Sampleton"}, {"use": "temp", "city": "Elsewhere"}],
    "x_unknown": {"kept": [1]},
}


@pytest.fixture
def here(clinic: Clinic) -> int:
    return clinic.organisation()


@pytest.fixture
def gp(clinic: Clinic, here: int) -> Person:
    return clinic.clinician(here)


@pytest.fixture
def address(clinic: Clinic, here: int) -> str:
    return f"/api/patients/{clinic.patient(here, patient_id='p1', **RICH)}"


def without_meta(patient: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in patient.items() if name != "meta"}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before | after if name != "meta" and before.get(name) != after.get(name)}


def test_patch_saves_what_it_is_given(gp: Person, address: str) -> None:
    """Gap: "the admin edit form reports success and saves nothing"; "would use a different MRN system"."""
    answer = gp.patch(
        address,
        {
            "given_name": "Sam",
            "family_name": "Smith",
            "birth_date": "1990-01-02",
            "gender": "MALE",
            "nhs_number": "999 105 4227",
            "mrn": "M-2",
        },
    )
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"')
    patient = answer.json()
    assert patient["name"] == [
        {"use": "official", "family": "Smith", "given": ["Sam"], "prefix": ["Dr"]},
        {"use": "maiden", "family": "Brown"},
    ]
    assert (patient["birthDate"], patient["gender"]) == ("1990-01-02", "male")
    assert patient["identifier"] == [
        {"use": "official", "system": NHS_SYSTEM, "value": OTHER_NHS_NUMBER},
        {"system": MRN_SYSTEM, "value": "M-2"},
        {"system": "urn:other", "value": "X"},
    ]
    assert patient["x_unknown"] == {"kept": [1]}
    assert gp.get(address).json() == patient
    assert [found["id"] for found in gp.get("/api/patients?name=smith").json()["patients"]] == ["p1"]
    assert gp.get("/api/patients?name=pat").json()["patients"] == []


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        ({}, set()),
        ({"birth_date": "", "gender": " ", "nhs_number": "", "mrn": "", "given_name": "", "family_name": ""}, set()),
        ({"given_name": "Pat"}, set()),
        ({"given_name": "Pat Lee", "family_name": "Jones"}, set()),
        ({"gender": "female", "patient_id": "p1"}, set()),
        ({"nhs_number": NHS_NUMBER}, set()),
        ({"family_name": "Smith"}, {"name"}),
        ({"mrn": "M-2"}, {"identifier"}),
        ({"birth_date": "1981"}, {"birthDate"}),
    ],
)
def test_patch_keeps_what_it_was_not_told_about(
    gp: Person, address: str, body: dict[str, Any], elements: set[str]
) -> None:
    """Gap: it would replace all identifiers, dropping any not supplied."""
    before = gp.get(address).json()
    answer = gp.patch(address, body)
    assert answer.status_code == 200
    assert changed(before, answer.json()) == elements
    assert answer.headers["etag"] == ('W/"2"' if elements else 'W/"1"'), "nothing changed makes no new version"


@pytest.mark.parametrize(
    "body",
    [
        {"gender": "X"},
        {"birth_date": "2999-01-01"},
        {"birth_date": "1980-13-01"},
        {"nhs_number": "9990527114"},
        {"given_name": 7},
        {"given_name": "a\x00"},
        {"family_name": "x" * 256},
        {"patient_id": "another"},
        {"active": False},
        [],
        None,
    ],
)
def test_bad_patch_is_422_and_changes_nothing(gp: Person, address: str, body: Any) -> None:
    """Gap: no gender, date or NHS validation."""
    before = gp.get(address).json()
    assert detail(gp.patch(address, body))[0] == 422
    assert gp.get(address).json() == before


@pytest.mark.parametrize(
    ("body", "element", "expected"),
    [
        (
            {"given_name": "Sam"},
            "name",
            [{"use": "official", "family": "Jones", "given": ["Sam"], "prefix": ["Dr"]}, RICH["name"][1]],
        ),
        (
            {"name": [{"use": "official", "family": "Smith"}]},
            "name",
            [{"use": "official", "family": "Smith", "given": ["Pat", "Lee"], "prefix": ["Dr"]}, RICH["name"][1]],
        ),
        ({"name": [{"use": "nickname", "given": ["Bo"]}]}, "name",
         [*RICH["name"], {"use": "nickname", "given": ["Bo"]}]),
        ({"date_of_birth": "1990"}, "birthDate", "1990"),
        ({"birthDate": "1990-02"}, "birthDate", "1990-02"),
        ({"sex": "Other"}, "gender", "other"),
        ({"gender": "unknown"}, "gender", "unknown"),
        ({"address": {"line": ["1 High St"], "city": "York", "state": "", "postalCode": "YO1", "country": "GB"}},
         "address",
         [{"use": "home", "line": ["1 High St"], "city": "York", "postalCode": "YO1", "country": "GB"},
          RICH["address"][1]]),
        ({"address": [{"city": "York"}]}, "address", [{"city": "York"}]),
        ({"address": []}, "address", None),
        ({"contact": {"phone": "9"}}, "telecom",
         [{"system": "phone", "value": "9", "use": "home", "rank": 1}, *RICH["telecom"][1:]]),
        ({"contact": {"email": "b@example.org"}}, "telecom",
         [*RICH["telecom"][:2], {"system": "email", "value": "b@example.org"}]),
        ({"telecom": [{"system": "fax", "value": "3"}]}, "telecom", [{"system": "fax", "value": "3"}]),
        ({"contact": [{"name": {"family": "Kin"}}]}, "contact", [{"name": {"family": "Kin"}}]),
        ({"identifier": [{"system": MRN_SYSTEM, "value": "M-9"}]}, "identifier",
         [RICH["identifier"][0], {"system": MRN_SYSTEM, "value": "M-9"}, RICH["identifier"][2]]),
        ({"identifier": [{"system": NHS_SYSTEM, "value": "999 105 4227"}]}, "identifier",
         [{"use": "official", "system": NHS_SYSTEM, "value": OTHER_NHS_NUMBER}, *RICH["identifier"][1:]]),
        ({"communication": [{"language": {"text": "Welsh"}}]}, "communication", [{"language": {"text": "Welsh"}}]),
        ({"maritalStatus": {"text": "Married"}}, "maritalStatus", {"text": "Married"}),
        ({"deceasedBoolean": True}, "deceasedBoolean", True),
        ({"deceasedDateTime": "2026-01-02"}, "deceasedDateTime", "2026-01-02"),
        ({"generalPractitioner": [{"display": "Dr Lee"}]}, "generalPractitioner", [{"display": "Dr Lee"}]),
    ],
)  # fmt: skip
def test_put_takes_flat_and_fhir_fields_and_keeps_the_rest(
    gp: Person, address: str, body: dict[str, Any], element: str, expected: Any
) -> None:
    """Gap: sending only one name half blanks the other. And FHIR-shaped fields are ignored."""
    before = gp.get(address).json()
    answer = gp.put(f"{address}/demographics", body)
    assert answer.status_code == 200, answer.text
    patient = answer.json()["data"]
    assert (answer.json()["patient_id"], answer.json()["updated"]) == ("p1", True)
    assert changed(before, patient) == {element}
    assert patient.get(element) == expected
    assert answer.headers["etag"] == 'W/"2"'
    assert gp.get(f"{address}/demographics").json()["data"] == patient


def test_put_of_nothing_changes_nothing(gp: Person, address: str) -> None:
    before = gp.get(address).json()
    blank: dict[str, Any] = {"given_name": "", "contact": {}, "address": {}, "gender": None, "birthDate": ""}
    for body in ({}, blank):
        assert gp.put(f"{address}/demographics", body).json()["data"] == before


def test_put_keeps_every_digit_and_every_element(gp: Person, address: str) -> None:
    body = '{"address":[{"city":"York","extension":[{"url":"urn:x","valueDecimal":1.500}],"x_new":{"a":1.0}}]}'
    headers = gp.csrf | {"Content-Type": "application/json"}
    answer = gp.client.put(f"{address}/demographics", content=body, headers=headers)
    assert answer.status_code == 200
    assert '"valueDecimal":1.500' in answer.text
    assert '"x_new":{"a":1.0}' in gp.get(address).text


def test_put_told_dead_by_date_is_no_longer_told_by_flag(gp: Person, address: str) -> None:
    gp.put(f"{address}/demographics", {"deceasedBoolean": True})
    patient = gp.put(f"{address}/demographics", {"deceasedDateTime": "2026-01-02"}).json()["data"]
    assert "deceasedBoolean" not in patient


def test_names_of_one_use_that_were_read_can_be_sent_back(gp: Person, clinic: Clinic, here: int) -> None:
    names = [{"family": "Now"}, {"use": "old", "family": "Then"}, {"use": "old", "family": "Before"}]
    patient_id = clinic.patient(here, name=names)
    told = [{"family": "Now"}, {"use": "old", "family": "Before"}, {"use": "old", "family": "Once"}]
    answer = gp.put(f"/api/patients/{patient_id}/demographics", {"name": told})
    assert answer.json()["data"]["name"] == told


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Patient"},
        {"id": "p2"},
        {"active": False},
        {"photo": []},
        {"link": [{"other": {"reference": "Patient/2"}, "type": "refer"}]},
        {"_birthDate": {}},
        {"sex": "X"},
        {"gender": "X"},
        {"birthDate": "2999"},
        {"date_of_birth": "1980-02-30"},
        {"name": "Jones"},
        {"name": [{"use": "X", "family": "J"}]},
        {"name": [{"family": ""}]},
        {"name": []},
        {"identifier": []},
        {"identifier": [{"system": NHS_SYSTEM, "value": "9990527114"}]},
        {"identifier": [{"system": NHS_SYSTEM, "value": 9990527113}]},
        {"identifier": [{"system": ["a"], "use": {}}]},
        {"telecom": [{"system": "smoke"}]},
        {"telecom": ["1"]},
        {"address": [{"line": "4 Mill Lane"}]},
        {"address": {"planet": "Earth"}},
        {"contact": {"phone": 7}},
        {"contact": [{"name": [{"family": "Kin"}]}]},
        {"maritalStatus": {"coding": "M"}},
        {"maritalStatus": {}},
        {"deceasedBoolean": "yes"},
        {"deceasedBoolean": True, "deceasedDateTime": "2026-01-02"},
        {"deceasedDateTime": "yesterday"},
        {"name": [{"family": "A"}], "given_name": "B"},
        {"birthDate": "1980", "date_of_birth": "1981"},
        {"sex": "male", "gender": "male"},
        {"telecom": [{"value": "1"}], "contact": {"phone": "2"}},
        {"address": [{"city": "a\x00b"}]},
        {"telecom": [{"value": "1"}] * 101},
        [],
    ],
)
def test_bad_put_is_422_and_changes_nothing(gp: Person, address: str, body: Any) -> None:
    before = gp.get(address).json()
    assert detail(gp.put(f"{address}/demographics", body))[0] == 422
    assert gp.get(address).json() == before


def test_nhs_number_of_another_live_record_is_409(clinic: Clinic, gp: Person, here: int, address: str) -> None:
    clinic.patient(here, identifier=[{"system": NHS_SYSTEM, "value": OTHER_NHS_NUMBER}])
    refusal = (409, "A patient with this NHS number already exists")
    assert detail(gp.patch(address, {"nhs_number": OTHER_NHS_NUMBER})) == refusal
    body = {"identifier": [{"system": NHS_SYSTEM, "value": OTHER_NHS_NUMBER}]}
    assert detail(gp.put(f"{address}/demographics", body)) == refusal


@pytest.mark.parametrize("url", ["{}", "{}/demographics"])
def test_stale_edit_is_412(gp: Person, address: str, url: str) -> None:
    """Gap: no optimistic locking; no If-Match."""
    edit = gp.patch if url == "{}" else gp.put
    target = url.format(address)
    assert edit(target, {"given_name": "A"}, headers={"If-Match": 'W/"1"'}).status_code == 200
    assert detail(edit(target, {"given_name": "B"}, headers={"If-Match": 'W/"1"'}))[0] == 412
    assert detail(edit(target, {"given_name": "B"}, headers={"If-Match": "nonsense"}))[0] == 422
    assert edit(target, {"given_name": "C"}, headers={"If-Match": "*"}).status_code == 200


def test_of_two_edits_of_one_version_one_is_refused(gp: Person, address: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        headers = {"If-Match": 'W/"1"'}
        answers = list(pool.map(lambda name: gp.patch(address, {"given_name": name}, headers=headers), "AB"))
    assert sorted(answer.status_code for answer in answers) == [200, 412]


def test_no_edit_is_lost_without_if_match(gp: Person, address: str) -> None:
    edits = [{"given_name": "Sam"}, {"family_name": "Smith"}, {"mrn": "M-7"}, {"gender": "other"}]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: gp.patch(address, body), edits))
    assert {answer.status_code for answer in answers} <= {200, 409, 412}
    after = gp.get(address).json()
    values = [after["name"][0]["given"] == ["Sam"], after["name"][0]["family"] == "Smith"]
    values += [after["identifier"][1]["value"] == "M-7", after["gender"] == "other"]
    assert values == [answer.status_code == 200 for answer in answers]


@pytest.mark.parametrize("url", ["{}", "{}/demographics"])
def test_who_may_edit(clinic: Clinic, client: TestClient, gp: Person, here: int, address: str, url: str) -> None:
    """Gap: "no permission, access or CSRF check"; "any Clinician may edit any patient; no organisation check"."""
    target, body = url.format(address), {"given_name": "Eve"}

    def edit(person: Person) -> Any:
        return person.patch(target, body) if url == "{}" else person.put(target, body)

    method = "PATCH" if url == "{}" else "PUT"
    assert detail(edit(clinic.clinician(clinic.organisation("Hilltop")))) == (404, "Patient not found")
    secretary = clinic.person(profession="medical_secretary", roles=["Clinician"], organisations=[here])
    assert detail(edit(secretary))[0] == 403
    own = clinic.person(level=Level.PATIENT, profession="patient", patient_id="p1")
    assert detail(edit(own)) == (403, "Requires staff permissions")
    assert detail(client.request(method, target, json=body))[0] == 401
    assert detail(gp.client.request(method, target, json=body)) == (403, "CSRF failed")
    nurse = clinic.person(profession="registered_nurse", organisations=[here])
    assert edit(nurse).status_code == (200 if url == "{}" else 403)
    assert edit(clinic.admin()).status_code == (200 if url == "{}" else 403)
    assert edit(gp).status_code == 200
    assert ("patient:change", "allowed") in acts(clinic, "p1")
    missing = target.replace("p1", "nobody")
    admin = clinic.admin(roles=["Clinician"], additional_competencies=["modify_patient_records"])
    assert detail(admin.client.request(method, missing, json=body, headers=admin.csrf)) == (404, "Patient not found")
