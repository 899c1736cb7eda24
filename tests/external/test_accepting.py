"""Accepting an invite: once, with the account that has the address or a new one."""

import datetime
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Actor, Level
from quill.identity import service as identity
from quill.identity.models import ExternalAccess, UserAccount
from quill.kit.ids import UserId
from quill.unit import Unit
from tests.clinic import PASSWORD, Clinic, Person
from tests.external.desk import NEWCOMER, STRANGER, Desk
from tests.letters.desk import deactivate

INVALID = (400, "Invalid or expired invite token")


def count(clinic: Clinic, table: type[UserAccount | ExternalAccess]) -> int:
    async def read(unit: Unit) -> int:
        return await unit.session.scalar(sa.select(sa.func.count()).select_from(table)) or 0

    return int(clinic.in_unit(read))


def set_account(clinic: Clinic, person: Person, **values: Any) -> None:
    async def change(unit: Unit) -> None:
        await unit.session.execute(sa.update(UserAccount).where(UserAccount.id == person.id).values(**values))

    clinic.in_unit(change)


def test_newcomer_registers_and_sees_this_patient_only(desk: Desk) -> None:
    """gap: granted_by is recorded as the invitee."""
    second = desk.clinic.patient(desk.organisation)
    answer = desk.accept(desk.token(user_type="patient_advocate"), username=" relative ", password=PASSWORD)
    assert answer.status_code == 200
    body = answer.json()
    assert body == {"status": "registered", "user_id": body["user_id"], "redirect": "/app/login"}
    assert "set-cookie" not in answer.headers
    person = Person(desk.clinic.client, body["user_id"], "relative")
    assert person.sign_in().status_code == 200
    me = person.get("/api/auth/me").json()
    assert (me["email"], me["system_permissions"], me["roles"]) == (STRANGER, "patient_advocate", [])
    assert me["competencies"] == ["access_patient_records"]
    assert desk.may_read(person)
    assert person.get(desk.url("letters", second)).status_code == 404
    (grant,) = desk.grants()
    assert (grant["granted_by_user_id"], grant["user_id"]) == (desk.patient.id, person.id)
    (invite,) = desk.invites()
    assert (invite["status"], invite["accepted_by_user_id"]) == ("accepted", person.id)
    (row,) = desk.clinic.audited("invite:accept")
    assert (row.actor_user_id, row.patient_id) == (person.id, desk.patient_id)


def test_used_token_is_400(desk: Desk) -> None:
    """gap: invites cannot be limited to one use."""
    token = desk.token()
    assert desk.accept(token, **NEWCOMER).status_code == 200
    again = desk.accept(token, username="second", password=PASSWORD)
    assert (again.status_code, again.json()["detail"]) == INVALID
    assert len(desk.grants()) == 1
    (refusal,) = [row for row in desk.clinic.audited("invite:accept") if row.outcome == "refused"]
    assert (refusal.reason, refusal.patient_id) == ("used", desk.patient_id)


def test_unknown_token_is_400(desk: Desk) -> None:
    for token in ("", "x", "a" * 43, "eyJhbGciOiJub25lIn0.e30."):
        answer = desk.accept(token, **NEWCOMER)
        assert (answer.status_code, answer.json()["detail"]) == INVALID
        assert answer.json()["error_code"] == "invalid_invite_token"


@pytest.mark.parametrize("level", [Level.PATIENT, Level.STAFF, Level.PATIENT_ADVOCATE])
def test_existing_account_keeps_its_level_and_sees_the_patient(desk: Desk, level: Level) -> None:
    """gap: for an existing patient or staff account the grant opens nothing; gap: email match is case-sensitive."""
    person = desk.clinic.person("doctor", level=level, profession="general_practitioner")
    accounts = count(desk.clinic, UserAccount)
    assert not desk.may_read(person)
    answer = desk.accept(desk.token(" DOCTOR@Example.ORG"), username="other", password="ignored-password")
    assert answer.json() == {"status": "access_granted", "user_id": person.id, "redirect": "/app/"}
    assert desk.may_read(person), "the login there is sees it from the next request on"
    me = person.get("/api/auth/me").json()
    assert (me["username"], me["system_permissions"]) == ("doctor", level.value)
    assert person.sign_in("ignored-password").status_code == 400
    assert count(desk.clinic, UserAccount) == accounts
    assert desk.grants()[0]["user_type"] == level.value


