"""Nobody rises by their own hand: a table of attempts, each beside what the same person may do."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from quill.actor import Level
from tests.clinic import PASSWORD, Clinic, Person

NEW = {"name": "Puppet", "username": "puppet", "email": "puppet@example.org", "password": "long enough 1"}


class People(NamedTuple):
    """Who is in the house, all signed in; ``second`` is another superadmin."""

    patient: Person
    staff: Person
    admin: Person
    colleague: Person
    superadmin: Person
    second: Person


@pytest.fixture
def people(clinic: Clinic) -> People:
    return People(
        patient=clinic.person("patient", level=Level.PATIENT, profession="patient"),
        staff=clinic.person("staff", level=Level.STAFF, profession="registered_nurse"),
        admin=clinic.admin(username="admin"),
        colleague=clinic.admin(username="colleague"),
        superadmin=clinic.superadmin(username="superadmin"),
        second=clinic.superadmin(username="second"),
    )


Attempt = Callable[[People], Any]


def patching(who: str, whom: str, **change: Any) -> Attempt:
    return lambda p: getattr(p, who).patch(f"/api/users/{getattr(p, whom).id}", json=change)


def making(who: str, **fields: Any) -> Attempt:
    return lambda p: getattr(p, who).post("/api/users", json=NEW | fields)


def posting(who: str, whom: str, act: str) -> Attempt:
    return lambda p: getattr(p, who).post(f"/api/users/{getattr(p, whom).id}/{act}")


def deleting(who: str, whom: str, what: str) -> Attempt:
    return lambda p: getattr(p, who).delete(f"/api/users/{getattr(p, whom).id}/{what}")


def linking(who: str, whom: str) -> Attempt:
    return lambda p: getattr(p, who).patch(
        f"/api/users/{getattr(p, whom).id}/link-patient", json={"fhir_patient_id": "p"}
    )


def own(who: str, **change: Any) -> Attempt:
    return lambda p: getattr(p, who).patch("/api/cbac/my-competencies", json=change)


HIGH, LOW = "prescribe_controlled_schedule_2", "request_plain_xray"
LEVEL, SUPER, OWN, RISK = "level_missing", "superadmin_missing", "own_level", "own_high_risk_competency"

REFUSED: list[tuple[str, Attempt, str]] = [
    ("a patient makes an account", making("patient"), LEVEL),
    ("staff make an account", making("staff"), LEVEL),
    ("a patient raises themselves", patching("patient", "patient", system_permissions="admin"), LEVEL),
    ("staff raise themselves", patching("staff", "staff", system_permissions="superadmin"), LEVEL),
    ("staff grant themselves a role", patching("staff", "staff", roles=["Clinician"]), LEVEL),
    ("staff reset an admin's password", patching("staff", "admin", password="long enough 2"), LEVEL),
    ("a patient grants themselves a competency", own("patient", additional_competencies=[HIGH]), LEVEL),
    ("staff grant themselves a competency", own("staff", additional_competencies=[LOW]), LEVEL),
    ("an admin makes an admin", making("admin", system_permissions="admin"), SUPER),
    ("an admin makes a superadmin", making("admin", system_permissions="superadmin"), SUPER),
    ("an admin raises staff to admin", patching("admin", "staff", system_permissions="admin"), SUPER),
    ("an admin raises staff to superadmin", patching("admin", "staff", system_permissions="superadmin"), SUPER),
    ("an admin raises themselves", patching("admin", "admin", system_permissions="superadmin"), SUPER),
    ("an admin changes themselves", patching("admin", "admin", additional_competencies=[HIGH]), SUPER),
    ("an admin lowers a colleague", patching("admin", "colleague", system_permissions="staff"), SUPER),
    ("an admin resets a colleague's password", patching("admin", "colleague", password="long enough 2"), SUPER),
    ("an admin resets a superadmin's password", patching("admin", "superadmin", password="long enough 2"), SUPER),
    ("an admin moves a superadmin's e-mail", patching("admin", "superadmin", email="me@example.org"), SUPER),
    ("an admin renames a superadmin", patching("admin", "superadmin", username="x"), SUPER),
    ("an admin disables a superadmin", patching("admin", "superadmin", is_active=False), SUPER),
    ("an admin disables a superadmin by the short way", posting("admin", "superadmin", "deactivate"), SUPER),
    ("an admin disables a colleague", posting("admin", "colleague", "deactivate"), SUPER),
    ("an admin enables a colleague", posting("admin", "colleague", "activate"), SUPER),
    ("an admin signs a superadmin out", deleting("admin", "superadmin", "logins"), SUPER),
    ("an admin links a superadmin to a patient", linking("admin", "superadmin"), SUPER),
    ("an admin unlinks a colleague", deleting("admin", "colleague", "link-patient"), SUPER),
    ("a superadmin lowers themselves", patching("superadmin", "superadmin", system_permissions="staff"), OWN),
    (
        "a superadmin makes themselves external",
        patching("superadmin", "superadmin", system_permissions="external_hcp"),
        OWN,
    ),
    ("an admin adds high risk to themselves", own("admin", additional_competencies=[HIGH]), RISK),
    ("an admin adds high risk among low", own("admin", additional_competencies=[LOW, HIGH]), RISK),
    (
        "an admin hides high risk behind its removal",
        own("admin", additional_competencies=[HIGH], removed_competencies=[HIGH]),
        RISK,
    ),
    ("a superadmin adds high risk to themselves", own("superadmin", additional_competencies=[HIGH]), RISK),
    (
        "a superadmin adds it by the other way",
        patching("superadmin", "superadmin", additional_competencies=[HIGH]),
        RISK,
    ),
    ("a superadmin becomes a consultant", patching("superadmin", "superadmin", base_profession="consultant"), RISK),
]

ALLOWED: list[tuple[str, Attempt]] = [
    ("an admin makes staff", making("admin", system_permissions="staff")),
    ("an admin raises a patient to staff", patching("admin", "patient", system_permissions="staff")),
    ("an admin lowers staff", patching("admin", "staff", system_permissions="patient")),
    ("an admin grants high risk to another", patching("admin", "staff", additional_competencies=[HIGH])),
    ("an admin resets a password of staff", patching("admin", "staff", password="long enough 2")),
    ("an admin disables staff", posting("admin", "staff", "deactivate")),
    ("an admin signs staff out", deleting("admin", "staff", "logins")),
    ("an admin signs themselves out", deleting("admin", "admin", "logins")),
    ("an admin adds low risk to themselves", own("admin", additional_competencies=[LOW])),
    ("a superadmin makes a superadmin", making("superadmin", system_permissions="superadmin")),
    ("a superadmin raises an admin", patching("superadmin", "admin", system_permissions="superadmin")),
    ("a superadmin lowers another", patching("superadmin", "second", system_permissions="staff")),
    ("a superadmin grants high risk to an admin", patching("superadmin", "admin", additional_competencies=[HIGH])),
    (
        "a superadmin changes their own name",
        patching("superadmin", "superadmin", name="X", system_permissions="superadmin"),
    ),
    ("a superadmin disables an admin", posting("superadmin", "admin", "deactivate")),
    ("one of two superadmins leaves", posting("superadmin", "superadmin", "deactivate")),
]


def test_every_attempt_to_rise_is_refused_and_changes_nothing(people: People, clinic: Clinic) -> None:
    """gap: an admin can mint a superadmin; promoted their own account; may reset any superadmin's password."""

    def state() -> Any:
        return [people.second.get(f"/api/users/{person.id}").json() for person in people]

    before = state()
    for name, attempt, code in REFUSED:
        answer = attempt(people)
        assert (name, answer.status_code, answer.json()["error_code"]) == (name, 403, code)
    assert state() == before
    assert people.second.get("/api/users").json()["total"] == len(people)
    for person in people:
        assert person.get("/api/auth/me").status_code == 200, "no login ended"
        assert person.sign_in(PASSWORD).status_code == 200
    refusals = [row for row in clinic.audited("user:change") if row.outcome == "refused"]
    assert {row.reason for row in refusals} == {SUPER, OWN, RISK}


