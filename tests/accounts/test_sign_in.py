"""Signing in, staying signed in and signing out, as a browser sees it."""

from starlette.testclient import TestClient

from tests.clinic import Clinic


def test_person_signs_in_and_is_told_who_they_are(clinic: Clinic) -> None:
    person = clinic.person("dr.who", full_name="Doctor Who", roles=["Clinician"])
    answer = person.get("/api/auth/me")
    assert answer.status_code == 200
    assert answer.json()["username"] == "dr.who"
    assert answer.json()["roles"] == ["Clinician"]


def test_stranger_is_not_told_anything(client: TestClient) -> None:
    answer = client.get("/api/auth/me")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "Not authenticated"


def test_signing_out_ends_the_access_token_at_once(clinic: Clinic) -> None:
    person = clinic.person()
    kept = dict(person.client.cookies)
    assert person.post("/api/auth/logout").status_code == 200
    person.client.cookies.update(kept)
    answer = person.get("/api/auth/me")
    assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid token")