def test_existing_account_needs_no_username(desk: Desk) -> None:
    person = desk.clinic.clinician(username="doctor")
    assert desk.accept(desk.token("doctor@example.org"), username="", password="").status_code == 200
    assert desk.may_read(person)


def test_disabled_account_is_refused_and_the_invite_stays(desk: Desk) -> None:
    person = desk.clinic.clinician(username="doctor")
    set_account(desk.clinic, person, is_active=False)
    token = desk.token("doctor@example.org")
    answer = desk.accept(token)
    assert (answer.status_code, answer.json()["detail"]) == INVALID
    assert desk.grants() == []
    assert desk.clinic.audited("invite:accept")[0].reason == "account_disabled"
    set_account(desk.clinic, person, is_active=True)
    assert desk.accept(token).status_code == 200


def test_newcomer_needs_username_and_password(desk: Desk) -> None:
    token = desk.token()
    for fields in ({}, {"username": "x"}, {"password": PASSWORD}, {"username": " ", "password": ""}):
        answer = desk.accept(token, **fields)
        assert answer.status_code == 422
        assert answer.json()["detail"] == "username and password required for new registration"
    assert desk.accept(token, **NEWCOMER).status_code == 200, "the invite is not used up"


def test_password_follows_the_registration_rule(desk: Desk) -> None:
    """gap: no password rule."""
    token = desk.token()
    short = desk.accept(token, username="relative", password="12345")
    assert (short.status_code, short.json()["error_code"]) == (400, "password_too_short")
    assert desk.accept(token, username="relative", password="x" * 129).status_code == 422
    assert desk.accept(token, username="relative", password="123456").status_code == 200


def test_taken_username_is_409_whatever_its_case(desk: Desk) -> None:
    desk.clinic.person("Relative", is_signed_in=False)
    token = desk.token("new@example.org")
    answer = desk.accept(token, **NEWCOMER)
    assert (answer.status_code, answer.json()["detail"]) == (409, "Username already taken")
    assert desk.accept(token, username="other", password=PASSWORD).status_code == 200


MALFORMED_ACCEPTANCES: list[dict[str, Any]] = [
    {"token": None},
    {"token": 1},
    {"token": "x" * 513},
    {"token": "\x00"},
    {"token": "\ud800"},
    {"username": "a\x00b"},
    {"username": "a\nb"},
    {"username": "x" * 151},
    {"username": 1},
    {"password": ["x"]},
    {"password": "\ud800"},
    {"permission": "admin"},
    {"email": "other@example.org"},
]


def test_malformed_acceptance_is_422_and_uses_nothing_up(desk: Desk) -> None:
    token = desk.token()
    for fields in MALFORMED_ACCEPTANCES:
        content = json.dumps({"token": token, **NEWCOMER} | fields).encode()
        headers = {"content-type": "application/json"}
        answer = desk.clinic.client.post("/api/accept-invite", content=content, headers=headers)
        assert answer.status_code == 422, fields
    assert desk.accept(token, **NEWCOMER).status_code == 200


def test_unknown_query_and_foreign_origin_are_refused(desk: Desk) -> None:
    token = desk.token()
    body = {"token": token, **NEWCOMER}
    client = desk.clinic.client
    assert client.post("/api/accept-invite?token=x", json=body).status_code == 422
    foreign = client.post("/api/accept-invite", json=body, headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["error_code"]) == (403, "foreign_origin")
    assert desk.invites()[0]["status"] == "pending"


def test_wrong_tokens_from_one_source_are_429(desk: Desk) -> None:
    """gap: no rate limit."""
    token = desk.token()
    statuses = [desk.accept("wrong").status_code for _ in range(11)]
    assert statuses == [400] * 10 + [429]
    late = desk.accept(token, **NEWCOMER)
    assert late.status_code == 429
    assert "Retry-After" in late.headers