@pytest.mark.parametrize(("name", "attempt"), ALLOWED, ids=[name for name, _ in ALLOWED])
def test_what_the_same_people_may_do(people: People, name: str, attempt: Attempt) -> None:
    answer = attempt(people)
    assert (name, answer.status_code) == (name, 200)


def test_the_last_active_superadmin_stays(clinic: Clinic) -> None:
    only, former = clinic.superadmin(), clinic.superadmin(is_signed_in=False)
    assert only.post(f"/api/users/{former.id}/deactivate").status_code == 200
    for attempt in (
        only.post(f"/api/users/{only.id}/deactivate"),
        only.patch(f"/api/users/{only.id}", json={"is_active": False, "name": "X"}),
    ):
        assert (attempt.status_code, attempt.json()["error_code"]) == (409, "last_superadmin")
    assert only.get("/api/auth/me").json()["name"] is None
    assert only.post(f"/api/users/{former.id}/activate").status_code == 200
    assert only.post(f"/api/users/{only.id}/deactivate").status_code == 200


def test_superadmins_who_disable_each_other_at_once_leave_one(clinic: Clinic) -> None:
    pair = [clinic.superadmin(), clinic.superadmin()]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda a, b: a.post(f"/api/users/{b.id}/deactivate"), pair, reversed(pair)))
    assert answers[0].status_code != answers[1].status_code
    assert 200 in {answer.status_code for answer in answers}
    assert {answer.status_code for answer in answers} <= {200, 401, 409}
    assert sorted(person.sign_in().status_code for person in pair) == [200, 400]


def test_a_changed_superadmin_keeps_the_login_that_made_the_change(clinic: Clinic) -> None:
    one = clinic.superadmin(username="one")
    elsewhere = Person(clinic.client, one.id, "one")
    elsewhere.sign_in()
    assert one.patch(f"/api/users/{one.id}", json={"password": "another password"}).status_code == 200
    assert one.get("/api/auth/me").status_code == 200
    assert elsewhere.get("/api/auth/me").status_code == 401
