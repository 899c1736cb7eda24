"""One's own competencies, and the catalogues."""

import json
from typing import Any

from quill.actor import Level
from quill.identity import catalogue
from tests.clinic import Clinic, Person

URL = "/api/cbac/my-competencies"


def test_everybody_reads_their_own_in_one_order(clinic: Clinic) -> None:
    """gap: order of final_competencies can change from call to call."""
    nurse = clinic.person("nurse", profession="registered_nurse", additional_competencies=["interpret_ecg"])
    found = nurse.get(URL).json()
    expected = sorted(catalogue.PROFESSIONS["registered_nurse"] | {"interpret_ecg"})
    assert found == {
        "user_id": nurse.id,
        "username": "nurse",
        "base_profession": "registered_nurse",
        "additional_competencies": ["interpret_ecg"],
        "removed_competencies": [],
        "final_competencies": expected,
    }
    assert clinic.client.get(URL).status_code == 401
    assert clinic.person(level=Level.EXTERNAL_HCP).get(URL).status_code == 200


def test_admin_changes_their_own_and_it_counts_at_the_next_request(clinic: Clinic) -> None:
    admin = clinic.admin(username="admin")
    elsewhere = Person(clinic.client, admin.id, "admin")
    elsewhere.sign_in()
    changed = admin.patch(URL, json={"additional_competencies": ["request_plain_xray", "admit_patient"]})
    assert changed.status_code == 200
    assert changed.json()["additional_competencies"] == ["admit_patient", "request_plain_xray"]
    assert "admit_patient" in admin.get("/api/auth/me").json()["competencies"], "no new login needed"
    assert elsewhere.get("/api/auth/me").status_code == 401, "other logins end, as with every change of rights"
    lowered = admin.patch(URL, json={"removed_competencies": ["manage_users"]}).json()
    assert "manage_users" not in lowered["final_competencies"]
    assert lowered["additional_competencies"] == ["admit_patient", "request_plain_xray"], "null leaves a list"
    assert admin.patch(URL, json={"additional_competencies": None}).json() == lowered
    assert admin.patch(URL, json={}).json() == lowered
    regained = admin.patch(URL, json={"removed_competencies": []})
    assert regained.json()["error_code"] == "own_high_risk_competency", "what was given up comes back by others alone"
    assert admin.get(URL).json() == lowered


def test_unknown_or_malformed_competencies_are_422(clinic: Clinic) -> None:
    """gap: unknown competency ids are accepted and echoed."""
    admin = clinic.admin()
    before = admin.get(URL).json()
    bad: list[Any] = [
        {"additional_competencies": ["fly"]},
        {"removed_competencies": ["fly"]},
        {"additional_competencies": ["Admit_Patient"]},
        {"additional_competencies": "admit_patient"},
        {"additional_competencies": [None]},
        {"additional_competencies": ["x" * 101]},
        {"additional_competencies": ["admit_patient"] * 101},
        {"additional_competencies": ["\ud800"]},
        {"additional_competencies": ["a\x00"]},
        {"user_id": 1},
        [],
    ]
    for body in bad:
        headers = admin.csrf | {"content-type": "application/json"}
        answer = admin.client.patch(URL, content=json.dumps(body).encode(), headers=headers)
        assert (body, answer.status_code) == (body, 422)
        assert "fly" not in answer.text
    assert admin.get(URL).json() == before


def test_refusal_of_high_risk_is_in_the_audit_trail(clinic: Clinic) -> None:
    """gap: audit of high-risk competency checks is a placeholder."""
    admin = clinic.admin()
    assert admin.patch(URL, json={"additional_competencies": ["prescribe_controlled_schedule_2"]}).status_code == 403
    (row,) = clinic.audited("competencies:change")
    assert (row.outcome, row.reason, row.actor_user_id) == ("refused", "own_high_risk_competency", admin.id)


def test_catalogues_are_published_to_whoever_is_signed_in(clinic: Clinic) -> None:
    """gap: no endpoint publishes the catalogues."""
    person = clinic.person(level=Level.PATIENT)
    found = person.get("/api/cbac/catalogue").json()
    professions = {entry["id"]: entry["competencies"] for entry in found["professions"]}
    assert professions == {name: sorted(held) for name, held in catalogue.PROFESSIONS.items()}
    competencies = {entry["id"]: entry for entry in found["competencies"]}
    assert set(competencies) == set(catalogue.COMPETENCIES)
    assert competencies["interpret_ecg"] == {"id": "interpret_ecg", "category": "specialty", "risk_level": "high"}
    assert person.get("/api/roles").json() == {"roles": list(catalogue.ROLES)}
    for path in ("/api/cbac/catalogue", "/api/roles"):
        assert clinic.client.get(path).status_code == 401
