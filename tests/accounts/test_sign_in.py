"""Signing in, as a browser sees it."""

import json
from http.cookies import SimpleCookie
from typing import Any

import argon2
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from quill.actor import Level
from quill.app import create_app
from quill.audit.models import AuditEvent
from quill.auth import new_passwords
from quill.settings import Settings
from quill.unit import RequestFacts, open_unit
from tests.accounts.browsers import (
    account,
    alter,
    elsewhere,
    is_signed_in,
    like,
    refused,
    stranger,
    told,
    tries,
)
from tests.clinic import PASSWORD, Clinic

JSON = {"content-type": "application/json"}


def test_person_signs_in_and_is_told_who_they_are(clinic: Clinic) -> None:
    organisation = clinic.organisation()
    person = clinic.clinician(organisation, username="dr.who", full_name="Doctor Who")
    answer = person.get("/api/auth/me")
    assert answer.status_code == 200
    body = answer.json()
    competencies = body.pop("competencies")
    assert body == {
        "id": person.id,
        "username": "dr.who",
        "name": "Doctor Who",
        "email": "dr.who@example.org",
        "roles": ["Clinician"],
        "system_permissions": "staff",
        "totp_enabled": False,
        "enabled_features": [],
        "clinical_services_enabled": True,
        "professional_registrations": [],
        "fhir_patient_id": None,
    }
    assert "prescribe_controlled_schedule_2" in competencies


def test_patient_learns_their_record_id_and_competencies(clinic: Clinic) -> None:
    """gap: competencies and fhir_patient_id are not exposed."""
    patient_id = clinic.patient(clinic.organisation())
    person = clinic.person(level=Level.PATIENT, profession="patient", patient_id=patient_id)
    body = person.get("/api/auth/me").json()
    assert body["fhir_patient_id"] == patient_id
    assert body["competencies"] == ["access_patient_records"]
    assert body["name"] is None


def test_stranger_is_not_told_anything(client: TestClient) -> None:
    answer = client.get("/api/auth/me")
    assert told(answer) == (401, "Not authenticated")
    assert answer.headers["content-type"] == "application/problem+json"


def test_login_answers_name_and_roles_and_sets_three_cookies(clinic: Clinic) -> None:
    person = clinic.person(roles=["Clinician"], is_signed_in=False)
    answer = person.sign_in()
    assert answer.json() == {"detail": "ok", "user": {"username": person.username, "roles": ["Clinician"]}}
    found = attributes_of(answer)
    assert found == {
        "access_token": ("/", "900", True, False, "lax"),
        "refresh_token": ("/api/auth/refresh", "604800", True, False, "lax"),
        "XSRF-TOKEN": ("/", "900", False, False, "lax"),
    }
    assert answer.headers["cache-control"] == "no-store"


def test_cookies_are_secure_and_carry_the_domain_where_the_public_url_is_https(settings: Settings) -> None:
    kept = like(settings, public_url="https://quill.example.org", cookie_domain="quill.example.org")
    with TestClient(create_app(kept), base_url="https://quill.example.org") as client:
        person = Clinic(client).person(is_signed_in=False)
        answer = client.post("/api/auth/login", json={"username": person.username, "password": PASSWORD})
        cookies = [SimpleCookie(header) for header in answer.headers.get_list("set-cookie")]
    assert all(morsel["secure"] for cookie in cookies for morsel in cookie.values())
    assert {morsel["domain"] for cookie in cookies for morsel in cookie.values()} == {"quill.example.org"}


def attributes_of(answer: Any) -> dict[str, tuple[str, str, bool, bool, str]]:
    """Return path, lifetime, HttpOnly, Secure and SameSite of each cookie an answer sets."""
    found = {}
    for header in answer.headers.get_list("set-cookie"):
        for name, morsel in SimpleCookie(header).items():
            found[name] = (
                morsel["path"],
                morsel["max-age"],
                bool(morsel["httponly"]),
                bool(morsel["secure"]),
                morsel["samesite"].lower(),
            )
    return found


def test_username_is_trimmed_and_its_case_does_not_matter(clinic: Clinic) -> None:
    clinic.person("Dr.Strange", is_signed_in=False)
    for typed in ("  Dr.Strange ", "DR.STRANGE", "dr.strange"):
        assert tries(clinic.client, typed, PASSWORD).status_code == 200, typed


def test_disabled_account_gets_no_cookie(clinic: Clinic) -> None:
    """gap: a disabled account gets 200 and all three cookies."""
    person = clinic.person(is_signed_in=False)
    alter(clinic, person, is_active=False)
    answer = person.sign_in()
    assert told(answer) == (400, "Invalid credentials")
    assert "set-cookie" not in answer.headers
    alter(clinic, person, is_active=True)
    assert person.sign_in().status_code == 200


def test_empty_password_is_wrong_for_everybody(clinic: Clinic) -> None:
    """gap: an empty password string is an unhandled 500 for a known username and 400 for an unknown one."""
    clinic.person("known", is_signed_in=False)
    for username in ("known", "nobody"):
        assert told(tries(clinic.client, username, "")) == (400, "Invalid credentials")


