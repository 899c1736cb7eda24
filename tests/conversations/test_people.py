"""Who takes part: adding, joining, leaving, taking out."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from quill.actor import Actor, Level
from quill.conversations import service as conversations
from quill.identity import service as identity
from quill.kit.ids import ConversationId, PatientId, UserId
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.conversations.talk import (
    NOT_FOUND,
    Surgery,
    acts,
    begin,
    change_account,
    external,
    grant,
    in_list,
    leave_organisation,
    listed_ids,
    patient_account,
    read,
    refusal,
    revoke,
    send,
)
from tests.conversations.test_reading import elsewhere


def add(person: Person, talk: dict[str, Any], user_id: object, **extra: Any) -> Any:
    return person.post(f"/api/conversations/{talk['id']}/participants", {"user_id": user_id} | extra)


def join(person: Person, talk: dict[str, Any]) -> Any:
    return person.post(f"/api/conversations/{talk['id']}/join")


def remove(person: Person, talk: dict[str, Any], other: Person) -> Any:
    return person.delete(f"/api/conversations/{talk['id']}/participants/{other.id}")


def participants(person: Person, talk: dict[str, Any]) -> list[int]:
    answer = person.get(f"/api/conversations/{talk['id']}/participants")
    assert answer.status_code == 200, answer.text
    return [found["user_id"] for found in answer.json()]


def test_participant_adds_a_colleague(place: Surgery) -> None:
    """gap: the adder is not recorded."""
    talk = begin(place.doctor, place.patient)
    added = add(place.doctor, talk, place.nurse.id, role="tagged").json()
    assert (added["user_id"], added["role"], added["added_by"]) == (place.nurse.id, "tagged", place.doctor.id)
    again = add(place.doctor, talk, place.nurse.id, role="participant").json()
    assert again == added
    row = in_list(place.nurse, talk)
    assert (row["is_participant"], row["unread_count"], row["updated_at"]) == (True, 1, talk["updated_at"])
    subject = f"conversation:{talk['id']}:user:{place.nurse.id}"
    assert acts(place.clinic, subject) == [("participant:add", "allowed", place.doctor.id)]


def test_only_people_who_may_access_the_patient_are_added(clinic: Clinic, place: Surgery) -> None:
    """gap: any user can be pulled in, including patients, external users without a grant and disabled accounts."""
    talk = begin(place.doctor, place.patient)
    disabled = clinic.clinician(place.organisation)
    change_account(clinic, disabled, is_active=False)
    people = (
        disabled,
        external(clinic),
        patient_account(clinic, clinic.patient(place.organisation)),
        clinic.clinician(clinic.organisation("Far")),
        clinic.person(organisations=[place.organisation], profession="receptionist"),
    )
    for person in people:
        answer = add(place.doctor, talk, person.id)
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "user_id"])
    assert refusal(add(place.doctor, talk, 999_999)) == (404, "User not found")
    assert participants(place.doctor, talk) == [place.doctor.id]
    for person in (external(clinic, place.patient), patient_account(clinic, place.patient), clinic.admin()):
        assert add(place.doctor, talk, person.id).status_code == 200
        assert read(person, talk).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": "somebody"},
        {"user_id": 2**40},
        {"user_id": 1, "role": "initiator"},
        {"user_id": 1, "note": "x"},
    ],
)
def test_malformed_addition_changes_nothing(place: Surgery, body: dict[str, Any]) -> None:
    talk = begin(place.doctor, place.patient)
    assert place.doctor.post(f"/api/conversations/{talk['id']}/participants", body).status_code == 422
    assert participants(place.doctor, talk) == [place.doctor.id]


def test_outsider_adds_nobody(clinic: Clinic, place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)
    outsider = clinic.clinician()
    assert refusal(add(outsider, talk, outsider.id)) == NOT_FOUND


def test_colleague_joins(place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)
    joined = join(place.nurse, talk).json()
    assert (joined["user_id"], joined["role"], joined["added_by"]) == (place.nurse.id, "participant", None)
    assert join(place.nurse, talk).json() == joined
    assert join(place.doctor, talk).json()["role"] == "initiator"
    send(place.nurse, talk)
    assert ("conversation:join", "allowed", place.nurse.id) in acts(
        place.clinic, f"conversation:{talk['id']}:user:{place.nurse.id}"
    )


def test_who_cannot_join(clinic: Clinic, place: Surgery) -> None:
    account = patient_account(clinic, place.patient)
    guest = external(clinic, place.patient)
    advocate = clinic.person(level=Level.PATIENT_ADVOCATE, profession="patient")
    talk = begin(place.doctor, place.patient)
    assert refusal(join(account, talk)) == (403, "Patients cannot self-join conversations")
    for person in (guest, advocate):
        assert refusal(join(person, talk)) == (403, "External users cannot self-join conversations")
    sentence = "You must be in one of the message's organisations to join"
    assert refusal(join(elsewhere(place), talk)) == (403, sentence)
    assert refusal(join(clinic.clinician(), talk)) == NOT_FOUND
    assert refusal(join(place.nurse, {"id": 999_999})) == NOT_FOUND
    assert refusal(join(place.nurse, {"id": 2**50})) == NOT_FOUND
    assert participants(place.doctor, talk) == [place.doctor.id]


def test_admin_joins_without_an_organisation(clinic: Clinic, place: Surgery) -> None:
    """reference: admins get no exception; seed: staff may join any conversation they can see."""
    talk = begin(place.doctor, place.patient)
    assert join(clinic.admin(), talk).status_code == 200


def test_participant_outside_the_organisations_gets_the_record(clinic: Clinic, place: Surgery) -> None:
    """gap: an existing participant with no shared organisation gets 403 instead of their record."""
    person = clinic.clinician(clinic.organisation("Far"))
    grant(clinic, person, place.patient)
    talk = begin(place.doctor, place.patient, person)
    assert join(person, talk).json()["user_id"] == person.id


def test_joining_widens_nothing(clinic: Clinic, place: Surgery) -> None:
    """gap: snowballing widens the audience to the joiner's other organisations."""
    far = clinic.organisation("Far")
    joiner = clinic.clinician(place.organisation, far)
    colleague = clinic.clinician(far)
    grant(clinic, colleague, place.patient)
    talk = begin(place.doctor, place.patient)
    join(joiner, talk)
    assert listed_ids(colleague) == []


