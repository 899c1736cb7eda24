"""The list of one's own logins."""

from typing import Any

import time_machine

from tests.accounts.browsers import elsewhere, is_signed_in, refused, stranger, told
from tests.clinic import Clinic, Person


def logins_of(person: Person, query: str = "") -> Any:
    """Return the list of logins."""
    answer = person.get(f"/api/auth/logins{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_person_sees_where_they_are_signed_in(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person(is_signed_in=False)
    person.client.headers["user-agent"] = "Firefox on the desk"
    person.sign_in()
    later.shift(60)
    phone = elsewhere(clinic, person, "192.0.2.7")
    phone.client.headers["user-agent"] = "Safari on the phone"
    phone.sign_in()
    clinic.person()
    found = logins_of(person)
    assert found["next_cursor"] is None
    assert [(row["user_agent"], row["source"], row["is_current"]) for row in found["logins"]] == [
        ("Safari on the phone", "192.0.2.7", False),
        ("Firefox on the desk", "testclient", True),
    ]
    assert set(found["logins"][0]) == {"id", "created_at", "refreshed_at", "source", "user_agent", "is_current"}
    assert found["logins"][0]["created_at"].endswith("Z")
    assert found["logins"][0]["created_at"] > found["logins"][1]["created_at"]


def test_person_ends_a_login_elsewhere(clinic: Clinic) -> None:
    person = clinic.person()
    phone = elsewhere(clinic, person)
    phone.sign_in()
    lost = next(row["id"] for row in logins_of(person)["logins"] if not row["is_current"])
    answer = person.delete(f"/api/auth/logins/{lost}")
    assert told(answer) == (200, "ended")
    assert "set-cookie" not in answer.headers
    assert told(phone.get("/api/auth/me")) == (401, "Invalid token")
    assert [row["is_current"] for row in logins_of(person)["logins"]] == [True]
    assert told(person.delete(f"/api/auth/logins/{lost}")) == (404, "Login not found")


def test_ending_the_login_in_use_signs_out(clinic: Clinic) -> None:
    person = clinic.person()
    current = logins_of(person)["logins"][0]["id"]
    answer = person.delete(f"/api/auth/logins/{current}")
    assert answer.status_code == 200
    assert len(answer.headers.get_list("set-cookie")) == 3
    assert not is_signed_in(person)


def test_login_of_somebody_else_is_not_there(clinic: Clinic) -> None:
    person, admin = clinic.person(), clinic.admin()
    theirs = logins_of(person)["logins"][0]["id"]
    for login_id in (theirs, "nothing", "x" * 64):
        assert told(admin.delete(f"/api/auth/logins/{login_id}")) == (404, "Login not found")
    assert admin.delete(f"/api/auth/logins/{'x' * 65}").status_code == 422
    assert is_signed_in(person)


def test_ended_and_expired_logins_are_not_listed(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person()
    later.shift(6 * 24 * 3600)
    signed_out = elsewhere(clinic, person)
    signed_out.sign_in()
    signed_out.post("/api/auth/logout")
    now = elsewhere(clinic, person)
    now.sign_in()
    assert len(logins_of(now)["logins"]) == 2
    later.shift(2 * 24 * 3600)
    now.client.post("/api/auth/refresh")
    assert [row["is_current"] for row in logins_of(now)["logins"]] == [True]


def test_list_is_paged_newest_first(clinic: Clinic, later: time_machine.Traveller) -> None:
    person = clinic.person()
    for _ in range(4):
        later.shift(1)
        elsewhere(clinic, person).sign_in()
    seen, cursor = [], ""
    for size in (2, 2, 1):
        page = logins_of(person, f"?limit=2{cursor}")
        assert len(page["logins"]) == size
        seen += [row["created_at"] for row in page["logins"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 5
    assert person.get("/api/auth/logins?cursor=rubbish").status_code == 422
    assert person.get("/api/auth/logins?limit=0").status_code == 422
    assert person.get("/api/auth/logins?order=asc").status_code == 422


def test_list_wants_a_login(clinic: Clinic) -> None:
    assert refused(stranger(clinic).get("/api/auth/logins")) == (401, "not_authenticated")
