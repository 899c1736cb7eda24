"""Requests to join: asking grants nothing; an admin approves or declines, once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from quill.actor import Level
from quill.errors import OrganisationUnknown
from quill.kit.ids import OrganisationId, UserId
from quill.organisations import service as organisations
from tests.clinic import Clinic, Person


def ask(clinic: Clinic, person: Person, place: int) -> int:
    """Ask to join, as registration does."""
    number: int = clinic.in_unit(
        lambda unit: organisations.request_to_join(unit, UserId(person.id), OrganisationId(place))
    )
    return number


def registrant(clinic: Clinic, username: str = "newcomer") -> Person:
    return clinic.person(username, level=Level.PATIENT, profession="patient")


def test_asking_grants_nothing_and_approving_makes_staff(clinic: Clinic) -> None:
    """gap: anyone on the network can join any organisation."""
    admin, newcomer = clinic.admin(), registrant(clinic)
    place = clinic.organisation()
    patient = clinic.patient(place)
    number = ask(clinic, newcomer, place)
    url = f"/api/organizations/{place}/join-requests"
    assert newcomer.get(f"/api/users?patient_id={patient}").status_code == 404
    assert admin.get(f"/api/organizations/{place}").json()["staff_count"] == 0
    (waiting,) = admin.get(url).json()["join_requests"]
    assert waiting | {"id": number, "user_id": newcomer.id, "username": "newcomer", "status": "pending"} == waiting
    assert waiting["system_permissions"] == "patient"
    approved = admin.post(f"{url}/{number}/approve")
    assert approved.status_code == 200
    assert approved.json() == {
        "id": number,
        "organisation_id": place,
        "user_id": newcomer.id,
        "status": "approved",
    }
    assert newcomer.get("/api/auth/me").status_code == 401, "new rights end the logins"
    newcomer.sign_in()
    me = newcomer.get("/api/auth/me").json()
    assert (me["system_permissions"], me["roles"], me["competencies"]) == ("staff", [], ["access_patient_records"])
    assert newcomer.get(f"/api/users?patient_id={patient}").status_code == 200
    assert admin.get(url).json()["join_requests"] == []
    (decided,) = admin.get(f"{url}?status=approved").json()["join_requests"]
    assert decided["decided_at"] is not None


def test_declining_changes_nothing_and_the_person_may_ask_again(clinic: Clinic) -> None:
    admin, newcomer = clinic.admin(), registrant(clinic)
    place = clinic.organisation()
    number = ask(clinic, newcomer, place)
    url = f"/api/organizations/{place}/join-requests"
    declined = admin.post(f"{url}/{number}/decline")
    assert (declined.status_code, declined.json()["status"]) == (200, "declined")
    assert newcomer.get("/api/auth/me").json()["system_permissions"] == "patient"
    assert admin.get(f"/api/organizations/{place}").json()["staff_count"] == 0
    assert [row["id"] for row in admin.get(f"{url}?status=declined").json()["join_requests"]] == [number]
    again = ask(clinic, newcomer, place)
    assert again != number
    assert admin.post(f"{url}/{again}/approve").status_code == 200


def test_staff_keep_their_level_and_their_logins(clinic: Clinic) -> None:
    admin = clinic.admin()
    home, place = clinic.organisation(), clinic.organisation("Second")
    doctor = clinic.clinician(home)
    assert admin.post(f"/api/organizations/{place}/join-requests/{ask(clinic, doctor, place)}/approve").is_success
    assert doctor.get("/api/auth/me").json()["system_permissions"] == "staff"
    held = admin.get(f"/api/users/{doctor.id}").json()["organisations"]
    assert [(row["id"], row["is_primary"]) for row in held] == [(home, True), (place, False)]


@pytest.mark.parametrize("kind", ["external", "linked"])
def test_nobody_is_raised_by_the_way_who_is_external_or_a_patient(clinic: Clinic, kind: str) -> None:
    admin = clinic.admin()
    place = clinic.organisation()
    if kind == "external":
        person = clinic.person(level=Level.EXTERNAL_HCP)
    else:
        person = clinic.person(level=Level.PATIENT, patient_id=clinic.patient(place))
    number = ask(clinic, person, place)
    answer = admin.post(f"/api/organizations/{place}/join-requests/{number}/approve")
    assert (answer.status_code, answer.json()["detail"]) == (400, "User must have staff-level permissions or above")
    assert admin.get(f"/api/organizations/{place}").json()["staff_count"] == 0
    assert len(admin.get(f"/api/organizations/{place}/join-requests").json()["join_requests"]) == 1


def test_request_is_decided_once_and_at_its_own_organisation(clinic: Clinic) -> None:
    admin, newcomer = clinic.admin(), registrant(clinic)
    place, other = clinic.organisation(), clinic.organisation("Other")
    number = ask(clinic, newcomer, place)
    for verdict in ("approve", "decline"):
        for wrong in (f"{other}/join-requests/{number}", f"{place}/join-requests/999", f"999/join-requests/{number}"):
            missing = admin.post(f"/api/organizations/{wrong}/{verdict}")
            assert (missing.status_code, missing.json()["error_code"]) == (404, "join_request_not_found")
    assert admin.post(f"/api/organizations/{place}/join-requests/{number}/decline").status_code == 200
    for verdict in ("approve", "decline"):
        twice = admin.post(f"/api/organizations/{place}/join-requests/{number}/{verdict}")
        assert (twice.status_code, twice.json()["error_code"]) == (409, "join_request_decided")
    assert admin.get(f"/api/organizations/{place}").json()["staff_count"] == 0


def test_asking_twice_is_asking_once(clinic: Clinic) -> None:
    newcomer = registrant(clinic)
    place = clinic.organisation()
    assert ask(clinic, newcomer, place) == ask(clinic, newcomer, place)
    assert len(clinic.admin().get(f"/api/organizations/{place}/join-requests").json()["join_requests"]) == 1


def test_asking_an_unknown_organisation_is_refused_in_the_words_of_registration(clinic: Clinic) -> None:
    newcomer = registrant(clinic)
    with pytest.raises(OrganisationUnknown, match="Organisation not found") as refused:
        ask(clinic, newcomer, 999)
    assert refused.value.status == 400


def test_requests_are_paged_oldest_first(clinic: Clinic) -> None:
    admin = clinic.admin()
    place = clinic.organisation()
    numbers = [ask(clinic, registrant(clinic, f"n{n}"), place) for n in range(3)]
    url = f"/api/organizations/{place}/join-requests"
    page = admin.get(f"{url}?limit=2").json()
    rest = admin.get(f"{url}?limit=2&cursor={page['next_cursor']}").json()
    assert [row["id"] for row in page["join_requests"] + rest["join_requests"]] == numbers
    assert rest["next_cursor"] is None
    for query in ("status=maybe", "cursor=x", "limit=0"):
        assert admin.get(f"{url}?{query}").status_code == 422


def test_of_decisions_at_the_same_moment_one_counts(clinic: Clinic) -> None:
    admins = [clinic.admin() for _ in range(2)]
    place = clinic.organisation()
    url = f"/api/organizations/{place}/join-requests/{ask(clinic, registrant(clinic), place)}"
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda a, v: a.post(f"{url}/{v}"), admins, ("approve", "decline")))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (winner,) = (answer.json()["status"] for answer in answers if answer.status_code == 200)
    assert admins[0].get(f"/api/organizations/{place}").json()["staff_count"] == (1 if winner == "approved" else 0)
