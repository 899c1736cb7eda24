"""Refresh, CSRF, sign-out: how long tokens live, and what ends them."""

from typing import Any

import jwt
import sqlalchemy as sa
import time_machine
from starlette.testclient import TestClient

from quill.app import create_app
from quill.auth.models import Login
from quill.auth.service import GRACE_SECONDS, Authenticator
from quill.auth.tokens import TokenType
from quill.settings import Settings
from quill.unit import Unit
from tests.accounts.browsers import (
    alter,
    at_once,
    elsewhere,
    is_signed_in,
    like,
    refused,
    stranger,
    told,
)
from tests.clinic import Clinic, Person

QUARTER_OF_AN_HOUR = 15 * 60
WEEK = 7 * 24 * 3600


def jar(person: Person) -> dict[str, str]:
    """Return a copy of a browser's cookies."""
    return {cookie.name: cookie.value or "" for cookie in person.client.cookies.jar}


def with_cookies(cookies: dict[str, str]) -> dict[str, str]:
    """Return the header of a caller who sends cookies whatever their age and path, as a thief would."""
    return {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}


def refresh_with(clinic: Clinic, token: str) -> Any:
    """Refresh with a token from anywhere."""
    return stranger(clinic).post("/api/auth/refresh", headers={"cookie": f"refresh_token={token}"})


def me_with(clinic: Clinic, token: str) -> Any:
    """Ask who one is with an access token from anywhere."""
    return stranger(clinic).get("/api/auth/me", headers={"cookie": f"access_token={token}"})


def logout_with(clinic: Clinic, cookies: dict[str, str], csrf: str | None = None) -> Any:
    """Sign out with cookies from anywhere."""
    headers = with_cookies(cookies) | {"x-csrf-token": csrf or cookies.get("XSRF-TOKEN", "")}
    return stranger(clinic).post("/api/auth/logout", headers=headers)


# --- refresh


def test_refresh_answers_ok_and_renews_every_cookie(clinic: Clinic) -> None:
    person = clinic.person()
    before = jar(person)
    answer = person.client.post("/api/auth/refresh")
    assert told(answer) == (200, "ok")
    after = jar(person)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    assert is_signed_in(person)


def test_refresh_takes_rights_as_they_are_now(clinic: Clinic) -> None:
    person = clinic.person()
    alter(clinic, person, permission_level="admin")
    person.client.post("/api/auth/refresh")
    assert person.get("/api/auth/me").json()["system_permissions"] == "admin"


def test_replayed_refresh_token_ends_the_whole_login(clinic: Clinic, later: time_machine.Traveller) -> None:
    """gap: no rotation state, so a stolen refresh token is good for ever if used weekly and reuse is undetectable."""
    person = clinic.person()
    stolen = jar(person)["refresh_token"]
    assert person.client.post("/api/auth/refresh").status_code == 200
    newest = jar(person)
    later.shift(GRACE_SECONDS + 1)
    assert told(refresh_with(clinic, stolen)) == (401, "Bad refresh token")
    assert told(person.get("/api/auth/me")) == (401, "Invalid token")
    assert told(refresh_with(clinic, newest["refresh_token"])) == (401, "Bad refresh token")


