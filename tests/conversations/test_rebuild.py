"""The tables made anew from FHIR alone; many conversations brought in at once."""

import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Actor
from quill.conversations import service as conversations
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant, Message
from quill.conversations.rebuild import NumberGivenTwice, Rebuilt, rebuild_projection
from quill.conversations.service import PastConversation, PastMessage
from quill.errors import FhirUnavailable
from quill.kit import clock, ids
from quill.kit.ids import OrganisationId, PatientId, UserId
from quill.ports.fhir import SearchQuery
from quill.ports.fhir_communication import is_header
from quill.unit import Unit
from tests.conversations.talk import (
    Surgery,
    begin,
    counts,
    execute,
    external,
    in_list,
    listed,
    listed_ids,
    patient_account,
    read,
    send,
)
from tests.remote_like import Line, with_remote_fhir

TABLES = (Message, ConversationParticipant, ConversationOrganisation, Conversation)


def truncate(place: Surgery) -> None:
    for table in TABLES:
        execute(place.clinic, sa.delete(table).execution_options(synchronize_session=False))


def rebuild(place: Surgery) -> Rebuilt:
    rebuilt: Rebuilt = place.clinic.run(rebuild_projection, place.clinic.services)
    return rebuilt


def answers(*people: Any) -> list[Any]:
    """Return everything the API shows some people, without marking anything read."""
    shown: list[Any] = []
    for person in people:
        rows = listed(person)
        shown.append(rows)
        for row in rows:
            at = f"/api/conversations/{row['id']}"
            shown.append(person.get(f"{at}/messages").json())
            shown.append(person.get(f"{at}/participants").json())
    return shown


def fill(place: Surgery) -> list[dict[str, Any]]:
    """Have conversations of every kind: statuses by hand and by reply, amendments, people come and gone."""
    account = patient_account(place.clinic, place.patient)
    talks = [begin(place.doctor, place.patient, place.nurse, subject=f"Talk {number}") for number in range(6)]
    talks.append(begin(account, place.patient))
    talks.append(begin(place.doctor, place.patient, include_patient_as_participant=True))
    at = "/api/conversations"
    send(place.nurse, talks[0])
    place.nurse.patch(f"{at}/{talks[1]['id']}", {"status": "resolved"})
    place.nurse.patch(f"{at}/{talks[2]['id']}", {"status": "resolved"})
    send(place.doctor, talks[2])
    place.nurse.patch(f"{at}/{talks[3]['id']}", {"status": "closed"})
    first = send(place.doctor, talks[4], "Left")
    send(place.doctor, talks[4], "Right " + "x" * 300, amends_id=first["id"])
    place.nurse.delete(f"{at}/{talks[4]['id']}/participants/{place.nurse.id}")
    place.doctor.post(f"{at}/{talks[5]['id']}/participants", {"user_id": external(place.clinic, place.patient).id})
    return talks


def test_everything_but_the_read_markers_comes_back(place: Surgery) -> None:
    """Source: decisions, rule 30."""
    fill(place)
    admin = place.clinic.admin()
    people = (place.doctor, place.nurse, admin)
    before, rows = answers(*people), counts(place.clinic)
    truncate(place)
    assert listed_ids(place.doctor) == []
    rebuilt = rebuild(place)
    assert (rebuilt.conversations, rebuilt.messages, rebuilt.ignored) == (rows[0], rows[2], 0)
    assert answers(*people) == before
    talk = begin(place.doctor, place.patient)
    # PostgreSQL's sequences may leave a number out; none is given twice.
    assert talk["id"] > rows[0], "numbers go on where they were"
    assert talk["messages"][0]["id"] > rows[2]