@pytest.mark.parametrize("has_account", [True, False])
def test_of_parallel_acceptances_one_wins(desk: Desk, *, has_account: bool) -> None:
    if has_account:
        desk.clinic.clinician(username="relative")
    accounts = count(desk.clinic, UserAccount)
    token = desk.token()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: desk.accept(token, username=f"r{n}", password=PASSWORD), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5
    assert count(desk.clinic, ExternalAccess) == 1
    assert count(desk.clinic, UserAccount) == accounts + (not has_account)


def test_parallel_acceptances_of_two_invites_make_one_account_and_one_grant(desk: Desk) -> None:
    tokens = [desk.token(), desk.token(STRANGER.upper(), by=desk.admin)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda token: desk.accept(token, **NEWCOMER), tokens))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.json()["status"] for answer in answers} == {"registered", "access_granted"}
    assert len({answer.json()["user_id"] for answer in answers}) == 1
    assert count(desk.clinic, ExternalAccess) == 1


def test_second_invite_to_who_has_access_changes_nothing(desk: Desk) -> None:
    person = desk.newcomer()
    before = desk.grants()
    answer = desk.accept(desk.token(by=desk.admin))
    assert (answer.status_code, answer.json()["status"]) == (200, "access_granted")
    assert desk.grants() == before
    assert desk.may_read(person)


def test_one_person_holds_grants_of_two_patients(desk: Desk) -> None:
    person = desk.newcomer()
    second = desk.clinic.patient()
    other = desk.patient_account("other", second)
    token = other.post(desk.url("invite-external", second), {"email": STRANGER, "user_type": "external_hcp"}).json()
    assert desk.accept(token["token"]).json()["user_id"] == person.id
    assert person.get(desk.url("letters", second)).status_code == 200
    assert desk.revoke(person.id).status_code == 200
    assert not desk.may_read(person)
    assert person.get(desk.url("letters", second)).status_code == 200


def test_invite_dies_with_the_right_of_who_sent_it(desk: Desk) -> None:
    tokens = {"patient": desk.token(), "admin": desk.token(by=desk.admin)}

    async def unlink(unit: Unit) -> None:
        await identity.link_patient(unit, Actor.job("test"), UserId(desk.patient.id), None)

    desk.clinic.in_unit(unlink)
    set_account(desk.clinic, desk.admin, permission_level="staff")
    for token in tokens.values():
        answer = desk.accept(token, **NEWCOMER)
        assert (answer.status_code, answer.json()["error_code"]) == (410, "invite_gone")
    assert {row.reason for row in desk.clinic.audited("invite:accept")} == {"inviter_lost_right"}
    assert count(desk.clinic, ExternalAccess) == 0
    set_account(desk.clinic, desk.admin, permission_level="admin", is_active=False)
    assert desk.accept(tokens["admin"], **NEWCOMER).status_code == 410


def test_invite_to_a_deactivated_record_is_410(desk: Desk) -> None:
    token = desk.token()
    deactivate(desk.clinic, desk.patient_id)
    assert desk.accept(token, **NEWCOMER).status_code == 410
    assert count(desk.clinic, ExternalAccess) == 0


def test_accepting_works_while_clinical_services_are_off(desk: Desk, request: pytest.FixtureRequest) -> None:
    token = desk.token()
    request.getfixturevalue("clinical_off")
    assert desk.accept(token, **NEWCOMER).status_code == 200


def test_token_is_in_no_audit_row_and_no_answer_after_the_first(desk: Desk) -> None:
    token = desk.token()
    for answer in (desk.accept(token, username="x"), desk.accept(token, **NEWCOMER)):
        assert token not in answer.text
    for act in ("invite:send", "invite:accept"):
        assert token not in str(desk.clinic.audited(act))
    assert token not in str(desk.invites())
    assert datetime.datetime.fromisoformat(desk.invites()[0]["expires_at"]).tzinfo is not None
