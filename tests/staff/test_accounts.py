"""Making, changing, disabling and enabling accounts."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from quill.actor import Level
from quill.auth.models import Login
from quill.identity import catalogue
from quill.kit import clock
from quill.staff.schemas import UserChangeIn
from quill.unit import Unit
from tests.clinic import PASSWORD, Clinic, Person

NEW = {"name": "Ada Lovelace", "username": "ada", "email": "ada@example.org", "password": "long enough 1"}


def make(admin: Person, **fields: Any) -> Any:
    return admin.post("/api/users", json=NEW | fields)


def test_admin_makes_an_account_that_can_sign_in(clinic: Clinic) -> None:
    admin = clinic.admin()
    answer = make(
        admin,
        base_profession="registered_nurse",
        system_permissions="staff",
        additional_competencies=["refer_specialty", "interpret_ecg"],
        removed_competencies=["perform_cannulation"],
        roles=["Clinician"],
    )
    assert answer.status_code == 200
    made = answer.json()
    assert made | {"detail": "created", "username": "ada", "email": "ada@example.org"} == made
    ada = Person(clinic.client, made["id"], "ada")
    assert ada.sign_in("long enough 1").status_code == 200
    me = ada.get("/api/auth/me").json()
    assert (me["name"], me["system_permissions"], me["roles"]) == ("Ada Lovelace", "staff", ["Clinician"])
    assert "interpret_ecg" in me["competencies"]
    assert "perform_cannulation" not in me["competencies"]
    detail = admin.get(f"/api/users/{made['id']}").json()
    assert detail["additional_competencies"] == ["interpret_ecg", "refer_specialty"]
    assert (detail["is_active"], detail["organisations"], detail["totp_enabled"]) == (True, [], False)


def test_defaults_are_those_of_a_patient(clinic: Clinic) -> None:
    admin = clinic.admin()
    detail = admin.get(f"/api/users/{make(admin).json()['id']}").json()
    assert (detail["system_permissions"], detail["base_profession"], detail["roles"]) == ("patient", "patient", [])
    assert detail["fhir_patient_id"] is None


@pytest.mark.parametrize("username", [None, "", "   "])
def test_without_a_username_the_name_serves(clinic: Clinic, username: str | None) -> None:
    admin = clinic.admin()
    made = make(admin, username=username, name="  Grace B.  Hopper ").json()
    assert made["username"] == "graceb.hopper"
    assert admin.get(f"/api/users/{made['id']}").json()["name"] == "Grace B.  Hopper"


BAD_ACCOUNTS: list[tuple[dict[str, Any], int, str | None]] = [
    ({"email": " "}, 400, "Missing required fields"),
    ({"password": ""}, 400, "Missing required fields"),
    ({"name": "  ", "username": " "}, 400, "Missing required fields"),
    ({"password": "seven77"}, 400, "Password must be at least 8 characters"),
    ({"password": "x" * 129}, 422, None),
    ({"username": "TAKEN"}, 400, "Username already exists"),
    ({"username": " taken "}, 400, "Username already exists"),
    ({"email": "Taken@Example.org "}, 400, "Email already exists"),
    ({"email": "no address"}, 422, None),
    ({"email": "a@b@c"}, 422, None),
    ({"email": "@example.org"}, 422, None),
    ({"email": "a\n@example.org"}, 422, None),
    ({"email": "x" * 250 + "@example.org"}, 422, None),
    ({"username": "x" * 151}, 422, None),
    ({"username": None, "name": "x" * 200}, 422, None),
    ({"username": "\N{GREEK SMALL LETTER IOTA WITH DIALYTIKA AND TONOS}" * 150}, 422, None),
    ({"username": "a\nb"}, 422, None),
    ({"name": "x" * 256}, 422, None),
    ({"name": "a\x00"}, 422, None),
    ({"name": None}, 422, None),
    ({"system_permissions": "emperor"}, 422, None),
    ({"system_permissions": "STAFF"}, 422, None),
    ({"base_profession": "barber"}, 422, None),
    ({"additional_competencies": ["fly"]}, 422, None),
    ({"removed_competencies": ["fly"]}, 422, None),
    ({"additional_competencies": "interpret_ecg"}, 422, None),
    ({"additional_competencies": [1]}, 422, None),
    ({"roles": ["Administrator"]}, 422, None),
    ({"is_superuser": True}, 422, None),
]


def test_bad_account_is_refused_and_nothing_is_made(clinic: Clinic) -> None:
    """gap: profession, competency and permission values are not validated; a blank name makes a blank username."""
    admin = clinic.admin()
    clinic.person("taken", is_signed_in=False)
    before = admin.get("/api/users").json()
    for fields, status, detail in BAD_ACCOUNTS:
        answer = make(admin, **fields)
        assert (fields, answer.status_code) == (fields, status)
        if detail is not None:
            assert answer.json()["detail"] == detail
        assert "long enough 1" not in answer.text
    assert admin.get("/api/users").json() == before


def test_of_parallel_creations_of_one_username_exactly_one_wins(clinic: Clinic) -> None:
    admins = [clinic.admin() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        wishes = [
            {"username": name, "email": f"{n}@example.org"} for n, name in enumerate(["ada", "ADA", "Ada", "aDa"])
        ]
        answers = list(pool.map(lambda a, w: make(a, **w), admins, wishes))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert {a.json()["detail"] for a in answers if a.status_code == 400} == {"Username already exists"}


def test_account_is_changed_and_read_back(clinic: Clinic) -> None:
    """gap: cannot change roles, is_active."""
    admin, person = clinic.admin(), clinic.person("old", is_signed_in=False)
    url = f"/api/users/{person.id}"
    answer = admin.patch(
        url,
        json={
            "name": " New Name ",
            "username": " new ",
            "email": " new@example.org ",
            "base_profession": "pharmacist",
            "additional_competencies": ["interpret_ecg"],
            "removed_competencies": ["prescribe_non_controlled"],
            "system_permissions": "patient",
            "roles": ["Clinician", "Patient"],
            "is_active": False,
        },
    )
    assert answer.status_code == 200
    assert answer.json() == {"detail": "updated", "id": person.id, "username": "new", "email": "new@example.org"}
    found = admin.get(url).json()
    assert found["name"] == "New Name"
    assert (found["base_profession"], found["system_permissions"]) == ("pharmacist", "patient")
    assert (found["roles"], found["is_active"]) == (["Clinician", "Patient"], False)
    assert found["additional_competencies"] == ["interpret_ecg"]
    assert found["removed_competencies"] == ["prescribe_non_controlled"]
    assert found["final_competencies"] == sorted(
        (catalogue.PROFESSIONS["pharmacist"] | {"interpret_ecg"}) - {"prescribe_non_controlled"}
    )
    admin.patch(url, json={"roles": ["Clinician"], "additional_competencies": []})
    again = admin.get(url).json()
    assert (again["roles"], again["additional_competencies"]) == (["Clinician"], [])


def test_what_is_left_out_null_or_blank_stays(clinic: Clinic) -> None:
    """gap: a blank username is accepted when no other user has one."""
    admin, person = clinic.admin(), clinic.person("kept", full_name="Kept Name", roles=["Clinician"])
    url = f"/api/users/{person.id}"
    before = admin.get(url).json()
    nulls = dict.fromkeys(UserChangeIn.model_fields)
    for nothing in ({}, nulls, {"password": "", "username": "  ", "base_profession": "", "system_permissions": ""}):
        assert admin.patch(url, json=nothing).status_code == 200
    assert admin.get(url).json() == before
    assert person.get("/api/auth/me").status_code == 200, "nothing changed, so no login ends"
    assert admin.patch(url, json={"name": " "}).status_code == 200
    assert admin.get(url).json()["name"] == "kept", "a blank name clears it, and the username stands in"


def test_a_failing_field_leaves_the_others_unsaved(clinic: Clinic) -> None:
    admin, person = clinic.admin(), clinic.person("kept")
    clinic.person("taken", is_signed_in=False)
    url = f"/api/users/{person.id}"
    before = admin.get(url).json()
    failing: list[tuple[dict[str, Any], int, str | None]] = [
        ({"username": "Taken"}, 400, "Username already exists"),
        ({"email": "TAKEN@example.org"}, 400, "Email already exists"),
        ({"email": "  "}, 400, "Email is required"),
        ({"password": "short"}, 400, "Password must be at least 8 characters"),
        ({"email": "no address"}, 422, None),
        ({"base_profession": "barber"}, 422, None),
        ({"additional_competencies": ["fly"]}, 422, None),
        ({"roles": ["Administrator"]}, 422, None),
        ({"system_permissions": "emperor"}, 422, None),
        ({"is_active": "perhaps"}, 422, None),
        ({"fhir_patient_id": "p"}, 422, None),
    ]
    for field, status, detail in failing:
        whole = {"name": "Changed", "password": "another password", "roles": ["Patient"]} | field
        answer = admin.patch(url, json=whole)
        assert (field, answer.status_code) == (field, status)
        if detail is not None:
            assert answer.json()["detail"] == detail
    assert admin.get(url).json() == before
    assert person.get("/api/auth/me").status_code == 200
    assert person.sign_in().status_code == 200, "the password is the old one"


def test_ones_own_name_may_be_written_in_another_case(clinic: Clinic) -> None:
    admin, person = clinic.admin(), clinic.person("mary", is_signed_in=False)
    answer = admin.patch(f"/api/users/{person.id}", json={"username": "Mary", "email": "MARY@example.org"})
    assert (answer.status_code, answer.json()["username"]) == (200, "Mary")


def test_unknown_account_is_404(clinic: Clinic) -> None:
    admin = clinic.admin()
    for answer in (
        admin.get("/api/users/999"),
        admin.patch("/api/users/999", json={}),
        admin.post("/api/users/999/activate"),
        admin.post("/api/users/999/deactivate"),
        admin.patch("/api/users/999/link-patient", json={"fhir_patient_id": "p"}),
        admin.delete("/api/users/999/link-patient"),
        admin.get("/api/users/999/logins"),
        admin.delete("/api/users/999/logins"),
        admin.delete("/api/users/999/logins/x"),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (404, "User not found")
    assert admin.get("/api/users/abc").status_code == 422
    assert admin.patch(f"/api/users/{2**40}", json={}).status_code == 422


@pytest.mark.parametrize(
    "change",
    [
        {"password": "another password"},
        {"system_permissions": "patient"},
        {"base_profession": "receptionist"},
        {"additional_competencies": ["interpret_ecg"]},
        {"removed_competencies": ["refer_specialty"]},
        {"roles": ["Clinician"]},
        {"is_active": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_change_of_password_or_rights_ends_every_login(clinic: Clinic, change: dict[str, Any]) -> None:
    """gap: tokens of the changed user live on."""
    admin, person = clinic.admin(), clinic.person("doctor")
    second_device = Person(clinic.client, person.id, "doctor")
    second_device.sign_in()
    assert admin.patch(f"/api/users/{person.id}", json=change).status_code == 200
    for device in (person, second_device):
        answer = device.get("/api/auth/me")
        expected = "Inactive user" if "is_active" in change else "Invalid token"
        assert (answer.status_code, answer.json()["detail"]) == (401, expected)
        assert device.post("/api/auth/refresh").status_code == 401
    password = change.get("password", PASSWORD)
    assert person.sign_in(password).status_code == (400 if "is_active" in change else 200)


def test_change_of_name_ends_no_login(clinic: Clinic) -> None:
    """gap: identity is the username, so renaming a user voids their tokens."""
    admin, person = clinic.admin(), clinic.person("before")
    assert admin.patch(f"/api/users/{person.id}", json={"username": "after", "name": "X"}).status_code == 200
    assert person.get("/api/auth/me").json()["username"] == "after"


def test_account_is_disabled_and_enabled_again(clinic: Clinic) -> None:
    """gap: no endpoint disables a user."""
    admin, person = clinic.admin(), clinic.person("doctor")
    url = f"/api/users/{person.id}"
    off = admin.post(f"{url}/deactivate")
    assert (off.status_code, off.json()) == (200, {"detail": "deactivated", "id": person.id, "is_active": False})
    assert person.get("/api/auth/me").status_code == 401
    refused = person.sign_in()
    assert (refused.status_code, refused.json()["detail"]) == (400, "Invalid credentials")
    assert admin.post(f"{url}/deactivate").json()["is_active"] is False
    on = admin.post(f"{url}/activate")
    assert on.json() == {"detail": "activated", "id": person.id, "is_active": True}
    assert person.sign_in().status_code == 200
    assert [row.act for act in ("user:disable", "user:enable") for row in clinic.audited(act)] == [
        "user:disable",
        "user:enable",
    ]


def test_every_change_is_in_the_audit_trail_and_no_secret_is(clinic: Clinic) -> None:
    """gap: no audit record."""
    admin, person = clinic.admin(), clinic.person("doctor", is_signed_in=False)
    admin.patch(f"/api/users/{person.id}", json={"password": "another password", "roles": ["Clinician"]})
    for act in ("user:change", "roles:change", "password:change"):
        (row,) = clinic.audited(act)
        assert (row.actor_user_id, row.subject, row.outcome) == (admin.id, f"user:{person.id}", "allowed")
        assert "another password" not in str(row)


ADMIN_TEXT = "Requires admin or superadmin permissions"
CREATE_TEXT = "Admin or superadmin permissions required to create users"
UPDATE_TEXT = "Admin or superadmin permissions required to update users"
CALLS: list[tuple[str, str, Any, str]] = [
    ("GET", "/api/users", None, ADMIN_TEXT),
    ("GET", "/api/users?patient_id=", None, ADMIN_TEXT),
    ("GET", "/api/users?permission_level=nonsense", None, ADMIN_TEXT),
    ("POST", "/api/users", NEW, CREATE_TEXT),
    ("GET", "/api/users/1", None, ADMIN_TEXT),
    ("PATCH", "/api/users/1", {"name": "X"}, UPDATE_TEXT),
    ("POST", "/api/users/1/activate", None, UPDATE_TEXT),
    ("POST", "/api/users/1/deactivate", None, UPDATE_TEXT),
    ("PATCH", "/api/users/1/link-patient", {"fhir_patient_id": "p"}, "Admin only"),
    ("DELETE", "/api/users/1/link-patient", None, "Admin only"),
    ("GET", "/api/users/1/logins", None, ADMIN_TEXT),
    ("DELETE", "/api/users/1/logins", None, UPDATE_TEXT),
    ("DELETE", "/api/users/1/logins/x", None, UPDATE_TEXT),
    ("PATCH", "/api/cbac/my-competencies", {}, ADMIN_TEXT),
]


def test_only_admins_administer_people_and_only_with_the_csrf_token(clinic: Clinic, client: TestClient) -> None:
    """gap: no CSRF check."""
    person = clinic.person("kept", roles=["System Administrator"])
    patient = clinic.person(level=Level.PATIENT)
    admin = clinic.admin()
    for method, path, body, words in CALLS:
        assert (path, client.request(method, path, json=body).status_code) == (path, 401)
        for outsider in (person, patient):
            answer = outsider.client.request(method, path, json=body, headers=outsider.csrf)
            assert (path, answer.status_code, answer.json()["detail"]) == (path, 403, words)
        if method != "GET":
            forged = admin.client.request(method, path, json=body)
            assert (path, forged.status_code, forged.json()["detail"]) == (path, 403, "CSRF failed")
    assert admin.get(f"/api/users/{person.id}").json()["name"] == "kept"
    assert admin.get("/api/users").json()["total"] == 3


def grow_old(clinic: Clinic, person: Person) -> None:
    """Let somebody have signed in sixteen minutes ago."""
    long_ago = clock.now() - datetime.timedelta(minutes=16)

    async def work(unit: Unit) -> None:
        await unit.session.execute(sa.update(Login).where(Login.user_id == person.id).values(created_at=long_ago))

    clinic.in_unit(work)


def test_own_password_needs_a_fresh_sign_in_and_others_do_not(clinic: Clinic) -> None:
    """Decisions, rule 10: a signed-in browser somebody finds does not give the account away."""
    chief, person = clinic.superadmin(), clinic.person()
    grow_old(clinic, chief)
    refused = chief.patch(f"/api/users/{chief.id}", json={"password": "another password", "name": "Changed"})
    assert (refused.status_code, refused.json()["error_code"]) == (403, "reauthentication_required")
    assert chief.get(f"/api/users/{chief.id}").json()["name"] != "Changed"
    moved = chief.patch(f"/api/users/{chief.id}", json={"email": "thief@example.org"})
    assert (moved.status_code, moved.json()["error_code"]) == (403, "reauthentication_required")
    same = {"password": "", "name": "Chief", "email": f"{chief.username}@Example.org"}
    assert chief.patch(f"/api/users/{chief.id}", json=same).status_code == 200
    assert chief.patch(f"/api/users/{person.id}", json={"password": "another password"}).status_code == 200
    [kept] = [row for row in clinic.audited("password:change") if row.outcome == "refused"]
    assert (kept.reason, kept.subject) == ("reauthentication_required", f"user:{chief.id}")
    assert chief.sign_in().status_code == 200, "the password is the old one"
    assert chief.patch(f"/api/users/{chief.id}", json={"password": "another password"}).status_code == 200
    assert chief.get("/api/auth/me").status_code == 200
    assert chief.sign_in("another password").status_code == 200