def test_participant_leaves_and_may_come_back(place: Surgery) -> None:
    """gap: participants can never be removed and cannot leave."""
    talk = begin(place.doctor, place.patient, place.nurse)
    send(place.nurse, talk)
    assert remove(place.nurse, talk, place.nurse).json() == {"ok": True}
    assert participants(place.doctor, talk) == [place.doctor.id]
    assert in_list(place.nurse, talk)["is_participant"] is False
    assert len(read(place.doctor, talk).json()["messages"]) == 2
    answer = remove(place.nurse, talk, place.nurse)
    assert refusal(answer) == (404, "Participant not found")
    assert join(place.nurse, talk).json()["user_id"] == place.nurse.id
    trail = acts(place.clinic, f"conversation:{talk['id']}:user:{place.nurse.id}")
    assert ("conversation:leave", "allowed", place.nurse.id) in trail


def test_who_takes_somebody_out(clinic: Clinic, place: Surgery) -> None:
    guest = external(clinic, place.patient)
    talk = begin(place.doctor, place.patient, place.nurse, guest)
    reader = clinic.clinician(place.organisation)
    for person in (place.nurse, guest, reader):
        answer = remove(person, talk, place.doctor)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "may_not_remove")
    assert refusal(remove(clinic.clinician(), talk, place.nurse)) == NOT_FOUND
    assert remove(place.doctor, talk, place.nurse).status_code == 200
    assert remove(clinic.admin(), talk, guest).status_code == 200
    assert refusal(read(guest, talk)) == NOT_FOUND
    assert refusal(remove(place.doctor, talk, reader)) == (404, "Participant not found")
    unknown = place.doctor.delete(f"/api/conversations/{talk['id']}/participants/{2**70}")
    assert refusal(unknown) == (404, "Participant not found")
    assert participants(place.doctor, talk) == [place.doctor.id]


def test_parallel_additions_are_all_kept(clinic: Clinic, place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)
    people = [clinic.clinician(place.organisation, is_signed_in=False) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda person: add(place.doctor, talk, person.id), people))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert set(participants(place.doctor, talk)) == {place.doctor.id, *(person.id for person in people)}


def test_access_given_again_brings_back_no_old_conversation(clinic: Clinic, place: Surgery) -> None:
    guest = external(clinic, place.patient)
    talk, other = begin(place.doctor, place.patient, guest), begin(place.doctor, place.patient, guest)

    async def end(unit: Unit) -> None:
        await conversations.end_participation(unit, Actor.job("test"), UserId(guest.id), PatientId(place.patient))

    revoke(clinic, guest)
    clinic.in_unit(end)
    clinic.in_unit(end)
    grant(clinic, guest, place.patient)
    assert listed_ids(guest) == []
    for found in (talk, other):
        assert participants(place.doctor, found) == [place.doctor.id]


def test_may_read_is_the_same_rule(clinic: Clinic, place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)
    receptionist = clinic.person(organisations=[place.organisation], profession="receptionist")

    def may(person: Person) -> bool:
        async def ask(unit: Unit) -> bool:
            actor = await identity.find_actor(unit.session, unit.settings, UserId(person.id))
            assert actor is not None
            return await conversations.may_read(unit.session, actor, ConversationId(talk["id"]))

        return bool(clinic.in_unit(ask))

    assert may(place.nurse)
    assert not may(receptionist)
    assert not may(clinic.clinician())
    leave_organisation(clinic, place.nurse)
    assert not may(place.nurse)
