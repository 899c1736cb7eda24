"""Beginning a conversation."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from quill.actor import Level
from quill.app import create_app
from quill.patients.models import PatientIndex
from quill.settings import Settings
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.conversations.talk import (
    Surgery,
    acts,
    begin,
    change_account,
    counts,
    execute,
    external,
    instant,
    leave_organisation,
    listed_ids,
    patient_account,
    read,
    refusal,
    try_begin,
)


def test_clinician_begins_a_conversation_with_a_colleague(place: Surgery) -> None:
    made = begin(place.doctor, place.patient, place.nurse, subject="  Hip  ")
    assert made["subject"] == "Hip"
    assert (made["status"], made["patient_id"]) == ("new", place.patient)
    assert (made["is_participant"], made["can_write"], made["include_patient_as_participant"]) == (True, True, False)
    assert [(p["user_id"], p["display_name"], p["role"], p["added_by"]) for p in made["participants"]] == [
        (place.doctor.id, "Dr Ada Hart", "initiator", None),
        (place.nurse.id, place.nurse.username, "participant", place.doctor.id),
    ]
    [message] = made["messages"]
    assert (message["body"], message["sender_id"], message["is_amendment"], message["amends_id"]) == (
        "How is the hip?",
        place.doctor.id,
        False,
        None,
    )
    assert made["next_cursor"] is None
    assert instant(made["created_at"]).utcoffset() is not None
    assert made["created_at"].endswith("Z")
    assert read(place.nurse, made).json()["messages"] == made["messages"]
    assert ("conversation:create", "allowed", place.doctor.id) in acts(place.clinic, f"conversation:{made['id']}")


def test_record_in_fhir_holds_what_the_conversation_is(place: Surgery) -> None:
    """gap: the subject line and participants exist only in SQL."""
    made = begin(place.doctor, place.patient, place.nurse, subject="Hip")

    async def header(unit: Unit) -> Any:
        return await unit.fhir.find("Communication", made["fhir_conversation_id"])

    document = place.clinic.in_unit(header).document
    assert document["topic"] == {"text": "Hip"}
    assert "partOf" not in document
    assert [r["identifier"] for r in document["recipient"]] == [
        {"system": "urn:quill:user", "value": str(person.id)} for person in (place.doctor, place.nurse)
    ]

    async def message(unit: Unit) -> Any:
        return await unit.fhir.find("Communication", made["messages"][0]["fhir_communication_id"])

    document = place.clinic.in_unit(message).document
    assert document["partOf"] == [{"reference": f"Communication/{made['fhir_conversation_id']}"}]
    assert document["payload"] == [{"contentString": "How is the hip?"}]
    assert document["subject"] == {"reference": f"Patient/{place.patient}"}
    assert document["sender"]["extension"] == [
        {"url": "urn:quillmedical:sender-user-id", "valueInteger": place.doctor.id}
    ]


def test_outsider_is_told_there_is_no_such_patient(clinic: Clinic, place: Surgery) -> None:
    outsider = clinic.clinician(clinic.organisation("Elsewhere"))
    before = counts(clinic)
    assert refusal(try_begin(outsider, place.patient)) == (404, "Patient not found")
    assert refusal(try_begin(outsider, "no-such-patient")) == (404, "Patient not found")
    assert refusal(try_begin(outsider, "no such id")) == (404, "Patient not found")
    assert counts(clinic) == before


def test_insider_without_the_competency_is_refused(clinic: Clinic, place: Surgery) -> None:
    receptionist = clinic.person(organisations=[place.organisation], profession="receptionist")
    answer = try_begin(receptionist, place.patient)
    assert (answer.status_code, answer.json()["error_code"]) == (403, "competency_missing")


def test_nobody_begins_a_conversation_without_login_or_token(client: TestClient, place: Surgery) -> None:
    body = {"patient_id": place.patient, "initial_message": "Hello"}
    assert client.post("/api/conversations", json=body).status_code == 401
    answer = place.doctor.client.post("/api/conversations", json=body)
    assert refusal(answer) == (403, "CSRF failed")
    assert listed_ids(place.doctor) == []


def test_admin_is_told_when_the_patient_is_unknown(clinic: Clinic) -> None:
    """gap: the patient is not looked up in FHIR."""
    assert refusal(try_begin(clinic.admin(), "no-such-patient")) == (404, "Patient not found")


def test_deactivated_patient_takes_no_new_conversation(clinic: Clinic, place: Surgery) -> None:
    execute(clinic, sa.update(PatientIndex).values(is_active=False))
    assert try_begin(place.doctor, place.patient).json()["error_code"] == "patient_deactivated"


@pytest.mark.parametrize("who", ["patient", "external", "admin"])
def test_staff_see_what_is_begun_from_outside_their_organisation(clinic: Clinic, place: Surgery, who: str) -> None:
    """gap: such a conversation is attached to no organisation, so no staff member ever sees it."""
    second = clinic.organisation("Hospital")
    patient = clinic.patient(place.organisation, second)
    makers: dict[str, Callable[[], Person]] = {
        "patient": lambda: patient_account(clinic, patient),
        "external": lambda: external(clinic, patient),
        "admin": clinic.admin,
    }
    creator = makers[who]()
    made = begin(creator, patient)
    assert listed_ids(place.nurse) == [made["id"]]
    assert listed_ids(clinic.clinician(second)) == [made["id"]]


def test_conversation_belongs_to_the_shared_organisations_only(clinic: Clinic, place: Surgery) -> None:
    second = clinic.organisation("Hospital")
    patient = clinic.patient(place.organisation, second)
    made = begin(place.doctor, patient)
    assert listed_ids(place.nurse) == [made["id"]]
    assert listed_ids(clinic.clinician(second)) == []
    admin = clinic.person(level=Level.ADMIN, profession="system_administrator", organisations=[second])
    begin(admin, patient)
    assert len(listed_ids(place.nurse)) == 1


def test_patient_takes_part_when_included(clinic: Clinic, place: Surgery) -> None:
    """gap: include_patient_as_participant is stored and echoed but adds nobody."""
    account = patient_account(clinic, place.patient)
    made = begin(place.doctor, place.patient, include_patient_as_participant=True)
    assert made["include_patient_as_participant"] is True
    assert {p["user_id"] for p in made["participants"]} == {place.doctor.id, account.id}
    answer = account.post(f"/api/conversations/{made['id']}/messages", {"body": "Thank you"})
    assert answer.status_code == 200


def test_patient_without_an_account_cannot_be_included(place: Surgery) -> None:
    answer = try_begin(place.doctor, place.patient, include_patient_as_participant=True)
    assert (answer.status_code, answer.json()["error_code"]) == (409, "patient_has_no_account")
    assert counts(place.clinic) == (0, 0, 0)


def test_repeated_and_own_ids_are_ignored(place: Surgery) -> None:
    """gap: an unknown or repeated id is a 500 after the FHIR write."""
    made = begin(place.doctor, place.patient, place.nurse, place.nurse, place.doctor)
    assert [p["user_id"] for p in made["participants"]] == [place.doctor.id, place.nurse.id]


def test_everybody_named_must_be_allowed(clinic: Clinic, place: Surgery) -> None:
    """gap: participant ids are not checked for access."""
    disabled = clinic.clinician(place.organisation)
    change_account(clinic, disabled, is_active=False)
    former = external(clinic)
    unfit = clinic.person(organisations=[place.organisation], profession="receptionist")
    elsewhere = clinic.clinician(clinic.organisation("Elsewhere"))
    another_patient = patient_account(clinic, clinic.patient(place.organisation))
    for person in (disabled, former, unfit, elsewhere, another_patient):
        answer = try_begin(place.doctor, place.patient, place.nurse, person)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["body", "participant_ids"]
    unknown = try_begin(place.doctor, place.patient, participant_ids=[999_999])
    assert unknown.status_code == 422
    assert counts(clinic) == (0, 0, 0)
    allowed = begin(place.doctor, place.patient, external(clinic, place.patient), clinic.admin())
    assert len(allowed["participants"]) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"initial_message": ""},
        {"initial_message": " \n\t"},
        {"initial_message": "x" * 10_001},
        {"initial_message": "a\x00b"},
        {"initial_message": "\ud800"},
        {"initial_message": 7},
        {"initial_message": None},
        {"subject": "x" * 501},
        {"subject": ["Hip"]},
        {"participant_ids": ["somebody"]},
        {"participant_ids": [-1]},
        {"participant_ids": [True]},
        {"participant_ids": [2**63]},
        {"participant_ids": None},
        {"include_patient_as_participant": "perhaps"},
        {"patient_id": ""},
        {"patient_id": None},
        {"status": "closed"},
    ],
)
def test_malformed_conversation_changes_nothing(place: Surgery, change: dict[str, Any]) -> None:
    body = {"patient_id": place.patient, "initial_message": "Hello"} | change
    # Written by hand: the client itself would refuse half a surrogate pair.
    answer = place.doctor.client.post(
        "/api/conversations",
        content=json.dumps(body).encode(),
        headers=place.doctor.csrf | {"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert "Hello" not in answer.text
    assert counts(place.clinic) == (0, 0, 0)


def test_longest_message_and_blank_subject_are_taken(place: Surgery) -> None:
    made = begin(place.doctor, place.patient, text="ü" * 10_000, subject="   ")
    assert made["subject"] is None
    assert made["messages"][0]["body"] == "ü" * 10_000


def test_repeated_call_with_the_same_key_answers_the_first_conversation(place: Surgery) -> None:
    """gap: no idempotency key, so a retry duplicates."""
    key = {"Idempotency-Key": "begin-1"}
    first = begin(place.doctor, place.patient, headers=key)
    again = begin(place.doctor, place.patient, headers=key)
    assert again == first
    assert counts(place.clinic) == (1, 1, 1)
    other = try_begin(place.doctor, place.patient, text="Another", headers=key)
    assert (other.status_code, other.json()["error_code"]) == (409, "idempotency_key_reused")
    # Somebody else's key of the same name is another key.
    assert begin(place.nurse, place.patient, headers=key)["id"] != first["id"]


def test_repeated_call_is_not_answered_to_somebody_who_lost_access(place: Surgery) -> None:
    key = {"Idempotency-Key": "begin-1"}
    begin(place.doctor, place.patient, headers=key)
    leave_organisation(place.clinic, place.doctor)
    assert refusal(try_begin(place.doctor, place.patient, headers=key)) == (404, "Conversation not found")


def test_clinical_services_switched_off(settings: Settings) -> None:
    off = settings.model_copy(update={"clinical_services_enabled": False})
    with TestClient(create_app(off), raise_server_exceptions=False) as client:
        clinic = Clinic(client)
        person = clinic.clinician()
        for answer in (
            person.get("/api/conversations"),
            person.get("/api/conversations/1"),
            person.post("/api/conversations/1/read"),
            try_begin(person, "p-1"),
        ):
            assert refusal(answer) == (503, "Clinical services are not available in this deployment")