@pytest.mark.parametrize("who", ["wrong password", "unknown", "disabled", "disabled, right password"])
def test_every_failure_does_the_work_of_one_hash(clinic: Clinic, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """gap: no hashing work for an unknown username, so timing reveals which usernames exist."""
    person = clinic.person("known", is_signed_in=False)
    if who.startswith("disabled"):
        alter(clinic, person, is_active=False)
    done: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, password_hash: str, password: str) -> bool:
        done.append(repr(argon2.extract_parameters(password_hash)))
        return verify(self, password_hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    username = "nobody" if who == "unknown" else "known"
    password = PASSWORD if who == "disabled, right password" else "wrong password"
    assert told(tries(clinic.client, username, password)) == (400, "Invalid credentials")
    assert len(done) == 1
    assert done[0] == repr(argon2.extract_parameters(account(clinic, person).password_hash))


def test_hash_is_renewed_at_sign_in_when_its_parameters_are_old(settings: Settings) -> None:
    """Contract, password_hash: rehash_on_login."""
    with TestClient(create_app(settings)) as client:
        clinic = Clinic(client)
        person = clinic.person("old.timer")
        before = account(clinic, person).password_hash
    dearer = like(settings, argon2_time_cost=2)
    with TestClient(create_app(dearer)) as client:
        clinic = Clinic(client)
        assert tries(client, "old.timer", "wrong").status_code == 400
        assert account(clinic, person).password_hash == before
        assert tries(client, "old.timer", PASSWORD).status_code == 200
        after = account(clinic, person).password_hash
        assert argon2.extract_parameters(before).time_cost == 1
        assert argon2.extract_parameters(after).time_cost == 2
        assert tries(client, "old.timer", PASSWORD).status_code == 200
        assert account(clinic, person).password_hash == after


def test_password_changed_while_somebody_signs_in_with_the_old_one_keeps_them_out(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = clinic.person()
    passwords = clinic.authenticator.passwords
    new_hash = clinic.run(passwords.hash, "a new password")
    matches = passwords.matches

    async def slow_matches(password: str, password_hash: str | None) -> bool:
        verdict = await matches(password, password_hash)
        monkeypatch.setattr(passwords, "matches", matches)
        async with open_unit(clinic.services, RequestFacts("meanwhile", "test")) as unit:
            await new_passwords.replace(unit, person.id, new_hash, reason="password_changed")  # type: ignore[arg-type]
        return verdict

    monkeypatch.setattr(passwords, "matches", slow_matches)
    thief = elsewhere(clinic, person)
    assert told(thief.sign_in()) == (400, "Invalid credentials")
    assert not is_signed_in(person)
    assert thief.sign_in("a new password").status_code == 200


MALFORMED = [
    {},
    {"username": "known"},
    {"username": 7, "password": PASSWORD},
    {"username": "known", "password": ["x"]},
    {"username": "x" * 151, "password": PASSWORD},
    {"username": "known", "password": "x" * 129},
    {"username": "known", "password": PASSWORD, "totp_code": "1" * 33},
    {"username": "known\x00", "password": PASSWORD},
    {"username": "known", "password": "\ud800"},
    {"username": "known", "password": PASSWORD, "remember": True},
]


def test_malformed_sign_in_is_refused_without_being_counted(clinic: Clinic) -> None:
    person = clinic.person("known", is_signed_in=False)
    for body in MALFORMED:
        answer = clinic.client.post("/api/auth/login", content=json.dumps(body), headers=JSON)
        assert answer.status_code == 422, body
        assert PASSWORD not in answer.text
    assert person.sign_in().status_code == 200


def test_unknown_query_parameter_is_refused(clinic: Clinic) -> None:
    answer = clinic.client.post("/api/auth/login?debug=1", json={"username": "x", "password": "y"})
    assert answer.status_code == 422


def test_page_of_another_site_is_refused_without_a_login_too(clinic: Clinic) -> None:
    """Decisions, rule 4: calls without a login need no token but do get the origin check."""
    for path in ("login", "register", "forgot-password", "reset-password", "refresh", "logout"):
        for header in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = stranger(clinic).post(f"/api/auth/{path}", json={}, headers=header)
            assert refused(answer) == (403, "foreign_origin"), path


def test_signing_in_and_failing_to_are_audited_without_what_was_typed(clinic: Clinic) -> None:
    person = clinic.person("audited")
    tries(clinic.client, "audited", "my secret guess")
    tries(clinic.client, "hunter2 typed as a name", "x")

    async def read(unit: Any) -> list[Any]:
        statement = sa.select(AuditEvent).where(AuditEvent.act == "sign-in").order_by(AuditEvent.id)
        return list(await unit.session.scalars(statement))

    rows = clinic.in_unit(read)
    assert [(row.outcome, row.reason) for row in rows] == [
        ("allowed", ""),
        ("refused", "wrong_password"),
        ("refused", "unknown_user"),
    ]
    assert rows[0].actor_user_id == person.id
    assert rows[0].subject == f"login:{rows[0].login_id}"
    assert rows[1].subject == f"user:{person.id}"
    assert rows[2].subject is None
    assert not any("hunter2" in str(vars(row)) or "secret guess" in str(vars(row)) for row in rows)
