"""Finding people: around a patient for whoever may see the patient, all of them for admins."""

import functools
from typing import Any

import pytest

from quill.actor import Level
from quill.identity.models import ExternalAccess
from quill.kit import clock
from quill.unit import Unit
from tests.clinic import Clinic, Person


def grant(clinic: Clinic, person: Person, patient: str, *, is_revoked: bool = False) -> None:
    async def make(unit: Unit) -> None:
        now = clock.now()
        unit.session.add(
            ExternalAccess(
                user_id=person.id,
                patient_id=patient,
                access_level="full",
                granted_at=now,
                revoked_at=now if is_revoked else None,
            )
        )

    clinic.in_unit(make)


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["users"]]


def test_people_around_a_patient_are_staff_and_grant_holders_who_are_active(clinic: Clinic) -> None:
    """gap: disabled users are included; no ordering."""
    place, second, elsewhere = clinic.organisation(), clinic.organisation("Second"), clinic.organisation("Else")
    patient = clinic.patient(place, second)
    zoe, ben = clinic.clinician(place, username="zoe"), clinic.clinician(place, second, username="Ben")
    ann = clinic.clinician(second, username="ann")
    clinic.clinician(elsewhere, username="stranger")
    disabled = clinic.clinician(place, username="disabled")
    guest = clinic.person("guest", level=Level.EXTERNAL_HCP, profession="physiotherapist")
    former = clinic.person("former", level=Level.PATIENT_ADVOCATE, profession="patient")
    grant(clinic, guest, patient)
    grant(clinic, former, patient, is_revoked=True)
    own = clinic.person("own", level=Level.PATIENT, profession="patient", patient_id=patient)
    admin = clinic.admin(username="admin")
    admin.post(f"/api/users/{disabled.id}/deactivate")
    url = f"/api/users?patient_id={patient}"
    everybody = [ann.id, ben.id, guest.id, zoe.id]
    for insider in (zoe, ann, guest, own, admin):
        assert ids(insider.get(url)) == everybody
    body = zoe.get(url).json()
    assert (body["total"], body["next_cursor"]) == (4, None)
    assert body["users"][0] == {
        "id": ann.id,
        "username": "ann",
        "name": "ann",
        "email": "ann@example.org",
        "system_permissions": "staff",
        "is_active": True,
    }
    page = zoe.get(f"{url}&limit=3").json()
    assert ids(zoe.get(f"{url}&limit=3&cursor={page['next_cursor']}")) == everybody[3:]


def test_outsiders_learn_nothing_about_the_people_around_a_patient(clinic: Clinic) -> None:
    """gap: any login, patients included, reads staff names and emails for any patient id."""
    place, elsewhere = clinic.organisation(), clinic.organisation("Else")
    patient, other = clinic.patient(place), clinic.patient(elsewhere)
    insider = clinic.clinician(place)
    former = clinic.person(level=Level.EXTERNAL_HCP)
    grant(clinic, former, patient, is_revoked=True)
    outsiders = [clinic.clinician(elsewhere), former, clinic.person(level=Level.PATIENT, patient_id=other)]
    assert insider.get(f"/api/users?patient_id={patient}").status_code == 200
    for outsider in outsiders:
        for about in (patient, "nobody-knows", "not a fhir id"):
            answer = outsider.get(f"/api/users?patient_id={about}")
            assert (answer.status_code, answer.json()["detail"]) == (404, "Patient not found")
    assert clinic.client.get(f"/api/users?patient_id={patient}").status_code == 401
    assert insider.get("/api/users?patient_id=" + "x" * 256).status_code == 422


@pytest.mark.parametrize("blank", ["patient_id=", "patient_id=%20", "patient_id=&permission_level="])
def test_blank_patient_counts_as_absent_and_is_for_admins(clinic: Clinic, blank: str) -> None:
    """gap: an empty patient_id silently means the unfiltered mode."""
    staff, admin = clinic.person(), clinic.admin()
    assert sorted(ids(admin.get(f"/api/users?{blank}"))) == [staff.id, admin.id]
    refused = staff.get(f"/api/users?{blank}")
    assert (refused.status_code, refused.json()["detail"]) == (403, "Requires admin or superadmin permissions")


