"""Who may read a conversation: the same whether asked about one person or about many at once."""

from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Level
from quill.conversations import service as conversations
from quill.identity import service as identity
from quill.identity.models import UserAccount
from quill.kit.ids import ConversationId, UserId
from tests.clinic import Clinic, Person
from tests.conversations.talk import (
    Surgery,
    begin,
    change_account,
    external,
    leave_care,
    leave_organisation,
    patient_account,
    revoke,
    select,
    surgery,
)


@pytest.fixture
def place(clinic: Clinic) -> Surgery:
    return surgery(clinic)


def readers(clinic: Clinic, talk: dict[str, Any]) -> set[int]:
    """Return who of everybody may read a conversation, asked about all at once; asking about each must say the same."""
    everybody = [UserId(row.id) for row in select(clinic, sa.select(UserAccount.id))]
    number = ConversationId(talk["id"])

    async def ask() -> tuple[set[UserId], set[UserId]]:
        async with clinic.services.database.reading() as session:
            actors = (await identity.find_actors(session, clinic.services.settings, everybody)).values()
            one_by_one = {actor.person_id for actor in actors if await conversations.may_read(session, actor, number)}
            return await conversations.who_may_read(session, actors, number), one_by_one

    together, one_by_one = clinic.run(ask)
    assert together == one_by_one
    return {int(user_id) for user_id in together}


def ids(*people: Person) -> set[int]:
    return {person.id for person in people}


def test_each_kind_of_person_is_decided_as_if_asked_about_alone(clinic: Clinic, place: Surgery) -> None:
    guest, other_guest = external(clinic, place.patient), external(clinic)
    patient = patient_account(clinic, place.patient)
    stranger = patient_account(clinic, clinic.patient(clinic.organisation()))
    elsewhere = clinic.clinician(clinic.organisation("Elsewhere"))
    unqualified = clinic.clinician(place.organisation, removed_competencies=["access_patient_records"])
    admin, superadmin = clinic.admin(), clinic.superadmin()
    talk = begin(place.doctor, place.patient)
    told = readers(clinic, talk)
    assert ids(place.doctor, place.nurse, admin, superadmin) <= told
    assert not ids(other_guest, stranger, elsewhere, unqualified, guest, patient) & told


def test_the_patient_and_those_let_in_read_what_the_patient_takes_part_in(clinic: Clinic, place: Surgery) -> None:
    patient, guest = patient_account(clinic, place.patient), external(clinic, place.patient)
    talk = begin(place.doctor, place.patient, include_patient_as_participant=True)
    assert ids(patient, guest, place.doctor, place.nurse) <= readers(clinic, talk)
    revoke(clinic, guest)
    assert guest.id not in readers(clinic, talk)


def test_what_is_taken_away_shows_at_the_next_question(clinic: Clinic, place: Surgery) -> None:
    guest = external(clinic, place.patient)
    talk = begin(place.doctor, place.patient, place.nurse, guest)
    assert readers(clinic, talk) == ids(place.doctor, place.nurse, guest)
    leave_organisation(clinic, place.nurse)
    assert readers(clinic, talk) == ids(place.doctor, guest)
    change_account(clinic, place.doctor, permission_level=Level.PATIENT.value)
    assert readers(clinic, talk) == ids(guest)
    leave_care(clinic, place.patient)
    assert readers(clinic, talk) == ids(guest)
    revoke(clinic, guest)
    assert readers(clinic, talk) == set()


def test_nobody_reads_what_is_not_there(clinic: Clinic, place: Surgery) -> None:
    clinic.admin()
    talk = begin(place.doctor, place.patient)
    assert readers(clinic, {"id": talk["id"] + 1}) == set()


def test_many_people_cost_one_statement(clinic: Clinic, place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)
    people = [clinic.clinician(place.organisation) for _ in range(5)] + [clinic.admin(), external(clinic)]

    async def ask() -> set[UserId]:
        async with clinic.services.database.reading() as session:
            wanted = [UserId(person.id) for person in people]
            actors = (await identity.find_actors(session, clinic.services.settings, wanted)).values()
            return await conversations.who_may_read(session, actors, ConversationId(talk["id"]))

    # One for the people themselves.
    assert clinic.selects(lambda: clinic.run(ask)) == 2
