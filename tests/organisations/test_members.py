"""Who works in an organisation and which patients it cares for: access comes and goes with the membership."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from quill.access import service as access
from quill.access.service import Relationship
from quill.actor import Level
from quill.identity import service as identity
from quill.kit.ids import PatientId, UserId
from quill.patients.models import PatientIndex
from quill.unit import Unit
from tests.clinic import Clinic, Person


def relationship(clinic: Clinic, person: Person, patient: str) -> Relationship | None:
    """Return what the one decision function says at this moment."""

    async def ask(unit: Unit) -> Relationship | None:
        actor = await identity.find_actor(unit.session, unit.settings, UserId(person.id))
        assert actor is not None
        return await access.find_relationship(unit.session, actor, PatientId(patient))

    found: Relationship | None = clinic.in_unit(ask)
    return found


def primary_of(admin: Person, person: Person) -> list[int]:
    held = admin.get(f"/api/users/{person.id}").json()["organisations"]
    return [row["id"] for row in held if row["is_primary"]]


def test_staff_member_sees_patients_from_joining_until_leaving(clinic: Clinic) -> None:
    """gap: a removed member kept reading and writing in every conversation they had joined."""
    admin, doctor = clinic.admin(), clinic.person("doctor")
    place = clinic.organisation()
    patient = clinic.patient(place)
    picker = f"/api/users?patient_id={patient}"
    assert relationship(clinic, doctor, patient) is None
    assert doctor.get(picker).status_code == 404
    added = admin.post(f"/api/organizations/{place}/staff", json={"user_id": doctor.id})
    assert added.status_code == 200
    assert added.json() == {"organisation_id": place, "user_id": doctor.id, "username": "doctor"}
    assert relationship(clinic, doctor, patient) is Relationship.SHARED_ORGANISATION
    assert doctor.get(picker).status_code == 200
    removed = admin.delete(f"/api/organizations/{place}/staff/{doctor.id}")
    assert (removed.status_code, removed.json()) == (200, {"status": "removed"})
    assert relationship(clinic, doctor, patient) is None
    assert doctor.get(picker).status_code == 404
    assert doctor.get(f"/api/patients/{patient}/shared-organisations").json() == {"organisations": []}


def test_adding_twice_is_409_and_removing_twice_is_404(clinic: Clinic) -> None:
    admin, doctor = clinic.admin(), clinic.person()
    place = clinic.organisation()
    url = f"/api/organizations/{place}/staff"
    assert admin.post(url, json={"user_id": doctor.id}).status_code == 200
    twice = admin.post(url, json={"user_id": doctor.id})
    assert (twice.status_code, twice.json()["detail"]) == (409, "User is already a staff member of this organisation")
    assert admin.delete(f"{url}/{doctor.id}").status_code == 200
    for gone in (f"{url}/{doctor.id}", f"{url}/999", f"/api/organizations/999/staff/{doctor.id}"):
        answer = admin.delete(gone)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Membership not found")


def test_nobody_below_staff_level_becomes_staff(clinic: Clinic) -> None:
    admin, place = clinic.admin(), clinic.organisation()
    for level in (Level.PATIENT, Level.EXTERNAL_HCP, Level.PATIENT_ADVOCATE):
        person = clinic.person(level=level, is_signed_in=False)
        answer = admin.post(f"/api/organizations/{place}/staff", json={"user_id": person.id})
        assert (answer.status_code, answer.json()["detail"]) == (400, "User must have staff-level permissions or above")
    assert admin.get(f"/api/organizations/{place}").json()["staff_count"] == 0


BAD_MEMBERS: list[tuple[dict[str, Any], int]] = [
    ({"user_id": 999}, 404),
    ({"user_id": "x"}, 422),
    ({"user_id": True}, 422),
    ({"user_id": 10**20}, 422),
    ({"user_id": -1}, 422),
    ({"user_id": None}, 422),
    ({}, 422),
    ({"user_id": 1, "is_primary": True}, 422),
]


def test_bad_member_is_refused(clinic: Clinic) -> None:
    admin, place = clinic.admin(), clinic.organisation()
    for body, status in BAD_MEMBERS:
        answer = admin.post(f"/api/organizations/{place}/staff", json=body)
        assert (body, answer.status_code) == (body, status)
        if status == 404:
            assert answer.json()["detail"] == "User not found"
    assert admin.get(f"/api/organizations/{place}").json()["staff_count"] == 0


def test_lowering_the_level_ends_the_access_of_a_membership(clinic: Clinic) -> None:
    """gap: lowering the user's level later leaves the membership working."""
    admin = clinic.admin()
    place = clinic.organisation()
    patient = clinic.patient(place)
    doctor, colleague = clinic.clinician(place), clinic.clinician(place)
    assert relationship(clinic, doctor, patient) is Relationship.SHARED_ORGANISATION
    assert admin.patch(f"/api/users/{doctor.id}", json={"system_permissions": "patient"}).status_code == 200
    assert relationship(clinic, doctor, patient) is None
    listed = colleague.get(f"/api/users?patient_id={patient}").json()["users"]
    assert [row["id"] for row in listed] == [colleague.id]


