"""Registering oneself."""

import json
from typing import Any

import sqlalchemy as sa
from starlette.testclient import TestClient

from quill.app import create_app
from quill.identity.models import UserAccount
from quill.organisations.models import JoinRequest
from quill.settings import Settings
from quill.unit import Unit
from tests.accounts.browsers import at_once, like, stranger, told, tries
from tests.clinic import Clinic

NEW = {"username": "newcomer", "email": "New.Comer@Example.org", "password": "sixsix"}


def register(client: TestClient, **changes: Any) -> Any:
    """Register with the smallest valid thing and changes to it."""
    return client.post("/api/auth/register", json=NEW | changes)


def accounts(clinic: Clinic) -> list[UserAccount]:
    """Return every account."""

    async def read(unit: Unit) -> list[UserAccount]:
        return list(await unit.session.scalars(sa.select(UserAccount).order_by(UserAccount.id)))

    found: list[UserAccount] = clinic.in_unit(read)
    return found


def join_requests(clinic: Clinic) -> list[tuple[int, int]]:
    """Return who asked to join which organisation."""

    async def read(unit: Unit) -> list[tuple[int, int]]:
        rows = await unit.session.execute(sa.select(JoinRequest.user_id, JoinRequest.organisation_id))
        return [(row.user_id, row.organisation_id) for row in rows]

    found: list[tuple[int, int]] = clinic.in_unit(read)
    return found


def test_newcomer_registers_and_signs_in_as_a_patient_without_roles(clinic: Clinic) -> None:
    answer = register(clinic.client, username="  newcomer ", full_name="  New Comer ")
    assert told(answer) == (200, "created")
    assert "set-cookie" not in answer.headers
    assert tries(clinic.client, "newcomer", "sixsix").status_code == 200
    body = clinic.client.get("/api/auth/me").json()
    assert (body["username"], body["name"], body["email"]) == ("newcomer", "New Comer", "New.Comer@Example.org")
    assert (body["roles"], body["system_permissions"]) == ([], "patient")
    assert body["competencies"] == ["access_patient_records"]


def test_blank_optional_fields_count_as_absent(clinic: Clinic) -> None:
    assert register(clinic.client, full_name="  ", organisation_id="").status_code == 200
    assert accounts(clinic)[0].full_name is None
    assert join_requests(clinic) == []


def test_newcomer_is_a_learner_where_clinical_services_are_off(settings: Settings) -> None:
    kept = like(settings, clinical_services_enabled=False)
    with TestClient(create_app(kept)) as client:
        clinic = Clinic(client)
        assert register(client).status_code == 200
        assert accounts(clinic)[0].base_profession == "learner"
        tries(client, "newcomer", "sixsix")
        assert client.get("/api/auth/me").json()["clinical_services_enabled"] is False


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"username": "  "}, "Missing fields"),
    ({"email": "  "}, "Missing fields"),
    ({"password": ""}, "Missing fields"),
    ({"password": "fives"}, "Password too short"),
    ({"organisation_id": 4711}, "Organisation not found"),
    ({"organisation_id": 0}, "Organisation not found"),
    ({"organisation_id": -1}, "Organisation not found"),
]


def test_wrong_registration_is_told_why_and_makes_nothing(clinic: Clinic) -> None:
    for number, (changes, sentence) in enumerate(WRONG):
        answer = register(stranger(clinic, f"192.0.2.{number}"), **changes)
        assert told(answer) == (400, sentence), changes
    assert accounts(clinic) == []
    assert register(clinic.client).status_code == 200


def test_taken_names_are_refused_whatever_their_case(clinic: Clinic) -> None:
    """gap: emails are neither verified nor case-folded."""
    assert register(clinic.client).status_code == 200
    taken_name = {"email": "other@example.org", "username": "NewComer"}
    taken_address = {"username": "other", "email": "new.comer@EXAMPLE.org"}
    assert told(register(clinic.client, **taken_name)) == (400, "Username already exists")
    assert told(register(clinic.client, **taken_address)) == (400, "Email already exists")
    assert len(accounts(clinic)) == 1


def test_of_two_who_register_the_same_name_at_once_one_wins(clinic: Clinic) -> None:
    """gap: duplicate races surface as 500 from the unique index."""
    answers = at_once(lambda source: register(stranger(clinic, source)), [f"192.0.2.{n}" for n in range(6)])
    assert sorted(told(answer) for answer in answers) == [(200, "created")] + [(400, "Username already exists")] * 5
    assert len(accounts(clinic)) == 1


def test_naming_an_organisation_asks_to_join_and_never_joins(clinic: Clinic) -> None:
    """gap: anyone on the network can join any organisation."""
    organisation = clinic.organisation()
    assert register(clinic.client, organisation_id=organisation).status_code == 200
    assert join_requests(clinic) == [(accounts(clinic)[0].id, organisation)]
    tries(clinic.client, "newcomer", "sixsix")
    assert clinic.client.get("/api/auth/me").json()["system_permissions"] == "patient"

    async def memberships(unit: Unit) -> int:
        return int(await unit.session.scalar(sa.text("SELECT count(*) FROM organisation_staff_member")) or 0)

    assert clinic.in_unit(memberships) == 0


MALFORMED: list[dict[str, Any]] = [
    {},
    {"username": "newcomer", "email": "a@example.org"},
    NEW | {"username": 5},
    NEW | {"username": "x" * 151},
    NEW | {"username": "new\x07comer"},
    NEW | {"username": "new\x00comer"},
    NEW | {"username": "\ud800"},
    NEW | {"email": "not an address"},
    NEW | {"email": "a@example.org\nBcc: everybody@example.org"},
    NEW | {"email": f"{'x' * 250}@example.org"},
    NEW | {"password": "x" * 129},
    NEW | {"full_name": "x" * 256},
    NEW | {"organisation_id": "seven"},
    NEW | {"organisation_id": "5"},
    NEW | {"organisation_id": True},
    NEW | {"organisation_id": 1.0},
    NEW | {"organisation_id": 2**40},
    NEW | {"system_permissions": "superadmin"},
    NEW | {"roles": ["Clinician"]},
]


def test_malformed_registration_is_refused_and_makes_nothing(clinic: Clinic) -> None:
    headers = {"content-type": "application/json"}
    for body in MALFORMED:
        answer = clinic.client.post("/api/auth/register", content=json.dumps(body), headers=headers)
        assert answer.status_code == 422, body
        assert answer.json()["errors"]
    assert accounts(clinic) == []


def test_production_wants_twelve_characters_that_are_not_common(settings: Settings) -> None:
    """gap: three different minimums; no maximum, breach list or reuse rule."""
    kept = like(
        settings,
        environment="production",
        secret_key="Zk3v9XqLw7RtYb2NcJ5hGf8DsAp0UmEo",
        public_url="https://quill.example.org",
    )
    with TestClient(create_app(kept), base_url="https://quill.example.org") as client:
        assert told(register(client, password="elevenchars")) == (400, "Password too short")
        assert told(register(client, password="SonyEricsson")) == (400, "This password is too easy to guess")
        assert register(client, password="long and my very own").status_code == 200


def test_setting_overrides_the_minimum(settings: Settings) -> None:
    with TestClient(create_app(like(settings, password_min_length=9))) as client:
        assert told(register(client, password="eightchr")) == (400, "Password too short")
        assert register(client, password="ninechars").status_code == 200
