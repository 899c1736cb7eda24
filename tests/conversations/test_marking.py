"""How far people have read."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Actor
from quill.conversations import service as conversations
from quill.conversations.models import ConversationParticipant
from quill.conversations.service import marking
from quill.identity import service as identity
from quill.kit.ids import ConversationId, MessageId, UserId
from quill.unit import RequestFacts, open_unit
from tests.clinic import Clinic, Person
from tests.conversations.talk import (
    NOT_FOUND,
    Surgery,
    acts,
    begin,
    count,
    in_list,
    read,
    refusal,
    select,
    send,
)


def mark(person: Person, talk: dict[str, Any], **body: Any) -> Any:
    return person.post(f"/api/conversations/{talk['id']}/read", body or None)


def unread(person: Person, talk: dict[str, Any]) -> int:
    return int(in_list(person, talk)["unread_count"])


def test_messages_of_others_count_until_they_are_read(place: Surgery) -> None:
    talk = begin(place.doctor, place.patient, place.nurse)
    send(place.doctor, talk)
    assert (unread(place.doctor, talk), unread(place.nurse, talk)) == (0, 2)
    send(place.nurse, talk)
    assert (unread(place.doctor, talk), unread(place.nurse, talk)) == (1, 2), "sending reads nothing"
    read(place.nurse, talk)
    assert (unread(place.doctor, talk), unread(place.nurse, talk)) == (1, 0)
    assert mark(place.doctor, talk).json() == {"ok": True}
    assert unread(place.doctor, talk) == 0
    assert mark(place.doctor, talk).json() == {"ok": True}


def test_marker_names_what_was_shown(place: Surgery) -> None:
    """gap: marks messages the client has not fetched yet; no message id or time can be passed."""
    talk = begin(place.doctor, place.patient, place.nurse)
    second, third = send(place.doctor, talk), send(place.doctor, talk)
    mark(place.nurse, talk, message_id=second["id"])
    assert unread(place.nurse, talk) == 1
    mark(place.nurse, talk, message_id=talk["messages"][0]["id"])
    assert unread(place.nurse, talk) == 1, "a marker never moves back"
    mark(place.nurse, talk, message_id=third["id"])
    assert unread(place.nurse, talk) == 0


def test_message_that_arrives_while_reading_stays_unread(place: Surgery, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = begin(place.doctor, place.patient, place.nurse)
    services, original = place.clinic.services, marking.mark_shown

    async def after_another_message(*args: Any) -> None:
        # Between what the reader is shown and the marker that remembers it, another message becomes durable.
        async with open_unit(services, RequestFacts("another", "test")) as unit:
            doctor = await identity.find_actor(unit.session, unit.settings, UserId(place.doctor.id))
            assert doctor is not None
            await conversations.send(unit, doctor, ConversationId(talk["id"]), "Just now")
        await original(*args)

    monkeypatch.setattr(marking, "mark_shown", after_another_message)
    assert len(read(place.nurse, talk).json()["messages"]) == 1
    monkeypatch.undo()
    assert unread(place.nurse, talk) == 1
    assert len(read(place.nurse, talk).json()["messages"]) == 2
    assert unread(place.nurse, talk) == 0


def test_marker_moved_while_another_marking_waits_is_not_moved_back(place: Surgery) -> None:
    """The one who waits learns of a message that was not there yet when it began to wait."""
    talk = begin(place.doctor, place.patient, place.nurse)
    second = send(place.doctor, talk)
    services, conversation_id = place.clinic.services, ConversationId(talk["id"])

    async def actor_of(person: Person) -> Actor:
        async with services.database.reading() as session:
            actor = await identity.find_actor(session, services.settings, UserId(person.id))
        assert actor is not None
        return actor

    async def both() -> None:
        doctor, nurse = await actor_of(place.doctor), await actor_of(place.nurse)
        is_moved = asyncio.Event()

        async def mark_newest() -> None:
            async with open_unit(services, RequestFacts("newest", "test")) as unit:
                await conversations.send(unit, doctor, conversation_id, "Just now")
                await conversations.mark_read(unit, nurse, conversation_id)
                is_moved.set()
                await asyncio.sleep(0.1)

        async def mark_second() -> None:
            await is_moved.wait()
            async with open_unit(services, RequestFacts("second", "test")) as unit:
                await conversations.mark_read(unit, nurse, conversation_id, MessageId(second["id"]))

        await asyncio.gather(mark_newest(), mark_second())

    place.clinic.run(both)
    assert unread(place.nurse, talk) == 0
    send(place.doctor, talk)
    assert unread(place.nurse, talk) == 1


def test_reading_again_writes_nothing(place: Surgery) -> None:
    """gap: a GET with a side effect."""
    talk = begin(place.doctor, place.patient, place.nurse)
    statement = sa.select(ConversationParticipant.last_read_at).where(ConversationParticipant.user_id == place.nurse.id)
    read(place.nurse, talk)
    first = select(place.clinic, statement)
    read(place.nurse, talk)
    assert select(place.clinic, statement) == first != [(None,)]


def test_reader_who_takes_no_part_marks_nothing(place: Surgery) -> None:
    talk = begin(place.doctor, place.patient)
    read(place.nurse, talk)
    assert refusal(mark(place.nurse, talk)) == NOT_FOUND
    assert count(place.clinic, ConversationParticipant) == 1
    trail = acts(place.clinic, f"conversation:{talk['id']}")
    assert ("message:mark-read", "refused", place.nurse.id) in trail


def test_marker_must_be_a_message_of_the_conversation(clinic: Clinic, place: Surgery) -> None:
    talk, other = begin(place.doctor, place.patient, place.nurse), begin(place.doctor, place.patient)
    for number in (other["messages"][0]["id"], 999_999):
        assert refusal(mark(place.nurse, talk, message_id=number)) == (404, "Message not found")
    for body in ({"message_id": 0}, {"message_id": "last"}, {"until": 3}):
        assert place.nurse.post(f"/api/conversations/{talk['id']}/read", body).status_code == 422
    assert refusal(mark(clinic.clinician(), talk)) == NOT_FOUND
    assert refusal(mark(place.nurse, {"id": 999_999})) == NOT_FOUND
    without_token = place.nurse.client.post(f"/api/conversations/{talk['id']}/read")
    assert refusal(without_token) == (403, "CSRF failed")
    assert unread(place.nurse, talk) == 1


def test_empty_bodies_are_taken(place: Surgery) -> None:
    talk = begin(place.doctor, place.patient, place.nurse)
    at = f"/api/conversations/{talk['id']}/read"
    for body in (None, {}, {"message_id": None}):
        assert place.nurse.post(at, body).status_code == 200


def test_paging_back_marks_nothing(place: Surgery) -> None:
    talk = begin(place.doctor, place.patient, place.nurse)
    place.nurse.get(f"/api/conversations/{talk['id']}/messages")
    assert unread(place.nurse, talk) == 1