def test_first_membership_is_primary_and_leaving_it_promotes_the_oldest(clinic: Clinic) -> None:
    """gap: removing the primary membership leaves the user with no primary and so no features."""
    admin, doctor = clinic.admin(), clinic.person()
    first, second, third = (clinic.organisation(name) for name in ("Z first", "M second", "A third"))
    for place in (first, second, third):
        admin.post(f"/api/organizations/{place}/staff", json={"user_id": doctor.id})
    admin.put(f"/api/organizations/{second}/features/letters", json={"enabled": True})
    assert primary_of(admin, doctor) == [first]
    assert doctor.get("/api/auth/me").json()["enabled_features"] == []
    admin.delete(f"/api/organizations/{first}/staff/{doctor.id}")
    assert primary_of(admin, doctor) == [second]
    assert doctor.get("/api/auth/me").json()["enabled_features"] == ["letters"]
    admin.delete(f"/api/organizations/{third}/staff/{doctor.id}")
    assert primary_of(admin, doctor) == [second]
    admin.delete(f"/api/organizations/{second}/staff/{doctor.id}")
    assert primary_of(admin, doctor) == []
    admin.post(f"/api/organizations/{third}/staff", json={"user_id": doctor.id})
    assert primary_of(admin, doctor) == [third]


def test_patient_is_cared_for_from_joining_until_leaving(clinic: Clinic) -> None:
    """gap: staff of the organisation still saw the patient's existing conversations."""
    admin = clinic.admin()
    place, elsewhere = clinic.organisation(), clinic.organisation("Elsewhere")
    doctor, patient = clinic.clinician(place), clinic.patient(elsewhere)
    assert relationship(clinic, doctor, patient) is None
    added = admin.post(f"/api/organizations/{place}/patients", json={"patient_id": patient})
    assert (added.status_code, added.json()) == (200, {"organisation_id": place, "patient_id": patient})
    assert relationship(clinic, doctor, patient) is Relationship.SHARED_ORGANISATION
    shared = doctor.get(f"/api/patients/{patient}/shared-organisations").json()
    assert shared == {"organisations": [{"id": place, "name": "Riverside Surgery", "type": "gp_practice"}]}
    twice = admin.post(f"/api/organizations/{place}/patients", json={"patient_id": patient})
    assert (twice.status_code, twice.json()["detail"]) == (409, "Patient is already a member of this organisation")
    removed = admin.delete(f"/api/organizations/{place}/patients/{patient}")
    assert (removed.status_code, removed.json()) == (200, {"status": "removed"})
    assert relationship(clinic, doctor, patient) is None
    again = admin.delete(f"/api/organizations/{place}/patients/{patient}")
    assert (again.status_code, again.json()["detail"]) == (404, "Membership not found")


def test_patients_primary_organisation_is_the_first_then_the_oldest(clinic: Clinic) -> None:
    """gap: no way to mark a primary."""
    admin = clinic.admin()
    first, second, third = (clinic.organisation(name) for name in ("Z", "M", "A"))
    patient = clinic.patient(first)
    for place in (second, third):
        assert admin.post(f"/api/organizations/{place}/patients", json={"patient_id": patient}).status_code == 200

    def primary() -> list[int]:
        rows = {p: admin.get(f"/api/organizations/{p}").json()["patient_members"] for p in (first, second, third)}
        return [place for place, members in rows.items() if any(row["is_primary"] for row in members)]

    assert primary() == [first]
    admin.delete(f"/api/organizations/{first}/patients/{patient}")
    assert primary() == [second]


MISTYPED: list[tuple[Any, int]] = [
    ("nobody-knows", 404),
    ("not a fhir id", 404),
    ("x" * 65, 404),
    ("x" * 256, 422),
    ("", 422),
    ("  ", 422),
    (7, 422),
]


