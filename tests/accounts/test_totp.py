"""The second factor: setting up, signing in with it, recovery codes, turning it off."""

import base64
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from starlette.testclient import TestClient

from quill.actor import Actor
from quill.app import create_app
from quill.auth import totp
from quill.auth.models import RecoveryCode
from quill.kit.ids import UserId
from quill.settings import Settings
from quill.unit import Unit
from tests.accounts.browsers import (
    account,
    alter,
    at_once,
    code_at,
    elsewhere,
    enable_totp,
    is_signed_in,
    like,
    refused,
    set_up_totp,
    told,
    tries,
    wrong_code,
)
from tests.clinic import PASSWORD, Clinic, Person

FRESH = 15 * 60


def verify(person: Person, code: str) -> Any:
    """Give a code to turn the second factor on."""
    return person.post("/api/auth/totp/verify", {"code": code})


def sign_in(clinic: Clinic, person: Person, code: str, source: str = "testclient") -> Any:
    """Sign in at a fresh browser with a code."""
    return elsewhere(clinic, person, source).sign_in(totp_code=code)


# --- setting up


def test_setup_gives_an_address_for_the_app_and_changes_nothing_yet(clinic: Clinic) -> None:
    person = clinic.person("dr. o'neill@clinic")
    answer = person.post("/api/auth/totp/setup")
    assert set(answer.json()) == {"provision_uri"}
    secret = set_up_totp(person)
    assert answer.json()["provision_uri"] == (
        f"otpauth://totp/Quill:dr.%20o%27neill%40clinic?secret={secret}&issuer=Quill"
    )
    assert len(secret) == 32
    assert len(base64.b32decode(secret)) == 20
    assert person.get("/api/auth/me").json()["totp_enabled"] is False
    assert elsewhere(clinic, person).sign_in().status_code == 200


def test_setup_twice_gives_the_same_secret_until_it_is_verified(clinic: Clinic) -> None:
    person = clinic.person()
    answers = at_once(lambda _: person.post("/api/auth/totp/setup"), range(3))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["provision_uri"] for answer in answers}) == 1


def test_setup_is_refused_once_it_is_enabled(clinic: Clinic) -> None:
    """gap: works after TOTP is enabled too, handing the live secret to whoever holds the login."""
    person = clinic.person()
    secret, _ = enable_totp(person)
    answer = person.post("/api/auth/totp/setup")
    assert refused(answer) == (409, "totp_already_enabled")
    assert secret not in answer.text


def test_secret_is_not_readable_in_the_database(clinic: Clinic) -> None:
    """gap: secret stored in clear."""
    person, other = clinic.person(), clinic.person()
    secret = set_up_totp(person)
    sealed = account(clinic, person).totp_secret
    assert sealed is not None
    assert secret not in sealed
    # A sealed secret moved to another account does not open there: that account gets a new one.
    alter(clinic, other, totp_secret=sealed)
    assert set_up_totp(other) != secret


# --- verifying


def test_verifying_turns_it_on_and_gives_ten_recovery_codes_once(clinic: Clinic) -> None:
    """gap: TOTP … no recovery codes are issued."""
    person = clinic.person()
    secret = set_up_totp(person)
    answer = verify(person, code_at(secret, steps=-1))
    assert told(answer) == (200, "enabled")
    assert len(set(answer.json()["recovery_codes"])) == 10
    assert person.get("/api/auth/me").json()["totp_enabled"] is True
    again = verify(person, code_at(secret))
    assert told(again) == (200, "enabled")
    assert again.json()["recovery_codes"] == []


def test_verifying_without_setup_is_refused(clinic: Clinic) -> None:
    answer = verify(clinic.person(), "123456")
    assert told(answer) == (400, "No TOTP secret set")
    assert refused(answer) == (400, "no_totp_secret")


def test_wrong_code_does_not_turn_it_on(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person()
    secret = set_up_totp(person)
    for code in ("", "12345", "1234567", "abcdef", "\uff11" * 6, wrong_code(secret)):
        later.shift(61)
        answer = verify(person, code)
        assert told(answer) == (400, "Invalid code")
        assert refused(answer) == (400, "invalid_totp")
    assert person.get("/api/auth/me").json()["totp_enabled"] is False


def test_clocks_may_differ_by_one_step(clinic: Clinic) -> None:
    """gap: zero drift tolerance."""
    person = clinic.person()
    secret = set_up_totp(person)
    for steps, status in ((-2, 400), (2, 400), (-1, 200), (0, 200), (1, 200)):
        assert verify(person, code_at(secret, steps=steps)).status_code == status, steps


def test_same_code_verifies_once(clinic: Clinic) -> None:
    person = clinic.person()
    code = code_at(set_up_totp(person))
    answers = at_once(lambda _: verify(person, code), range(4))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]
    assert sum(len(answer.json().get("recovery_codes", [])) for answer in answers) == 10


