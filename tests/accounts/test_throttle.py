"""How often one may try: guessers are stopped, strangers lock nobody out, a clinic is not stopped by itself."""

from collections import Counter
from typing import Any

import pytest
import time_machine
from starlette.testclient import TestClient

from quill.app import create_app
from quill.auth.throttle import network_of, reset_mails_per_address
from quill.settings import Settings
from tests.accounts.browsers import (
    at_once,
    elsewhere,
    enable_totp,
    like,
    set_up_totp,
    stranger,
    told,
    tries,
    wrong_code,
)
from tests.clinic import PASSWORD, Clinic


def statuses(answers: list[Any]) -> Counter[int]:
    """Return how many answers had which status."""
    return Counter(answer.status_code for answer in answers)


def test_sixth_wrong_password_within_a_minute_is_not_looked_at(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person(is_signed_in=False)
    assert statuses([tries(person.client, person.username) for _ in range(5)]) == {400: 5}
    answer = person.sign_in()
    assert told(answer) == (429, "Too many attempts; try again later")
    assert 50 <= int(answer.headers["retry-after"]) <= 60
    later.shift(int(answer.headers["retry-after"]) + 1)
    assert person.sign_in().status_code == 200


def test_unknown_username_is_throttled_like_a_known_one(clinic: Clinic) -> None:
    assert statuses([tries(clinic.client, "nobody") for _ in range(7)]) == {400: 5, 429: 2}


def test_stranger_cannot_lock_somebody_out(clinic: Clinic) -> None:
    """Decisions, rule 9: throttled per account and per source, never so that a stranger can lock somebody out."""
    person = clinic.person(is_signed_in=False)
    for source in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"):
        guesser = stranger(clinic, source)
        assert statuses([tries(guesser, person.username.upper()) for _ in range(8)]) == {400: 5, 429: 3}
    assert person.sign_in().status_code == 200


def test_parallel_guesses_cannot_slip_through(clinic: Clinic) -> None:
    person = clinic.person(is_signed_in=False)
    answers = at_once(lambda _: tries(stranger(clinic), person.username), range(16))
    assert statuses(answers) == {400: 5, 429: 11}


def test_guessing_at_many_accounts_from_one_address_is_stopped(clinic: Clinic) -> None:
    person = clinic.person(is_signed_in=False)
    guesser = stranger(clinic, "192.0.2.1")
    answers = at_once(lambda number: tries(stranger(clinic, "192.0.2.1"), f"user{number}"), range(34))
    assert statuses(answers) == {400: 30, 429: 4}
    assert tries(guesser, person.username, PASSWORD).status_code == 429
    assert person.sign_in().status_code == 200


def test_clinic_behind_one_address_is_not_stopped_by_its_own_sign_ins(clinic: Clinic) -> None:
    person, colleague = clinic.person(), clinic.person()
    answers = [elsewhere(clinic, who).sign_in() for _ in range(20) for who in (person, colleague)]
    assert statuses(answers) == {200: 40}


def test_hammering_at_one_account_does_not_use_up_what_the_address_shares(clinic: Clinic) -> None:
    victim, colleague = clinic.person(is_signed_in=False), clinic.person(is_signed_in=False)
    assert statuses([tries(victim.client, victim.username) for _ in range(60)]) == {400: 5, 429: 55}
    assert colleague.sign_in().status_code == 200


def test_own_success_does_not_wipe_out_the_failures_of_an_address(clinic: Clinic) -> None:
    person = clinic.person(is_signed_in=False)
    for number in range(30):
        assert tries(clinic.client, f"user{number}").status_code == 400
        if number % 10 == 0:
            assert person.sign_in().status_code == 200
    assert tries(clinic.client, "one.more").status_code == 429


def test_forwarding_header_does_not_help_a_guesser(clinic: Clinic) -> None:
    """gap: the bucket key is chosen by the client through X-Forwarded-For, so every limit can be sidestepped."""
    answers = [
        clinic.client.post(
            "/api/auth/login",
            json={"username": "somebody", "password": "wrong"},
            headers={"x-forwarded-for": f"192.0.2.{number}"},
        )
        for number in range(7)
    ]
    assert statuses(answers) == {400: 5, 429: 2}


def test_trusted_proxy_tells_sources_apart(settings: Settings) -> None:
    kept = like(settings, trusted_proxies=["10.0.0.0/8"])
    with TestClient(create_app(kept), client=("10.1.1.1", 1)) as client:
        for source in ("192.0.2.1", "192.0.2.2"):
            # What stands left of the proxy's own entry is the caller's invention.
            headers = [{"x-forwarded-for": f"203.0.113.{number}, {source}"} for number in range(6)]
            body = {"username": "somebody", "password": "wrong"}
            answers = [client.post("/api/auth/login", json=body, headers=one) for one in headers]
            assert statuses(answers) == {400: 5, 429: 1}


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
    ],
)
def test_addresses_of_one_subscriber_are_one_source(source: str, network: str) -> None:
    assert network_of(source) == network


