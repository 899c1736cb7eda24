"""Organisations themselves: listing, making, reading, changing, and who may."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from quill.actor import Level
from tests.clinic import Clinic

WRONG_TYPE = (
    "Invalid organisation type. Must be one of: hospital_team, gp_practice, private_clinic, department, "
    "teaching_establishment"
)


def test_admin_makes_reads_and_changes_an_organisation(clinic: Clinic) -> None:
    admin = clinic.admin()
    made = admin.post(
        "/api/organizations", json={"name": "  Hill Practice ", "type": "gp_practice", "location": " Leeds "}
    )
    assert made.status_code == 200
    body = made.json()
    assert (body["name"], body["type"], body["location"]) == ("Hill Practice", "gp_practice", "Leeds")
    assert body["created_at"] == body["updated_at"]
    assert body["created_at"].endswith("Z")
    url = f"/api/organizations/{body['id']}"
    read = admin.get(url).json()
    assert read | {"staff_count": 0, "patient_count": 0, "staff_members": [], "patient_members": []} == read
    changed = admin.put(url, json={"name": "Hill Surgery"})
    assert changed.status_code == 200
    assert changed.json()["name"] == "Hill Surgery"
    assert (changed.json()["type"], changed.json()["location"]) == ("gp_practice", "Leeds")
    assert changed.json()["updated_at"] > body["updated_at"]
    assert admin.get(url).json()["name"] == "Hill Surgery"


def test_names_need_not_be_unique_and_nothing_comes_with_an_organisation(clinic: Clinic) -> None:
    admin = clinic.admin()
    wish = {"name": "Hill", "type": "department"}
    first, second = (admin.post("/api/organizations", json=wish).json() for _ in range(2))
    assert first["id"] != second["id"]
    assert admin.get(f"/api/organizations/{first['id']}").json()["staff_count"] == 0
    assert admin.get(f"/api/organizations/{first['id']}/features").json() == {"features": []}


def test_updated_at_moves_only_when_a_value_changed(clinic: Clinic) -> None:
    admin = clinic.admin()
    wish = {"name": "Hill", "type": "department", "location": "Leeds"}
    made = admin.post("/api/organizations", json=wish).json()
    url = f"/api/organizations/{made['id']}"
    for same in (wish, {}, {"name": None, "type": None, "location": None}, {"type": ""}, {"name": " Hill "}):
        assert admin.put(url, json=same).json() == made
    assert admin.put(url, json={"location": "York"}).json()["updated_at"] > made["updated_at"]


@pytest.mark.parametrize("blank", ["", "   "])
def test_blank_location_is_null_and_clears_it(clinic: Clinic, blank: str) -> None:
    """gap: spaces only becomes an empty string."""
    admin = clinic.admin()
    made = admin.post("/api/organizations", json={"name": "Hill", "type": "department", "location": blank}).json()
    assert made["location"] is None
    url = f"/api/organizations/{made['id']}"
    assert admin.put(url, json={"location": "York"}).json()["location"] == "York"
    assert admin.put(url, json={"location": blank}).json()["location"] is None


BAD_ORGANISATIONS: list[tuple[dict[str, Any], int]] = [
    ({"name": "", "type": "department"}, 422),
    ({"name": "  \t ", "type": "department"}, 422),
    ({"name": "x" * 256, "type": "department"}, 422),
    ({"name": "a\x00b", "type": "department"}, 422),
    ({"name": "\ud800", "type": "department"}, 422),
    ({"name": 7, "type": "department"}, 422),
    ({"type": "department"}, 422),
    ({"name": "Hill"}, 422),
    ({"name": "Hill", "type": "department", "location": "x" * 501}, 422),
    ({"name": "Hill", "type": "department", "colour": "red"}, 422),
    ({"name": "Hill", "type": "Department"}, 400),
    ({"name": "Hill", "type": ""}, 400),
    ({"name": "Hill", "type": "x" * 400}, 400),
]


def test_bad_organisation_is_refused_and_nothing_is_made(clinic: Clinic) -> None:
    """gap: blank names."""
    admin = clinic.admin()
    headers = admin.csrf | {"content-type": "application/json"}
    for body, status in BAD_ORGANISATIONS:
        answer = admin.client.post("/api/organizations", content=json.dumps(body).encode(), headers=headers)
        assert (body, answer.status_code) == (body, status)
        if status == 400:
            assert answer.json()["detail"] == WRONG_TYPE
    assert admin.get("/api/organizations").json()["total"] == 0


BAD_CHANGES: list[tuple[Any, int]] = [
    ({"name": "  "}, 422),
    ({"name": ""}, 422),
    ({"type": "spaceship"}, 400),
    ({"name": "Dale", "type": "spaceship"}, 400),
    ({"nmae": "x"}, 422),
    ([], 422),
]


def test_bad_change_changes_nothing(clinic: Clinic) -> None:
    admin = clinic.admin()
    url = f"/api/organizations/{clinic.organisation('Hill')}"
    before = admin.get(url).json()
    for body, status in BAD_CHANGES:
        answer = admin.put(url, json=body)
        assert (body, answer.status_code) == (body, status)
        if status == 400:
            assert answer.json()["detail"] == WRONG_TYPE
        assert admin.get(url).json() == before


def test_unknown_organisation_is_404_in_the_words_of_each_call(clinic: Clinic) -> None:
    admin = clinic.admin()
    patient = clinic.patient()
    with_z, with_s = "Organization not found", "Organisation not found"
    answers = {
        "get": (admin.get("/api/organizations/999"), with_z),
        "put": (admin.put("/api/organizations/999", json={}), with_s),
        "staff": (admin.post("/api/organizations/999/staff", json={"user_id": admin.id}), with_z),
        "patients": (admin.post("/api/organizations/999/patients", json={"patient_id": patient}), with_z),
        "features": (admin.get("/api/organizations/999/features"), with_s),
        "feature": (admin.put("/api/organizations/999/features/epr", json={"enabled": True}), with_s),
        "joining": (admin.get("/api/organizations/999/join-requests"), with_s),
    }
    for call, (answer, words) in answers.items():
        assert (call, answer.status_code, answer.json()["detail"]) == (call, 404, words)


def test_number_that_cannot_be_one_is_422(clinic: Clinic) -> None:
    admin = clinic.admin()
    for number in ("abc", "-1", "1.5", str(2**31), str(10**30), "true"):
        assert (number, admin.get(f"/api/organizations/{number}").status_code) == (number, 422)
        assert admin.delete(f"/api/organizations/{number}/staff/{number}").status_code == 422


def test_list_is_ordered_by_name_and_paged(clinic: Clinic) -> None:
    """gap: no ordering, no paging."""
    admin = clinic.admin()
    for name in ("delta", "Alpha", "charlie", "Bravo", "alpha"):
        clinic.organisation(name)
    whole = admin.get("/api/organizations").json()
    assert [row["name"].lower() for row in whole["organizations"]] == ["alpha", "alpha", "bravo", "charlie", "delta"]
    assert (whole["total"], whole["next_cursor"]) == (5, None)
    seen: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = admin.get(f"/api/organizations?limit=2&cursor={cursor}").json()
        seen += page["organizations"]
        assert page["total"] == 5
        cursor = page["next_cursor"]
    assert seen == whole["organizations"]
    for query in ("limit=0", "limit=1001", "cursor=zzz", "cursor=WzFd", "page=2"):
        assert admin.get(f"/api/organizations?{query}").status_code == 422


def test_members_are_paged_and_counts_stay_true(clinic: Clinic) -> None:
    """gap: full membership inline, no paging."""
    admin = clinic.admin()
    place = clinic.organisation()
    staff = sorted(clinic.person(f"dr{n}", organisations=[place], is_signed_in=False).id for n in range(3))
    patients = sorted(clinic.patient(place, patient_id=f"p-{n}") for n in range(5))
    url = f"/api/organizations/{place}"
    whole = admin.get(url).json()
    assert [row["id"] for row in whole["staff_members"]] == staff
    assert [row["patient_id"] for row in whole["patient_members"]] == patients
    assert whole["staff_members"][0]["username"] == "dr0"
    assert whole["staff_members"][0]["email"] == "dr0@example.org"
    assert whole["staff_members"][0]["is_primary"] is True
    assert whole["patient_members"][0]["is_primary"] is True
    assert whole["next_cursor"] is None
    seen_staff: list[Any] = []
    seen_patients: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = admin.get(f"{url}?limit=2&cursor={cursor}").json()
        assert (page["staff_count"], page["patient_count"]) == (3, 5)
        assert len(page["staff_members"]) <= 2
        seen_staff += page["staff_members"]
        seen_patients += page["patient_members"]
        cursor = page["next_cursor"]
    assert (seen_staff, seen_patients) == (whole["staff_members"], whole["patient_members"])
    assert admin.get(f"{url}?cursor=x").status_code == 422


def test_registration_form_is_offered_numbers_and_names_alone(clinic: Clinic, client: TestClient) -> None:
    place = clinic.organisation("Riverside")
    clinic.organisation("Abbey")
    answer = client.get("/api/auth/organizations")
    assert answer.status_code == 200
    assert [row["name"] for row in answer.json()["organizations"]] == ["Abbey", "Riverside"]
    assert answer.json()["organizations"][1] == {"id": place, "name": "Riverside"}
    page = client.get("/api/auth/organizations?limit=1").json()
    rest = client.get(f"/api/auth/organizations?limit=1&cursor={page['next_cursor']}").json()
    assert (rest["organizations"], rest["next_cursor"]) == ([{"id": place, "name": "Riverside"}], None)


def test_operator_can_keep_the_list_from_strangers(clinic: Clinic, client: TestClient) -> None:
    """gap: customer list is public."""
    clinic.organisation()
    services = clinic.services
    closed = services.settings.model_copy(update={"public_organisation_list": False})
    object.__setattr__(services, "settings", closed)
    assert client.get("/api/auth/organizations").json()["organizations"] == []
    assert clinic.admin().get("/api/organizations").json()["total"] == 1


ADMIN_TEXT, ONLY_TEXT = "Requires admin or superadmin permissions", "Admin only"
CALLS: list[tuple[str, str, Any, str]] = [
    ("GET", "/api/organizations", None, ADMIN_TEXT),
    ("POST", "/api/organizations", {"name": "X", "type": "department"}, ADMIN_TEXT),
    ("GET", "/api/organizations/1", None, ADMIN_TEXT),
    ("PUT", "/api/organizations/1", {"name": "X"}, ADMIN_TEXT),
    ("POST", "/api/organizations/1/staff", {"user_id": 1}, ADMIN_TEXT),
    ("DELETE", "/api/organizations/1/staff/1", None, ONLY_TEXT),
    ("POST", "/api/organizations/1/patients", {"patient_id": "p"}, ADMIN_TEXT),
    ("DELETE", "/api/organizations/1/patients/p", None, ONLY_TEXT),
    ("GET", "/api/organizations/1/features", None, ONLY_TEXT),
    ("PUT", "/api/organizations/1/features/epr", {"enabled": True}, ONLY_TEXT),
    ("GET", "/api/organizations/1/join-requests", None, ADMIN_TEXT),
    ("POST", "/api/organizations/1/join-requests/1/approve", None, ADMIN_TEXT),
    ("POST", "/api/organizations/1/join-requests/1/decline", None, ADMIN_TEXT),
]


def test_only_admins_reach_organisations_and_only_with_the_csrf_token(clinic: Clinic, client: TestClient) -> None:
    """gap: no CSRF check."""
    place = clinic.organisation("Kept as it is")
    others = [clinic.clinician(place), clinic.person(level=Level.EXTERNAL_HCP)]
    admin = clinic.admin()
    for method, path, body, words in CALLS:
        stranger = client.request(method, path, json=body)
        assert (path, stranger.status_code) == (path, 401)
        for person in others:
            answer = person.client.request(method, path, json=body, headers=person.csrf)
            assert (path, answer.status_code, answer.json()["detail"]) == (path, 403, words)
        if method != "GET":
            forged = admin.client.request(method, path, json=body)
            assert (path, forged.status_code, forged.json()["detail"]) == (path, 403, "CSRF failed")
    # The right is missing whatever the body says, so a bad one is not told apart.
    assert others[0].post("/api/organizations", json={"no": "such"}).status_code == 403
    untouched = admin.get(f"/api/organizations/{place}").json()
    assert (untouched["name"], untouched["staff_count"]) == ("Kept as it is", 1)
    assert admin.get("/api/organizations").json()["total"] == 1


def test_every_admin_manages_every_organisation_and_staff_none(clinic: Clinic) -> None:
    """gap: every admin manages every organisation; by decision 0015 admins stand above organisations."""
    hill, dale = clinic.organisation("Hill"), clinic.organisation("Dale")
    member, stranger = clinic.admin(organisations=[hill]), clinic.admin()
    colleague = clinic.person(organisations=[hill])
    for admin in (member, stranger):
        assert {row["id"] for row in admin.get("/api/organizations").json()["organizations"]} == {hill, dale}
        for number in (hill, dale):
            assert admin.get(f"/api/organizations/{number}").status_code == 200
            assert admin.put(f"/api/organizations/{number}", json={"location": "Leeds"}).status_code == 200
            assert admin.get(f"/api/organizations/{number}/join-requests").status_code == 200
    for url in ("/api/organizations", f"/api/organizations/{hill}"):
        assert colleague.get(url).status_code == 403
