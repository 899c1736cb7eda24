"""Letters as people write, amend and read them through the API."""

import datetime
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Level
from quill.ports.openehr_composition import check_composition
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.letters.desk import LETTER, deactivate, grant, letters_of, trail, uids

UNKNOWN_ID = "0190f9a8-7a3b-7c55-8d2e-0123456789ab"
UNKNOWN_UID = f"{UNKNOWN_ID}::quill.local::1"


@pytest.fixture
def surgery(clinic: Clinic) -> int:
    return clinic.organisation()


@pytest.fixture
def doctor(clinic: Clinic, surgery: int) -> Person:
    return clinic.clinician(surgery, username="dr.who", full_name="Doctor Who")


@pytest.fixture
def patient(clinic: Clinic, surgery: int) -> str:
    return clinic.patient(surgery)


def written(doctor: Person, patient: str, **changes: Any) -> Any:
    answer = doctor.post(letters_of(patient), LETTER | changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


def amended(doctor: Person, patient: str, uid: str, version: int, **changes: Any) -> Any:
    url = f"{letters_of(patient)}/{uid}"
    return doctor.put(url, LETTER | changes, headers={"If-Match": f'W/"{version}"'})


# Writing


def test_clinician_writes_a_letter_and_reads_it(doctor: Person, patient: str) -> None:
    """gap: the composition and EHR payloads look unacceptable to EHRbase 2.x; ours meets the Reference Model."""
    before = datetime.datetime.now(datetime.UTC)
    answer = doctor.post(letters_of(patient), LETTER)
    assert answer.status_code == 200
    letter = answer.json()
    assert (letter["patient_id"], letter["title"], letter["version"]) == (patient, LETTER["title"], 1)
    assert re.fullmatch(r"[0-9a-f-]{36}::[^:]+::1", letter["composition_uid"])
    assert letter["created_at"].endswith("Z")
    assert before <= datetime.datetime.fromisoformat(letter["created_at"]) <= datetime.datetime.now(datetime.UTC)
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["cache-control"] == "no-store"

    read = doctor.get(f"{letters_of(patient)}/{letter['composition_uid']}")
    assert read.status_code == 200
    assert read.headers["etag"] == 'W/"1"'
    shown = read.json()
    data = shown.pop("data")
    assert shown == {**letter, "body": LETTER["body"], "author_name": "Doctor Who"}
    check_composition(data)
    assert data["content"][0]["data"]["items"][0]["value"]["value"] == LETTER["body"]
    assert data["territory"]["code_string"] == "GB"
    assert data["uid"]["value"] == letter["composition_uid"]


@pytest.mark.parametrize(
    "body", ["  # Head\r\n\r\n* one\n\ttwo  \n\n", "é 🩺 e\u0301\u200d", "x" * 65_536, "é" * 32_768]
)
def test_body_is_kept_byte_for_byte(doctor: Person, patient: str, body: str) -> None:
    uid = written(doctor, patient, body=body)["composition_uid"]
    assert doctor.get(f"{letters_of(patient)}/{uid}").json()["body"] == body


def test_title_is_kept_without_the_space_around_it(doctor: Person, patient: str) -> None:
    assert written(doctor, patient, title="  A title ")["title"] == "A title"
    assert len(written(doctor, patient, title="t" * 255)["title"]) == 255


@pytest.mark.parametrize(
    "author",
    [
        {},
        {"author_name": "Doctor Who"},
        {"author_name": "dr.who", "author_email": "DR.WHO@Example.org"},
        {"author_name": None, "author_email": None},
        {"author_name": "", "author_email": " "},
    ],
)
def test_author_is_whoever_is_signed_in(doctor: Person, patient: str, author: dict[str, Any]) -> None:
    """gap: authorship is whatever the client says."""
    uid = written(doctor, patient, **author)["composition_uid"]
    letter = doctor.get(f"{letters_of(patient)}/{uid}").json()
    assert letter["author_name"] == "Doctor Who"
    assert letter["data"]["composer"]["external_ref"]["id"]["value"] == str(doctor.id)


@pytest.mark.parametrize("claim", [{"author_name": "Doctor Jones"}, {"author_email": "jones@example.org"}])
def test_author_cannot_be_somebody_else(doctor: Person, patient: str, claim: dict[str, str]) -> None:
    """gap: authorship is whatever the client says."""
    uid = written(doctor, patient)["composition_uid"]
    for answer in (doctor.post(letters_of(patient), LETTER | claim), amended(doctor, patient, uid, 1, **claim)):
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["loc"] == ["body", *claim]
        assert "jones" not in answer.text.lower()
    assert uids(doctor, patient) == [uid]


BAD_BODIES: list[Any] = [
    {"title": "T"},
    {"body": "B"},
    {"title": "", "body": "B"},
    {"title": " \t", "body": "B"},
    {"title": "\x1c", "body": "B"},
    {"title": "t" * 256, "body": "B"},
    {"title": 7, "body": "B"},
    {"title": "T", "body": ""},
    {"title": "T", "body": " \n\t"},
    {"title": "T", "body": "x" * 65_537},
    {"title": "T", "body": "é" * 32_769},
    {"title": "T", "body": ["B"]},
    {"title": "T", "body": None},
    {"title": "T\x00", "body": "B"},
    {"title": "T", "body": "B\x00"},
    {"title": "T", "body": "B", "author_name": 7},
    {"title": "T", "body": "B", "author_name": "n" * 256},
    {"title": "T", "body": "B", "signed": True},
    [],
    "text",
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_letter_that_is_not_one_is_refused(doctor: Person, patient: str, body: Any) -> None:
    """gap: blank title and body accepted."""
    uid = written(doctor, patient)["composition_uid"]
    url = letters_of(patient)
    for answer in (doctor.post(url, body), doctor.put(f"{url}/{uid}", body, headers={"If-Match": 'W/"1"'})):
        assert answer.status_code == 422
        assert answer.json()["errors"]
        assert "xxxx" not in answer.text
    assert uids(doctor, patient) == [uid]


def test_half_a_surrogate_pair_is_refused(doctor: Person, patient: str) -> None:
    body = b'{"title": "T", "body": "\\ud800"}'
    headers = doctor.csrf | {"Content-Type": "application/json"}
    assert doctor.client.post(letters_of(patient), content=body, headers=headers).status_code == 422
    assert uids(doctor, patient) == []


@pytest.mark.parametrize("header", [{"Idempotency-Key": "with space"}, {"Idempotency-Key": "k" * 256}])
def test_key_that_is_not_one_is_refused(doctor: Person, patient: str, header: dict[str, str]) -> None:
    assert doctor.post(letters_of(patient), LETTER, headers=header).status_code == 422
    assert uids(doctor, patient) == []


def test_patient_nobody_knows_gets_no_letter(clinic: Clinic) -> None:
    """gap: any patient id, the FHIR record need not exist."""
    admin = clinic.admin(roles=["Clinician"])
    url = letters_of("nobody")
    for answer in (admin.post(url, LETTER), admin.get(url), amended(admin, "nobody", UNKNOWN_UID, 1)):
        assert (answer.status_code, answer.json()["detail"]) == (404, "Patient not found")


def test_deactivated_patient_takes_no_letters_and_keeps_those_there_are(
    clinic: Clinic, doctor: Person, patient: str
) -> None:
    uid = written(doctor, patient)["composition_uid"]
    deactivate(clinic, patient)
    for answer in (doctor.post(letters_of(patient), LETTER), amended(doctor, patient, uid, 1)):
        assert (answer.status_code, answer.json()["error_code"]) == (409, "patient_deactivated")
    assert uids(doctor, patient) == [uid]
    assert doctor.get(f"{letters_of(patient)}/{uid}").status_code == 200


def test_repeated_call_is_answered_with_the_first_letter(doctor: Person, patient: str) -> None:
    key = {"Idempotency-Key": "letter-1"}
    first, second = (doctor.post(letters_of(patient), LETTER, headers=key) for _ in range(2))
    assert first.json() == second.json()
    assert first.headers["etag"] == second.headers["etag"]
    assert uids(doctor, patient) == [first.json()["composition_uid"]]
    other = doctor.post(letters_of(patient), LETTER | {"body": "Something else"}, headers=key)
    assert (other.status_code, other.json()["error_code"]) == (409, "idempotency_key_reused")
    amendment = doctor.put(
        f"{letters_of(patient)}/{first.json()['composition_uid']}", LETTER, headers=key | {"If-Match": 'W/"1"'}
    )
    assert amendment.status_code == 409


def test_double_click_writes_one_letter(doctor: Person, patient: str) -> None:
    def click(_: int) -> Any:
        return doctor.post(letters_of(patient), LETTER, headers={"Idempotency-Key": "letter-1"})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(click, range(4)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    found = {answer.json()["composition_uid"] for answer in answers if answer.status_code == 200}
    assert found == set(uids(doctor, patient))
    assert len(found) == 1


# Amending


def test_amendment_is_the_next_version(clinic: Clinic, surgery: int, doctor: Person, patient: str) -> None:
    colleague = clinic.clinician(surgery, full_name="Doctor Jones")
    first = written(doctor, patient)
    uid = first["composition_uid"]
    answer = amended(colleague, patient, uid, 1, title="Corrected", body="All is well again.")
    assert answer.status_code == 200
    second = answer.json()
    assert second["composition_uid"] == uid.removesuffix("1") + "2"
    assert (second["version"], second["title"], answer.headers["etag"]) == (2, "Corrected", 'W/"2"')
    assert second["created_at"] == first["created_at"]

    (row,) = doctor.get(letters_of(patient)).json()["letters"]
    assert row == {
        "composition_uid": second["composition_uid"],
        "title": "Corrected",
        "created_at": first["created_at"],
        "author_name": "Doctor Jones",
        "version": 2,
    }
    old = doctor.get(f"{letters_of(patient)}/{uid}").json()
    assert (old["version"], old["body"], old["author_name"]) == (1, LETTER["body"], "Doctor Who")
    newest = doctor.get(f"{letters_of(patient)}/{uid.split('::')[0]}")
    assert (newest.json()["version"], newest.json()["body"]) == (2, "All is well again.")
    assert newest.headers["etag"] == 'W/"2"'


def test_versions_are_listed_newest_first(clinic: Clinic, surgery: int, doctor: Person, patient: str) -> None:
    colleague = clinic.clinician(surgery, full_name="Doctor Jones")
    first = written(doctor, patient)
    second = amended(colleague, patient, first["composition_uid"], 1, title="Corrected").json()
    for uid in (first["composition_uid"], second["composition_uid"], first["composition_uid"].split("::")[0]):
        answer = doctor.get(f"{letters_of(patient)}/{uid}/versions")
        assert answer.status_code == 200
        assert answer.json()["patient_id"] == patient
        rows = answer.json()["versions"]
        assert [(row["version"], row["title"], row["author_name"]) for row in rows] == [
            (2, "Corrected", "Doctor Jones"),
            (1, LETTER["title"], "Doctor Who"),
        ]
        assert [row["composition_uid"] for row in rows] == [second["composition_uid"], first["composition_uid"]]
        assert {row["created_at"] for row in rows} == {first["created_at"]}
        assert rows[0]["committed_at"] > rows[1]["committed_at"]
        assert all(row["committed_at"].endswith("Z") for row in rows)


def test_amendment_must_say_what_it_replaces(doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]
    url = f"{letters_of(patient)}/{uid}"
    for headers in ({}, {"If-Match": "*"}):
        answer = doctor.put(url, LETTER, headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (428, "precondition_required")
    assert doctor.put(url, LETTER, headers={"If-Match": '"first"'}).status_code == 422
    for stale in (2, 9):
        answer = amended(doctor, patient, uid, stale)
        assert (answer.status_code, answer.json()["error_code"]) == (412, "stale_edit")
    assert uids(doctor, patient) == [uid]


def test_amendment_of_an_older_version_is_stale(doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]
    assert amended(doctor, patient, uid, 1, body="Second").status_code == 200
    assert amended(doctor, patient, uid, 1, body="Third").status_code == 412
    assert amended(doctor, patient, uid, 2, body="Third").json()["version"] == 3


def in_parallel(doctor: Person, patient: str, uid: str, *bodies: str) -> list[int]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = pool.map(lambda body: amended(doctor, patient, uid, 1, body=body), bodies)
        return sorted(answer.status_code for answer in answers)


def test_one_of_two_parallel_amendments_wins(doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]
    assert in_parallel(doctor, patient, uid, "One", "Other") == [200, 412]
    versions = doctor.get(f"{letters_of(patient)}/{uid}/versions").json()["versions"]
    assert [row["version"] for row in versions] == [2, 1]


def test_amendment_clicked_twice_makes_one_version(doctor: Person, patient: str) -> None:
    """The same words of the same author over the same version are one amendment; the second may be stale."""
    uid = written(doctor, patient)["composition_uid"]
    assert in_parallel(doctor, patient, uid, "Same", "Same") in ([200, 200], [200, 412])
    versions = doctor.get(f"{letters_of(patient)}/{uid}/versions").json()["versions"]
    assert [row["version"] for row in versions] == [2, 1]


def test_repeated_amendment_is_answered_with_the_first(doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]
    headers = {"If-Match": 'W/"1"', "Idempotency-Key": "amend-1"}
    first, second = (doctor.put(f"{letters_of(patient)}/{uid}", LETTER, headers=headers) for _ in range(2))
    assert (first.status_code, first.json()["version"]) == (200, 2)
    assert first.json() == second.json()


# Listing and reading


def test_patient_without_letters_has_an_empty_list(doctor: Person, patient: str) -> None:
    answer = doctor.get(letters_of(patient))
    assert answer.status_code == 200
    assert answer.json() == {"patient_id": patient, "letters": [], "next_cursor": None}


def test_list_is_paged_newest_first(doctor: Person, patient: str) -> None:
    """gap: no paging; and rows are objects, not positional arrays."""
    titles = [written(doctor, patient, title=f"Letter {n}")["title"] for n in range(5)]
    shown: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    for _ in range(3):
        page = doctor.get(letters_of(patient), params=query).json()
        shown += [row["title"] for row in page["letters"]]
        query["cursor"] = page["next_cursor"]
    assert shown == titles[::-1]
    assert page["next_cursor"] is None
    whole = doctor.get(letters_of(patient)).json()
    assert [row["title"] for row in whole["letters"]] == titles[::-1]
    assert whole["next_cursor"] is None


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 1001}, {"limit": "many"}, {"cursor": "x"}, {"cursor": "WyJhIl0"}, {"page": 2}]
)
def test_query_the_list_does_not_know_is_refused(doctor: Person, patient: str, query: dict[str, Any]) -> None:
    uid = written(doctor, patient)["composition_uid"]
    assert doctor.get(letters_of(patient), params=query).status_code == 422
    assert doctor.get(f"{letters_of(patient)}/{uid}", params={"page": 2}).status_code == 422


def test_letter_of_another_patient_is_not_found(clinic: Clinic, surgery: int, doctor: Person, patient: str) -> None:
    other = clinic.patient(surgery)
    written(doctor, other)
    uid = written(doctor, patient)["composition_uid"]
    url = f"{letters_of(other)}/{uid}"
    for answer in (doctor.get(url), doctor.get(f"{url}/versions"), amended(doctor, other, uid, 1)):
        assert (answer.status_code, answer.json()["detail"]) == (404, "Letter not found")
    assert doctor.get(f"{letters_of(patient)}/{uid}").json()["version"] == 1


@pytest.mark.parametrize(
    "uid",
    [
        UNKNOWN_UID,
        UNKNOWN_ID,
        "nothing",
        "%2e%2e%2f%2e%2e",
        f"{UNKNOWN_UID}::9",
        f"{UNKNOWN_UID}%3Fx=1",
        f"{UNKNOWN_UID}%0d%0a",
        "a" * 200,
        "é",
    ],
)
def test_uid_of_no_letter_is_not_found(doctor: Person, patient: str, uid: str) -> None:
    """gap: uid goes into the upstream URL unescaped; what is no uid goes nowhere."""
    written(doctor, patient)
    for suffix in ("", "/versions"):
        assert doctor.get(f"{letters_of(patient)}/{uid}{suffix}").status_code == 404
    assert amended(doctor, patient, uid, 1).status_code in {404, 405}


def test_older_version_that_never_was_is_not_found(doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]
    assert doctor.get(f"{letters_of(patient)}/{uid.removesuffix('1')}2").status_code == 404
    assert doctor.get(f"{letters_of(patient)}/{uid.replace('quill.local', 'elsewhere')}").status_code == 404


def test_document_that_is_no_letter_is_not_shown_as_one(clinic: Clinic, doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]

    async def change(unit: Unit) -> None:
        swap = "UPDATE openehr_composition SET document = replace(document, 'quill_clinical_letter.v1', 'other.v1')"
        await unit.session.execute(sa.text(swap))

    clinic.in_unit(change)
    for answer in (doctor.get(f"{letters_of(patient)}/{uid}"), amended(doctor, patient, uid, 1)):
        assert (answer.status_code, answer.json()["detail"]) == (404, "Letter not found")


def test_number_of_statements_does_not_grow_with_the_letters(clinic: Clinic, doctor: Person, patient: str) -> None:
    statements: list[str] = []

    def notice(*call: Any) -> None:
        statements.append(call[2])

    sa.event.listen(clinic.services.database.engine.sync_engine, "before_cursor_execute", notice)
    counts = []
    for _ in range(2):
        written(doctor, patient)
        statements.clear()
        assert doctor.get(letters_of(patient)).status_code == 200
        counts.append(sum("openehr" in statement for statement in statements))
    assert counts == [1, 1]


# Who may


def calls(person: Person, patient: str, uid: str) -> dict[str, Any]:
    url = letters_of(patient)
    return {
        "list": person.get(url),
        "read": person.get(f"{url}/{uid}"),
        "versions": person.get(f"{url}/{uid}/versions"),
        "write": person.post(url, LETTER),
        "amend": amended(person, patient, uid, 1),
    }


def statuses(person: Person, patient: str, uid: str) -> dict[str, int]:
    return {name: answer.status_code for name, answer in calls(person, patient, uid).items()}


READS = {"list": 200, "read": 200, "versions": 200}
NEVER = dict.fromkeys(["list", "read", "versions", "write", "amend"], 404)


def test_stranger_is_asked_to_sign_in(clinic: Clinic, doctor: Person, patient: str) -> None:
    """gap: any logged-in user, any patient; and nobody at all neither."""
    uid = written(doctor, patient)["composition_uid"]
    stranger = clinic.person(is_signed_in=False)
    for answer in calls(stranger, patient, uid).values():
        assert (answer.status_code, answer.json()["detail"]) == (401, "Not authenticated")
    assert uids(doctor, patient) == [uid]


def test_staff_of_another_organisation_sees_nothing(clinic: Clinic, doctor: Person, patient: str) -> None:
    """gap: any Clinician, any patient id; any logged-in user, any patient."""
    uid = written(doctor, patient)["composition_uid"]
    outsider = clinic.clinician(clinic.organisation("Elsewhere"))
    for answer in calls(outsider, patient, uid).values():
        assert (answer.status_code, answer.json()["detail"]) == (404, "Patient not found")
    assert uids(doctor, patient) == [uid]
    assert set(trail(clinic, outsider, patient)) == {("access:check", "refused", "no_relationship")}


def test_colleague_without_the_role_reads_and_does_not_write(
    clinic: Clinic, surgery: int, doctor: Person, patient: str
) -> None:
    uid = written(doctor, patient)["composition_uid"]
    nurse = clinic.person(organisations=[surgery], profession="registered_nurse")
    found = calls(nurse, patient, uid)
    assert {name: answer.status_code for name, answer in found.items()} == READS | {"write": 403, "amend": 403}
    assert found["write"].json()["detail"] == found["amend"].json()["detail"] == "Forbidden"
    assert uids(doctor, patient) == [uid]


def test_colleague_without_the_competency_does_neither(
    clinic: Clinic, surgery: int, doctor: Person, patient: str
) -> None:
    uid = written(doctor, patient)["composition_uid"]
    clerk = clinic.clinician(surgery, profession="receptionist")
    found = calls(clerk, patient, uid)
    assert {answer.status_code for answer in found.values()} == {403}
    assert {answer.json()["error_code"] for answer in found.values()} == {"competency_missing"}
    assert uids(doctor, patient) == [uid]


@pytest.mark.parametrize(
    "profession", ["general_practitioner", "foundation_year_1", "registered_nurse", "medical_secretary"]
)
def test_writing_asks_for_role_and_record_access_whatever_the_features(
    clinic: Clinic, surgery: int, patient: str, profession: str
) -> None:
    """gap: approve_clinical_letters and feature letters are not consulted; by decision 0016 neither gates writing."""
    clinician = clinic.clinician(surgery, profession=profession)
    may_approve = "approve_clinical_letters" in clinician.get("/api/auth/me").json()["competencies"]
    assert may_approve == (profession == "general_practitioner")
    uid = written(clinician, patient)["composition_uid"]
    without_role = clinic.person(profession=profession, organisations=[surgery])
    assert statuses(without_role, patient, uid) == READS | {"write": 403, "amend": 403}


def test_patient_reads_their_own_letters_and_no_others(
    clinic: Clinic, surgery: int, doctor: Person, patient: str
) -> None:
    uid = written(doctor, patient)["composition_uid"]
    other = clinic.patient(surgery)
    other_uid = written(doctor, other)["composition_uid"]
    person = clinic.person(level=Level.PATIENT, profession="patient", patient_id=patient)
    assert statuses(person, patient, uid) == READS | {"write": 403, "amend": 403}
    assert statuses(person, other, other_uid) == NEVER


def test_external_person_reads_letters_of_a_granted_patient_only(
    clinic: Clinic, surgery: int, doctor: Person, patient: str
) -> None:
    uid = written(doctor, patient)["composition_uid"]
    other = clinic.patient(surgery)
    other_uid = written(doctor, other)["composition_uid"]
    advocate = clinic.person(level=Level.PATIENT_ADVOCATE, profession="patient")
    assert statuses(advocate, patient, uid) == NEVER
    grant(clinic, advocate, patient)
    assert statuses(advocate, patient, uid) == READS | {"write": 403, "amend": 403}
    assert statuses(advocate, other, other_uid) == NEVER


def test_writing_needs_the_csrf_token(doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]
    url = letters_of(patient)
    for answer in (
        doctor.client.post(url, json=LETTER),
        doctor.client.put(f"{url}/{uid}", json=LETTER, headers={"If-Match": 'W/"1"'}),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (403, "CSRF failed")
    assert uids(doctor, patient) == [uid]


def test_everything_done_and_refused_is_in_the_trail(clinic: Clinic, doctor: Person, patient: str) -> None:
    uid = written(doctor, patient)["composition_uid"]
    doctor.get(letters_of(patient))
    doctor.get(f"{letters_of(patient)}/{uid}")
    doctor.get(f"{letters_of(patient)}/{uid}/versions")
    amended(doctor, patient, uid, 1)
    amended(doctor, patient, uid, 1)
    doctor.get(f"{letters_of(patient)}/{UNKNOWN_UID}")
    assert trail(clinic, doctor, patient) == [
        ("letter:write", "allowed", ""),
        ("letter:list", "allowed", ""),
        ("letter:read", "allowed", ""),
        ("letter:read", "allowed", ""),
        ("letter:amend", "allowed", ""),
        ("letter:amend", "refused", "stale_edit"),
        ("letter:read", "refused", "letter_not_found"),
    ]
