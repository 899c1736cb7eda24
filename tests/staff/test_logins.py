"""Other people's logins: seen and ended by admins."""

from tests.clinic import Clinic, Person


def devices(clinic: Clinic, person: Person, count: int) -> list[Person]:
    found = [Person(clinic.client, person.id, person.username) for _ in range(count)]
    for device in found:
        assert device.sign_in().status_code == 200
    return found


def test_admin_sees_live_logins_and_ends_one(clinic: Clinic) -> None:
    """absent: list or end a user's logins."""
    admin, person = clinic.admin(), clinic.person("doctor", is_signed_in=False)
    url = f"/api/users/{person.id}/logins"
    assert admin.get(url).json() == {"logins": [], "next_cursor": None}
    first, second, third = devices(clinic, person, 3)
    third.post("/api/auth/logout")
    found = admin.get(url).json()["logins"]
    assert len(found) == 2
    assert found[0]["created_at"] >= found[1]["created_at"], "newest first"
    assert found[0]["source"] == "testclient"
    assert set(found[0]) == {"id", "source", "user_agent", "created_at", "refreshed_at", "expires_at"}
    ended = admin.delete(f"{url}/{found[1]['id']}")
    assert (ended.status_code, ended.json()) == (200, {"detail": "ended"})
    assert first.get("/api/auth/me").status_code == 401
    assert first.post("/api/auth/refresh").status_code == 401
    assert second.get("/api/auth/me").status_code == 200
    again = admin.delete(f"{url}/{found[1]['id']}")
    assert (again.status_code, again.json()["detail"]) == (404, "Login not found")
    assert [row["id"] for row in admin.get(url).json()["logins"]] == [found[0]["id"]]


def test_admin_signs_somebody_out_everywhere(clinic: Clinic) -> None:
    admin, person, bystander = clinic.admin(), clinic.person("doctor"), clinic.person()
    others = [person, *devices(clinic, person, 2)]
    assert admin.delete(f"/api/users/{person.id}/logins").status_code == 200
    assert [device.get("/api/auth/me").status_code for device in others] == [401, 401, 401]
    assert bystander.get("/api/auth/me").status_code == 200
    assert person.sign_in().status_code == 200


def test_login_of_another_person_is_not_ended_by_the_way(clinic: Clinic) -> None:
    admin, person, chief = clinic.admin(), clinic.person(), clinic.superadmin()
    (login,) = chief.get(f"/api/users/{chief.id}/logins").json()["logins"]
    for wrong in (login["id"], "x"):
        answer = admin.delete(f"/api/users/{person.id}/logins/{wrong}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Login not found")
    assert admin.delete(f"/api/users/{chief.id}/logins/{login['id']}").status_code == 403
    assert chief.get("/api/auth/me").status_code == 200


def test_logins_are_paged(clinic: Clinic) -> None:
    admin, person = clinic.admin(), clinic.person("doctor")
    devices(clinic, person, 2)
    url = f"/api/users/{person.id}/logins"
    whole = admin.get(url).json()["logins"]
    page = admin.get(f"{url}?limit=2").json()
    rest = admin.get(f"{url}?limit=2&cursor={page['next_cursor']}").json()
    assert page["logins"] + rest["logins"] == whole
    assert rest["next_cursor"] is None
    assert admin.get(f"{url}?cursor=x").status_code == 422