def test_code_may_be_grouped(clinic: Clinic) -> None:
    person = clinic.person()
    code = code_at(set_up_totp(person))
    assert verify(person, f" {code[:3]} {code[3:]} ").status_code == 200


# --- signing in


def test_sign_in_asks_for_a_code_and_takes_a_right_one(clinic: Clinic) -> None:
    person = clinic.person(roles=["Clinician"])
    secret, _ = enable_totp(person)
    browser = elsewhere(clinic, person)
    for absent in ({}, {"totp_code": ""}, {"totp_code": " "}, {"totp_code": None}):
        answer = browser.sign_in(**absent)
        assert told(answer) == (400, "Two-factor required")
        assert refused(answer) == (400, "two_factor_required")
        assert "set-cookie" not in answer.headers
    answer = browser.sign_in(totp_code=wrong_code(secret))
    assert told(answer) == (400, "Invalid two-factor code")
    assert refused(answer) == (400, "invalid_totp")
    assert browser.sign_in(totp_code=code_at(secret)).status_code == 200
    assert is_signed_in(browser)


def test_wrong_password_is_not_asked_for_a_code(clinic: Clinic) -> None:
    person = clinic.person()
    secret, _ = enable_totp(person)
    answer = tries(elsewhere(clinic, person).client, person.username, totp_code=code_at(secret))
    assert told(answer) == (400, "Invalid credentials")


def test_code_is_ignored_where_the_second_factor_is_off(clinic: Clinic) -> None:
    assert sign_in(clinic, clinic.person(), "123456").status_code == 200


def test_code_works_once(clinic: Clinic, later: time_machine.Traveller) -> None:
    """gap: a TOTP code may be replayed inside its 30 s step."""
    person = clinic.person()
    secret, _ = enable_totp(person)
    code = code_at(secret)
    assert sign_in(clinic, person, code).status_code == 200
    assert refused(sign_in(clinic, person, code)) == (400, "invalid_totp")
    # Nor does an earlier one, though its step is still near.
    assert refused(sign_in(clinic, person, code_at(secret, steps=-1))) == (400, "invalid_totp")
    later.shift(30)
    assert sign_in(clinic, person, code_at(secret)).status_code == 200


def test_of_many_who_use_one_code_at_once_one_gets_in(clinic: Clinic) -> None:
    """Decisions, rule 10: each step accepted once, atomic."""
    person = clinic.person()
    secret, _ = enable_totp(person)
    code = code_at(secret)
    answers = at_once(lambda number: sign_in(clinic, person, code, f"192.0.2.{number}"), range(6))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5


def test_code_that_verified_does_not_sign_in(clinic: Clinic) -> None:
    person = clinic.person()
    code = code_at(set_up_totp(person))
    assert verify(person, code).status_code == 200
    assert refused(sign_in(clinic, person, code)) == (400, "invalid_totp")


# --- recovery codes


def test_recovery_code_signs_in_once(clinic: Clinic) -> None:
    person = clinic.person()
    _, codes = enable_totp(person)
    assert sign_in(clinic, person, codes[3]).status_code == 200
    assert refused(sign_in(clinic, person, codes[3])) == (400, "invalid_totp")
    assert sign_in(clinic, person, codes[4].upper().replace("-", " ")).status_code == 200


def test_of_many_who_use_one_recovery_code_at_once_one_gets_in(clinic: Clinic) -> None:
    person = clinic.person()
    _, codes = enable_totp(person)
    answers = at_once(lambda number: sign_in(clinic, person, codes[0], f"192.0.2.{number}"), range(6))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5


def test_recovery_code_of_somebody_else_is_wrong(clinic: Clinic) -> None:
    person, other = clinic.person(), clinic.person()
    enable_totp(person)
    _, codes = enable_totp(other)
    assert refused(sign_in(clinic, person, codes[0])) == (400, "invalid_totp")
    assert sign_in(clinic, other, codes[0]).status_code == 200


def test_recovery_codes_are_kept_as_digests(clinic: Clinic) -> None:
    _, codes = enable_totp(clinic.person())

    async def read(unit: Unit) -> list[Any]:
        return list(await unit.session.execute(sa.select(RecoveryCode.__table__)))

    rows = clinic.in_unit(read)
    assert len(rows) == 10
    assert not any(code.replace("-", "") in repr(rows) for code in codes)


# --- turning it off


def test_fresh_sign_in_turns_it_off_and_ends_other_logins(clinic: Clinic) -> None:
    """gap: password change, password reset, TOTP disable and permission change leave existing tokens valid."""
    person = clinic.person()
    secret, codes = enable_totp(person)
    other = elsewhere(clinic, person)
    other.sign_in(totp_code=codes[0])
    assert told(person.post("/api/auth/totp/disable")) == (200, "disabled")
    assert is_signed_in(person)
    assert not is_signed_in(other)
    assert person.get("/api/auth/me").json()["totp_enabled"] is False
    assert account(clinic, person).totp_secret is None
    assert elsewhere(clinic, person).sign_in().status_code == 200
    assert set_up_totp(person) != secret