def test_mistyped_patient_is_no_membership(clinic: Clinic) -> None:
    """gap: the patient is not looked up in FHIR, so typing mistakes become memberships."""
    admin, place = clinic.admin(), clinic.organisation()
    for patient_id, status in MISTYPED:
        answer = admin.post(f"/api/organizations/{place}/patients", json={"patient_id": patient_id})
        assert (patient_id, answer.status_code) == (patient_id, status)
        if status == 404:
            assert answer.json()["detail"] == "Patient not found"
    assert admin.get(f"/api/organizations/{place}").json()["patient_count"] == 0


def test_deactivated_patient_takes_no_new_organisation(clinic: Clinic) -> None:
    admin = clinic.admin()
    place, patient = clinic.organisation(), clinic.patient()

    async def deactivate(unit: Unit) -> None:
        await unit.session.execute(
            sa.update(PatientIndex).where(PatientIndex.patient_id == patient).values(is_active=False)
        )

    clinic.in_unit(deactivate)
    answer = admin.post(f"/api/organizations/{place}/patients", json={"patient_id": patient})
    assert (answer.status_code, answer.json()["error_code"]) == (409, "patient_deactivated")


def test_without_clinical_services_patients_are_removed_but_not_added(clinic: Clinic) -> None:
    admin = clinic.admin()
    place = clinic.organisation()
    patient, other = clinic.patient(place), clinic.patient()
    doctor = clinic.clinician(place)
    services = clinic.services
    object.__setattr__(services, "settings", services.settings.model_copy(update={"clinical_services_enabled": False}))
    refused = admin.post(f"/api/organizations/{place}/patients", json={"patient_id": other})
    assert refused.status_code == 503
    assert refused.json()["detail"] == "Clinical services are not available in this deployment"
    assert doctor.get(f"/api/patients/{patient}/shared-organisations").status_code == 503
    assert admin.delete(f"/api/organizations/{place}/patients/{patient}").status_code == 200


def test_shared_organisations_are_limited_to_ones_own(clinic: Clinic) -> None:
    first, second, third = (clinic.organisation(name) for name in ("A", "B", "C"))
    patient = clinic.patient(first, second)
    url = f"/api/patients/{patient}/shared-organisations"

    def names(person: Person, path: str = url) -> list[str]:
        return [row["name"] for row in person.get(path).json()["organisations"]]

    assert names(clinic.clinician(second, third)) == ["B"]
    assert names(clinic.clinician(first, second)) == ["A", "B"]
    assert names(clinic.clinician(third)) == []
    assert names(clinic.person(level=Level.EXTERNAL_HCP)) == []
    assert names(clinic.person(level=Level.PATIENT, patient_id=patient)) == []
    assert names(clinic.admin()) == [], "admins get only organisations they belong to"
    assert names(clinic.clinician(first), "/api/patients/nobody-knows/shared-organisations") == []
    assert clinic.client.get(url).status_code == 401


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_parallel_additions_make_one_membership(clinic: Clinic, pool: ThreadPoolExecutor) -> None:
    admins = [clinic.admin() for _ in range(4)]
    place, patient = clinic.organisation(), clinic.patient()
    doctor = clinic.person(is_signed_in=False)
    for body, kind in (({"patient_id": patient}, "patients"), ({"user_id": doctor.id}, "staff")):
        url = f"/api/organizations/{place}/{kind}"
        statuses = list(pool.map(lambda a, u=url, b=body: a.post(u, json=b).status_code, admins))
        assert sorted(statuses) == [200, 409, 409, 409]
    found = admins[0].get(f"/api/organizations/{place}").json()
    assert (found["staff_count"], found["patient_count"]) == (1, 1)


def test_parallel_first_memberships_have_one_primary(clinic: Clinic, pool: ThreadPoolExecutor) -> None:
    admins = [clinic.admin() for _ in range(4)]
    places = [clinic.organisation(f"Place {n}") for n in range(4)]
    patient, doctor = clinic.patient(), clinic.person(is_signed_in=False)
    for body, kind in (({"patient_id": patient}, "patients"), ({"user_id": doctor.id}, "staff")):
        answers = pool.map(
            lambda a, p, k=kind, b=body: a.post(f"/api/organizations/{p}/{k}", json=b).status_code, admins, places
        )
        assert list(answers) == [200] * 4
        members = [admins[0].get(f"/api/organizations/{p}").json()[f"{kind.rstrip('s')}_members"] for p in places]
        assert sum(row["is_primary"] for rows in members for row in rows) == 1