def test_replay_leaves_the_person_s_other_logins_alone(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person()
    other = elsewhere(clinic, person)
    other.sign_in()
    stolen = jar(person)["refresh_token"]
    person.client.post("/api/auth/refresh")
    later.shift(GRACE_SECONDS + 1)
    assert refresh_with(clinic, stolen).status_code == 401
    assert not is_signed_in(person)
    assert is_signed_in(other)


def test_two_tabs_may_refresh_with_the_same_token_at_once(clinic: Clinic) -> None:
    person = clinic.person()
    token = jar(person)["refresh_token"]
    answers = at_once(lambda _: refresh_with(clinic, token), range(4))
    assert [answer.status_code for answer in answers] == [200] * 4
    generations = {
        jwt.decode(answer.cookies["access_token"], options={"verify_signature": False})["gen"] for answer in answers
    }
    assert generations == {2}
    assert len(clinic.audited("token:refresh")) == 1
    assert all(me_with(clinic, answer.cookies["access_token"]).status_code == 200 for answer in answers)


def test_token_two_refreshes_old_is_not_forgiven(clinic: Clinic) -> None:
    person = clinic.person()
    token = jar(person)["refresh_token"]
    person.client.post("/api/auth/refresh")
    person.client.post("/api/auth/refresh")
    assert told(refresh_with(clinic, token)) == (401, "Bad refresh token")
    assert not is_signed_in(person)


def test_access_token_of_before_a_refresh_dies_after_the_grace(clinic: Clinic, later: time_machine.Traveller) -> None:
    """Contract, refresh: each use invalidates the old tokens."""
    person = clinic.person()
    old = jar(person)["access_token"]
    person.client.post("/api/auth/refresh")
    assert me_with(clinic, old).status_code == 200
    later.shift(GRACE_SECONDS + 1)
    assert told(me_with(clinic, old)) == (401, "Invalid token")
    assert is_signed_in(person)


def test_refresh_without_a_cookie_or_with_a_bad_one_is_refused(clinic: Clinic) -> None:
    person = clinic.person()
    assert told(stranger(clinic).post("/api/auth/refresh")) == (401, "No refresh token")
    for token in ("rubbish", "a.b.c", jar(person)["access_token"], jar(person)["XSRF-TOKEN"]):
        assert told(refresh_with(clinic, token)) == (401, "Bad refresh token")
    assert is_signed_in(person)


def test_login_slides_by_a_week_and_ends_after_one_unused(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person()
    later.shift(WEEK - 60)
    assert person.client.post("/api/auth/refresh").status_code == 200
    later.shift(WEEK - 60)
    assert person.client.post("/api/auth/refresh").status_code == 200
    token = jar(person)["refresh_token"]
    later.shift(WEEK + 1)
    assert told(refresh_with(clinic, token)) == (401, "Bad refresh token")


def test_disabled_person_is_told_so_at_refresh_and_elsewhere(clinic: Clinic) -> None:
    person = clinic.person()
    alter(clinic, person, is_active=False)
    assert told(person.get("/api/auth/me")) == (401, "Inactive user")
    assert told(person.client.post("/api/auth/refresh")) == (401, "Inactive user")


def test_login_that_refreshes_all_the_time_is_slowed_down(clinic: Clinic) -> None:
    """gap: no rate limit (refresh)."""
    person, colleague = clinic.person(), clinic.person()
    statuses = [person.client.post("/api/auth/refresh").status_code for _ in range(31)]
    assert statuses == [200] * 30 + [429]
    assert colleague.client.post("/api/auth/refresh").status_code == 200


# --- tokens


def test_access_token_lives_a_quarter_of_an_hour(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person()
    token = jar(person)["access_token"]
    later.shift(QUARTER_OF_AN_HOUR - 5)
    assert me_with(clinic, token).status_code == 200
    later.shift(6)
    assert told(me_with(clinic, token)) == (401, "Invalid token")


def test_one_kind_of_token_is_never_taken_for_another(clinic: Clinic) -> None:
    """gap: the access-token reader ignores token type: a refresh token in the access_token cookie authenticates."""
    person = clinic.person()
    for name in ("refresh_token", "XSRF-TOKEN"):
        assert told(me_with(clinic, jar(person)[name])) == (401, "Invalid token")


def test_tokens_carry_the_claims_of_the_contract_and_no_rights(clinic: Clinic) -> None:
    person = clinic.person()
    for name, kind, seconds in (
        ("access_token", "access", 900),
        ("refresh_token", "refresh", WEEK),
        ("XSRF-TOKEN", "csrf", 900),
    ):
        token = jar(person)[name]
        claims = jwt.decode(token, options={"verify_signature": False})
        assert set(claims) == {"sub", "sid", "gen", "typ", "jti", "iss", "aud", "iat", "exp"}
        assert (claims["sub"], claims["typ"], claims["gen"]) == (str(person.id), kind, 1)
        assert claims["exp"] - claims["iat"] == seconds
        assert jwt.get_unverified_header(token)["kid"]


def test_tokens_belong_to_the_person_and_not_to_the_username(clinic: Clinic) -> None:
    """gap: identity is the username, so renaming voids tokens and re-using a freed username would revive old ones."""
    person = clinic.person("first.owner")
    alter(clinic, person, username="renamed", username_folded="renamed", email_folded="renamed@example.org")
    clinic.person("first.owner", is_signed_in=False)
    assert person.get("/api/auth/me").json()["username"] == "renamed"
    assert person.get("/api/auth/me").json()["id"] == person.id


def test_token_with_a_wrong_claim_is_refused(clinic: Clinic, settings: Settings) -> None:
    person = clinic.person()
    token = jar(person)["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    headers = {"kid": jwt.get_unverified_header(token)["kid"]}

    def signed(**change: Any) -> str:
        return jwt.encode(claims | change, settings.signing_key(), "HS256", headers=headers)

    assert me_with(clinic, signed()).status_code == 200
    for change in ({"iss": "other"}, {"aud": "other"}, {"sid": "nothing"}, {"sub": "999"}, {"exp": 1}, {"gen": 9}):
        assert told(me_with(clinic, signed(**change))) == (401, "Invalid token"), change


def test_unsigned_and_foreign_tokens_are_refused(clinic: Clinic) -> None:
    person = clinic.person()
    claims = jwt.decode(jar(person)["access_token"], options={"verify_signature": False})
    unsigned = jwt.encode(claims, None, "none")  # type: ignore[arg-type]
    foreign = jwt.encode(claims, "x" * 32, "HS256")
    for token in (unsigned, foreign, "rubbish", ""):
        assert me_with(clinic, token).status_code == 401


def test_key_can_be_rotated_without_signing_anybody_out(settings: Settings) -> None:
    """gap: one HS256 secret for everything; no key id, no rotation path."""
    old, new = "old key " * 5, "new key " * 5
    with TestClient(create_app(like(settings, secret_key=old))) as client:
        cookies = jar(Clinic(client).person())
    rotated = like(settings, secret_key=new, previous_secret_key=old)
    with TestClient(create_app(rotated)) as client:
        clinic = Clinic(client)
        assert me_with(clinic, cookies["access_token"]).status_code == 200
        fresh = refresh_with(clinic, cookies["refresh_token"]).cookies["access_token"]
    kids = [jwt.get_unverified_header(token)["kid"] for token in (cookies["access_token"], fresh)]
    assert kids[0] != kids[1]
    with TestClient(create_app(like(settings, secret_key=new))) as client:
        clinic = Clinic(client)
        assert me_with(clinic, fresh).status_code == 200
        assert told(me_with(clinic, cookies["access_token"])) == (401, "Invalid token")


# --- CSRF


def end_a_login(clinic: Clinic, cookies: dict[str, str], csrf: str | None) -> Any:
    """Make a call that changes something, with a CSRF header of one's choice."""
    headers = with_cookies(cookies) | ({"x-csrf-token": csrf} if csrf is not None else {})
    return stranger(clinic).delete("/api/auth/logins/nothing", headers=headers)


def test_change_needs_the_csrf_token_in_header_and_cookie(clinic: Clinic) -> None:
    cookies = jar(clinic.person())
    token = cookies["XSRF-TOKEN"]
    assert told(end_a_login(clinic, cookies, token)) == (404, "Login not found")
    without_cookie = {name: value for name, value in cookies.items() if name != "XSRF-TOKEN"}
    attempts = [(cookies, None), (cookies, ""), (cookies, "other"), (without_cookie, token)]
    attempts.append((cookies | {"XSRF-TOKEN": cookies["access_token"]}, cookies["access_token"]))
    for sent, header in attempts:
        assert told(end_a_login(clinic, sent, header)) == (403, "CSRF failed")


def test_csrf_token_of_another_login_or_person_is_refused(clinic: Clinic) -> None:
    """gap: the token is constant per username, no expiry, no nonce, not bound to a login."""
    person = clinic.person()
    other = elsewhere(clinic, person)
    other.sign_in()
    for foreign in (jar(other)["XSRF-TOKEN"], jar(clinic.person())["XSRF-TOKEN"]):
        cookies = jar(person) | {"XSRF-TOKEN": foreign}
        assert told(end_a_login(clinic, cookies, foreign)) == (403, "CSRF failed")


def test_csrf_token_dies_at_once_with_the_refresh(clinic: Clinic) -> None:
    person = clinic.person()
    old = jar(person)["XSRF-TOKEN"]
    person.client.post("/api/auth/refresh")
    stale = jar(person) | {"XSRF-TOKEN": old}
    assert told(end_a_login(clinic, stale, old)) == (403, "CSRF failed")
    assert told(logout_with(clinic, stale)) == (403, "CSRF failed")
    assert end_a_login(clinic, jar(person), jar(person)["XSRF-TOKEN"]).status_code == 404


def test_expired_csrf_token_is_refused(clinic: Clinic, settings: Settings, later: time_machine.Traveller) -> None:
    person = clinic.person()
    cookies = jar(person)
    later.shift(QUARTER_OF_AN_HOUR + 1)
    auth = Authenticator(settings)
    facts = auth.tokens.read(TokenType.ACCESS, cookies["access_token"], may_be_expired=True)
    cookies["access_token"] = auth.tokens.sign(TokenType.ACCESS, facts)
    assert told(end_a_login(clinic, cookies, cookies["XSRF-TOKEN"])) == (403, "CSRF failed")


CHANGES = [
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/change-password"),
    ("POST", "/api/auth/totp/setup"),
    ("POST", "/api/auth/totp/verify"),
    ("POST", "/api/auth/totp/disable"),
    ("DELETE", "/api/auth/logins/nothing"),
]


def test_every_change_of_one_s_own_account_wants_a_login_and_the_csrf_token(clinic: Clinic) -> None:
    """gaps: no CSRF check (totp_setup, totp_verify); cross-site logout is possible."""
    person = clinic.person()
    for method, path in CHANGES:
        assert refused(stranger(clinic).request(method, path, json={})) == (401, "not_authenticated"), path
        assert refused(person.client.request(method, path, json={})) == (403, "csrf_failed"), path
    assert is_signed_in(person)


# --- sign-out


def test_signing_out_ends_every_token_of_the_login_and_clears_the_cookies(clinic: Clinic) -> None:
    """gap: tokens outlive logout (access up to 15 min, refresh up to 7 days)."""
    person = clinic.person()
    other = elsewhere(clinic, person)
    other.sign_in()
    kept = jar(person)
    answer = person.post("/api/auth/logout")
    assert told(answer) == (200, "ok")
    cleared = sorted(answer.headers.get_list("set-cookie"))
    assert [header.split("=")[0] for header in cleared] == ["XSRF-TOKEN", "access_token", "refresh_token"]
    assert all("Max-Age=0" in header and "expires=" in header.lower() for header in cleared)
    assert "Path=/api/auth/refresh" in cleared[2]
    assert jar(person) == {}
    assert told(me_with(clinic, kept["access_token"])) == (401, "Invalid token")
    assert told(refresh_with(clinic, kept["refresh_token"])) == (401, "Bad refresh token")
    assert is_signed_in(other)


def test_signing_out_works_with_an_expired_access_token(clinic: Clinic, later: time_machine.Traveller) -> None:
    """gap: needs a live access token, so logging out after 15 idle minutes answers 401."""
    person = clinic.person()
    kept = jar(person)
    later.shift(QUARTER_OF_AN_HOUR * 2)
    answer = logout_with(clinic, kept)
    assert told(answer) == (200, "ok")
    assert any("refresh_token=" in header for header in answer.headers.get_list("set-cookie"))
    assert told(refresh_with(clinic, kept["refresh_token"])) == (401, "Bad refresh token")


def test_browser_left_with_its_refresh_cookie_alone_signs_out_by_refreshing_first(
    clinic: Clinic, later: time_machine.Traveller
) -> None:
    """gap: … and leaves the refresh cookie in place. Clients answer a 401 with one refresh and one more try."""
    person = clinic.person(is_signed_in=False)
    person.sign_in()
    later.shift(QUARTER_OF_AN_HOUR + 1)
    assert told(person.post("/api/auth/logout")) == (401, "Not authenticated")
    assert person.client.post("/api/auth/refresh").status_code == 200
    kept = jar(person)
    assert person.post("/api/auth/logout").status_code == 200
    assert jar(person) == {}
    assert refresh_with(clinic, kept["refresh_token"]).status_code == 401


def test_signing_out_twice_is_harmless(clinic: Clinic) -> None:
    person = clinic.person()
    kept = jar(person)
    assert [answer.status_code for answer in (logout_with(clinic, kept), logout_with(clinic, kept))] == [200, 200]
    assert told(person.get("/api/auth/me")) == (401, "Invalid token")


def test_signing_out_with_rubbish_is_refused(clinic: Clinic) -> None:
    person = clinic.person()
    other = clinic.person()
    assert told(logout_with(clinic, jar(person) | {"access_token": "rubbish"})) == (401, "Invalid token")
    foreign = jar(person) | {"XSRF-TOKEN": jar(other)["XSRF-TOKEN"]}
    assert told(logout_with(clinic, foreign)) == (403, "CSRF failed")
    assert is_signed_in(person)


def test_ended_logins_keep_the_reason(clinic: Clinic) -> None:
    person = clinic.person()
    person.post("/api/auth/logout")

    async def read(unit: Unit) -> Any:
        return (await unit.session.execute(sa.select(Login.end_reason, Login.ended_at))).one()

    row = clinic.in_unit(read)
    assert row.end_reason == "signed_out"
    assert row.ended_at is not None