def test_admins_list_everybody_by_level_in_order_and_by_page(clinic: Clinic) -> None:
    """gap: no ordering and no paging."""
    admin = clinic.admin(username="Mo")
    patient = clinic.person("zed", level=Level.PATIENT, is_signed_in=False)
    guest = clinic.person("Guest", level=Level.EXTERNAL_HCP, is_signed_in=False)
    staff = clinic.person("abe", is_signed_in=False)
    chief = clinic.superadmin(username="Chief", is_signed_in=False)
    admin.post(f"/api/users/{staff.id}/deactivate")
    rows = admin.get("/api/users").json()
    assert [row["id"] for row in rows["users"]] == [staff.id, chief.id, guest.id, admin.id, patient.id]
    assert [row["is_active"] for row in rows["users"]] == [False, True, True, True, True]
    expected = {
        "patient": [staff.id, chief.id, admin.id, patient.id],
        "staff": [staff.id, chief.id, admin.id],
        "admin": [chief.id, admin.id],
        "superadmin": [chief.id],
    }
    for level, found in expected.items():
        assert ids(admin.get(f"/api/users?permission_level={level}")) == found
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = admin.get(f"/api/users?limit=2&cursor={cursor}").json()
        seen += [row["id"] for row in page["users"]]
        assert page["total"] == 5
        cursor = page["next_cursor"]
    assert seen == [row["id"] for row in rows["users"]]


def test_unknown_level_is_400_with_its_words(clinic: Clinic) -> None:
    admin = clinic.admin()
    for level in ("external_hcp", "patient_advocate", "emperor", "STAFF"):
        answer = admin.get(f"/api/users?permission_level={level}")
        assert (answer.status_code, answer.json()["detail"]) == (400, f"Invalid permission_level: {level}")
    for query in ("permission_level=" + "x" * 33, "level=staff", "limit=x", "cursor=WzFd"):
        assert admin.get(f"/api/users?{query}").status_code == 422


def test_details_show_rights_state_link_and_organisations(clinic: Clinic) -> None:
    """gap: is_active, roles, TOTP state, organisations and fhir_patient_id are not shown."""
    first, second = clinic.organisation("First"), clinic.organisation("Second")
    patient = clinic.patient(first)
    doctor = clinic.clinician(first, second, username="doctor", full_name="Doctor Who", patient_id=patient)
    found = clinic.admin().get(f"/api/users/{doctor.id}").json()
    competencies = found.pop("final_competencies")
    assert competencies == sorted(competencies)
    assert "prescribe_controlled_schedule_2" in competencies
    assert found == {
        "id": doctor.id,
        "username": "doctor",
        "email": "doctor@example.org",
        "name": "Doctor Who",
        "base_profession": "general_practitioner",
        "additional_competencies": [],
        "removed_competencies": [],
        "system_permissions": "staff",
        "is_active": True,
        "roles": ["Clinician"],
        "professional_registrations": [],
        "totp_enabled": False,
        "fhir_patient_id": patient,
        "organisations": [
            {"id": first, "name": "First", "is_primary": True},
            {"id": second, "name": "Second", "is_primary": False},
        ],
    }


def test_statements_do_not_grow_with_rows(clinic: Clinic) -> None:
    place = clinic.organisation()
    patient = clinic.patient(place)
    admin = clinic.admin()
    urls = (f"/api/users?patient_id={patient}", "/api/users", f"/api/organizations/{place}", "/api/organizations")

    def counts() -> list[int]:
        return [clinic.selects(functools.partial(admin.get, url)) for url in urls]

    few = counts()
    for n in range(5):
        clinic.organisation(f"Place {n}")
        clinic.patient(place)
        clinic.person(organisations=[place], is_signed_in=False)
    assert counts() == few