def test_turning_it_off_twice_is_harmless(clinic: Clinic) -> None:
    person = clinic.person()
    other = elsewhere(clinic, person)
    other.sign_in()
    assert [person.post("/api/auth/totp/disable", {}).status_code for _ in range(2)] == [200, 200]
    assert is_signed_in(other)


def test_recovery_codes_die_with_it(clinic: Clinic) -> None:
    person = clinic.person()
    _, old = enable_totp(person)
    person.post("/api/auth/totp/disable")
    _, new = enable_totp(person)
    assert refused(sign_in(clinic, person, old[0])) == (400, "invalid_totp")
    assert sign_in(clinic, person, new[0]).status_code == 200


def test_old_sign_in_needs_the_password_to_turn_it_off(clinic: Clinic, later: time_machine.Traveller) -> None:
    """gap: asks for neither the password nor a current code."""
    person = clinic.person()
    enable_totp(person)
    later.shift(FRESH - 60)
    # A refresh keeps the login going and does not make it fresh.
    assert person.client.post("/api/auth/refresh").status_code == 200
    later.shift(61)
    for body in (None, {}, {"password": ""}, {"password": None}, {"password": "wrong"}):
        assert refused(person.post("/api/auth/totp/disable", body)) == (403, "reauthentication_required")
    assert person.get("/api/auth/me").json()["totp_enabled"] is True
    assert told(person.post("/api/auth/totp/disable", {"password": PASSWORD})) == (200, "disabled")
    assert person.get("/api/auth/me").json()["totp_enabled"] is False


def test_guesses_at_the_password_are_limited_there_too(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person()
    later.shift(FRESH)
    person.client.post("/api/auth/refresh")
    answers = [person.post("/api/auth/totp/disable", {"password": "wrong"}).status_code for _ in range(6)]
    assert answers == [403] * 5 + [429]


def test_admin_s_reset_turns_it_off_and_ends_every_login(clinic: Clinic) -> None:
    """gap: no admin can disable it for a locked-out user."""
    person, admin = clinic.person(), clinic.admin()
    enable_totp(person)

    async def act(unit: Unit) -> None:
        await totp.disable_for(unit, Actor.job("admin"), UserId(person.id))

    clinic.in_unit(act)
    assert not is_signed_in(person)
    assert is_signed_in(admin)
    assert person.sign_in().status_code == 200


MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("verify", {}),
    ("verify", {"code": 123456}),
    ("verify", {"code": "1" * 33}),
    ("verify", {"code": "12\x0034"}),
    ("verify", {"code": "123456", "user_id": 1}),
    ("disable", {"password": "x" * 129}),
    ("disable", {"password": 5}),
    ("disable", {"code": "123456"}),
]


def test_malformed_bodies_are_refused_and_change_nothing(clinic: Clinic) -> None:
    person = clinic.person()
    enable_totp(person)
    for path, body in MALFORMED:
        assert person.post(f"/api/auth/totp/{path}", body).status_code == 422, (path, body)
    assert person.get("/api/auth/me").json()["totp_enabled"] is True


# --- keys and vectors


def test_secret_survives_the_rotation_of_the_key(settings: Settings, later: time_machine.Traveller) -> None:
    old, new = "old key " * 5, "new key " * 5
    with TestClient(create_app(like(settings, secret_key=old))) as client:
        person = Clinic(client).person()
        secret, codes = enable_totp(person)
    both = like(settings, secret_key=new, previous_secret_key=old)
    with TestClient(create_app(both)) as client:
        later.shift(60)
        assert sign_in(Clinic(client), person, code_at(secret)).status_code == 200
    # Used once under the new key, it is sealed with that one alone.
    with TestClient(create_app(like(settings, secret_key=new))) as client:
        later.shift(60)
        assert sign_in(Clinic(client), person, code_at(secret)).status_code == 200
    with TestClient(create_app(like(settings, secret_key="third key " * 4))) as client:
        later.shift(60)
        # A lost key is trouble of the house, not a wrong code; the codes on paper still work.
        assert refused(sign_in(Clinic(client), person, code_at(secret))) == (503, "second_factor_unreadable")
        assert sign_in(Clinic(client), person, codes[0]).status_code == 200


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")],
)
def test_codes_are_those_of_the_standard(seconds: int, code: str) -> None:
    """RFC 6238, appendix B, SHA-1, last six of the eight digits."""
    secret = base64.b32encode(b"12345678901234567890").decode()
    step = seconds // 30
    assert totp.matching_step(secret, code, step) == step
    assert totp.matching_step(secret, code, step + 1) == step
    assert totp.matching_step(secret, code, step + 2) is None