def test_wrong_codes_count_at_sign_in(clinic: Clinic, later: time_machine.Traveller) -> None:
    """Decisions, rule 9: wrong TOTP codes count."""
    person = clinic.person()
    secret, _ = enable_totp(person)
    browser = elsewhere(clinic, person)
    answers = [browser.sign_in(totp_code=wrong_code(secret)) for _ in range(6)]
    assert statuses(answers) == {400: 5, 429: 1}
    later.shift(61)
    assert browser.sign_in(totp_code=wrong_code(secret)).status_code == 400


def test_being_asked_for_a_code_does_not_count(clinic: Clinic) -> None:
    person = clinic.person()
    enable_totp(person)
    assert statuses([elsewhere(clinic, person).sign_in() for _ in range(8)]) == {400: 8}


def test_codes_cannot_be_guessed_from_everywhere_at_once(clinic: Clinic) -> None:
    """Who has the password is no stranger; a new password frees the account at once."""
    person = clinic.person()
    secret, codes = enable_totp(person)
    for number in range(10):
        thief = elsewhere(clinic, person, f"192.0.2.{number}")
        assert thief.sign_in(totp_code=wrong_code(secret)).status_code == 400
    answer = elsewhere(clinic, person, "192.0.2.99").sign_in(totp_code=codes[0])
    assert answer.status_code == 429
    assert 3500 < int(answer.headers["retry-after"]) <= 3600
    body = {"current_password": PASSWORD, "new_password": "a new password"}
    assert person.post("/api/auth/change-password", body).status_code == 200
    assert elsewhere(clinic, person).sign_in("a new password", totp_code=codes[0]).status_code == 200


def test_wrong_current_passwords_are_limited(clinic: Clinic, later: time_machine.Traveller) -> None:
    """gap: no attempt limit (change_password)."""
    person, colleague = clinic.person(), clinic.person()
    wrong = {"current_password": "wrong", "new_password": "a new password"}
    right = {"current_password": PASSWORD, "new_password": "a new password"}
    answers = at_once(lambda _: person.post("/api/auth/change-password", wrong), range(8))
    assert statuses(answers) == {400: 5, 429: 3}
    assert person.post("/api/auth/change-password", right).status_code == 429
    assert colleague.post("/api/auth/change-password", right).status_code == 200
    later.shift(61)
    assert person.post("/api/auth/change-password", right).status_code == 200


def test_wrong_codes_are_limited_while_setting_up(clinic: Clinic) -> None:
    """gaps: TOTP guesses at totp_verify are unlimited; no attempt limit."""
    person = clinic.person()
    secret = set_up_totp(person)
    answers = at_once(lambda _: person.post("/api/auth/totp/verify", {"code": wrong_code(secret)}), range(8))
    assert statuses(answers) == {400: 5, 429: 3}


@pytest.mark.parametrize(
    ("path", "body", "limit", "status"),
    [
        ("register", {"username": "", "email": "", "password": ""}, 3, 400),
        ("forgot-password", {"email": "nobody@example.org"}, 3, 200),
        ("reset-password", {"token": "x", "new_password": "y"}, 5, 400),
    ],
)
def test_calls_of_strangers_are_limited_by_source(
    clinic: Clinic, path: str, body: dict[str, str], limit: int, status: int
) -> None:
    """Contract, rate_limits: every call that reaches the handler, successful or not; 422 does not count."""
    for _ in range(limit + 1):
        assert clinic.client.post(f"/api/auth/{path}", json={}).status_code == 422
    answers = at_once(lambda _: stranger(clinic).post(f"/api/auth/{path}", json=body), range(limit + 2))
    assert statuses(answers) == {status: limit, 429: 2}
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
    assert stranger(clinic, "192.0.2.1").post(f"/api/auth/{path}", json=body).status_code == status


def test_last_reset_mail_outlives_the_limit_on_mails() -> None:
    """So a stranger who uses the limit up leaves the person with a link that works."""
    for lifetime in (60, 1800, 3600):
        assert reset_mails_per_address(lifetime).get_expiry() <= lifetime / 2