def test_rebuilding_keeps_how_far_people_have_read(place: Surgery) -> None:
    talks = fill(place)
    read(place.nurse, talks[0])
    send(place.doctor, talks[0])
    read(place.doctor, talks[0])
    before = answers(place.doctor, place.nurse)
    rebuild(place)
    assert answers(place.doctor, place.nurse) == before
    assert in_list(place.nurse, talks[0])["unread_count"] == 1
    truncate(place)
    rebuild(place)
    assert in_list(place.nurse, talks[0])["unread_count"] == 2


def test_communications_of_others_are_left_alone(place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)

    async def write(unit: Unit) -> None:
        stranger = {"resourceType": "Communication", "id": ids.new_uuid(), "status": "completed"}
        await unit.fhir.write(stranger)
        header = {"identifier": [{"system": "urn:quill:conversation", "value": "77"}]}
        await unit.fhir.write(stranger | header | {"id": ids.new_uuid()})

    place.clinic.in_unit(write)
    assert rebuild(place) == Rebuilt(conversations=1, messages=1, ignored=2)
    assert listed_ids(place.doctor) == [talk["id"]]


def test_store_that_does_not_answer_changes_nothing(place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)
    line = Line()
    line.serves_a_job = True
    line.cut(FhirUnavailable())
    with pytest.raises(FhirUnavailable):
        place.clinic.run(rebuild_projection, with_remote_fhir(place.clinic.services, line))
    assert listed_ids(place.doctor) == [talk["id"]]


def test_many_conversations_are_brought_in_as_if_they_had_been_written(place: Surgery) -> None:
    now = clock.now()

    def past(status: str, *senders: int) -> PastConversation:
        return PastConversation(
            patient_id=PatientId(place.patient),
            subject="Old",
            organisation_ids=[OrganisationId(place.organisation)],
            participant_ids=[UserId(place.nurse.id)],
            messages=[
                PastMessage(UserId(sender), now - datetime.timedelta(days=1), f"Message {number}")
                for number, sender in enumerate(senders)
            ],
            status=status,
        )

    doctor, nurse = place.doctor.id, place.nurse.id

    async def bring_in(unit: Unit) -> list[int]:
        wanted = [past("active", doctor, nurse, doctor), past("closed", nurse), past("new", doctor)]
        return [int(number) for number in await conversations.import_conversations(unit, Actor.job("demo"), wanted)]

    made = place.clinic.in_unit(bring_in)
    assert sorted(listed_ids(place.nurse)) == made
    assert [in_list(place.nurse, {"id": number})["status"] for number in made] == ["active", "closed", "new"]
    assert [in_list(place.nurse, {"id": number})["unread_count"] for number in made] == [2, 0, 1]
    assert [m["body"] for m in read(place.doctor, {"id": made[0]}).json()["messages"]] == [
        "Message 0",
        "Message 1",
        "Message 2",
    ]
    send(place.nurse, {"id": made[0]})
    before = answers(place.nurse)
    rebuild(place)
    assert answers(place.nurse) == before


def test_bringing_in_wants_known_people_and_a_message(place: Surgery) -> None:
    async def bring_in(unit: Unit) -> None:
        empty = PastConversation(PatientId(place.patient), None, [], [], [])
        await conversations.import_conversations(unit, Actor.job("demo"), [empty])

    with pytest.raises(ValueError, match="begins with a message"):
        place.clinic.in_unit(bring_in)
    assert counts(place.clinic) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["conversation", "message"])
def test_two_records_of_one_number_are_told_and_nothing_changes(place: Surgery, kind: str) -> None:
    """As on a FHIR server to which two clinics write."""
    begin(place.doctor, place.patient)
    before = answers(place.doctor)

    async def copy_one(unit: Unit) -> None:
        found = await unit.fhir.search("Communication", SearchQuery(), limit=10)
        wanted = next(r for r in found.resources if is_header(r.document) == (kind == "conversation"))
        await unit.fhir.write({**wanted.document, "id": "of-another-clinic"})

    place.clinic.in_unit(copy_one)
    with pytest.raises(NumberGivenTwice, match="of-another-clinic"):
        rebuild(place)
    assert answers(place.doctor) == before
