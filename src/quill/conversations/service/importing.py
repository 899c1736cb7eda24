"""Bringing in whole conversations at once, for demonstrations and moves; through the same records, without notices."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.conversations import filling, numbers
from quill.conversations.appending import SMALLEST_STEP, message_row
from quill.conversations.models import Message
from quill.identity import service as identity
from quill.kit import ids
from quill.kit.documents import Document
from quill.kit.ids import ConversationId, OrganisationId, PatientId, UserId
from quill.ports.fhir_communication import (
    ConversationFacts,
    MessageFacts,
    ParticipantFacts,
    conversation_document,
    message_document,
)
from quill.ports.fhir_meta import with_source
from quill.unit import Unit


@dataclass(frozen=True, slots=True)
class PastMessage:
    """A message to bring in: who sent it when, and its text."""

    sender_id: UserId
    sent_at: datetime.datetime
    body: str


@dataclass(frozen=True, slots=True)
class PastConversation:
    """A conversation to bring in.

    Attributes:
        patient_id: whom it is about.
        subject: its subject line, if any.
        organisation_ids: whose it is.
        participant_ids: who takes part besides the sender of the first message.
        messages: one or more, oldest first, sent by people who take part.
        status: ``new``, ``active``, ``resolved`` or ``closed``, set after the last message.
    """

    patient_id: PatientId
    subject: str | None
    organisation_ids: Sequence[OrganisationId]
    participant_ids: Sequence[UserId]
    messages: Sequence[PastMessage]
    status: str = "active"


async def import_conversations(
    unit: Unit, actor: Actor, conversations: Sequence[PastConversation]
) -> list[ConversationId]:
    """Bring in conversations with all their messages, in the unit's transaction; nobody is notified.

    For an embedded FHIR store, which shares the transaction; a hundred conversations a unit is a good measure. Who may
    access whom is the caller's business here.

    Args:
        unit: the transaction.
        actor: who brings them in.
        conversations: what to bring in.

    Returns:
        Their numbers, in the same order.

    Raises:
        ValueError: the FHIR store stands by itself, somebody is unknown or disabled, or a conversation is empty.
    """
    if not unit.fhir.joins_transaction:
        raise ValueError("Conversations are brought in at once only where the FHIR store shares the transaction.")
    everybody = {
        user_id
        for found in conversations
        for user_id in (*found.participant_ids, *(message.sender_id for message in found.messages))
    }
    people = await identity.find_actors(unit.session, unit.settings, everybody)
    if people.keys() != everybody or not all(found.messages for found in conversations):
        raise ValueError("Everybody in a conversation must be known, and a conversation begins with a message.")
    given = await numbers.take(unit.session, "conversation", len(conversations))
    headers = [_header(found, number, people) for found, number in zip(conversations, given, strict=True)]
    messages = await numbers.take(unit.session, "message", sum(len(found.messages) for found in conversations))
    following = iter(messages)
    rows: list[dict[str, Any]] = []
    documents: list[Document] = []
    for header, found in zip(headers, conversations, strict=True):
        documents.append(conversation_document(header))
        for facts in _messages(header, found, following, people):
            documents.append(message_document(facts))
            rows.append(message_row(facts, header.number, created_at=facts.sent_at, amends_id=None))
        audit.record(
            unit,
            actor,
            Act.CONVERSATION_CREATE,
            patient_id=found.patient_id,
            subject=f"conversation:{header.number}",
            reason="import",
        )
    await unit.fhir.write_new([with_source(document, unit.settings.source_uri) for document in documents])
    await filling.insert_conversations(unit.session, [(header, 1) for header in headers])
    await filling.insert(unit.session, Message, rows)
    await filling.settle(unit.session, given)
    return [ConversationId(number) for number in given]


def _header(found: PastConversation, number: int, people: dict[UserId, Actor]) -> ConversationFacts:
    first, last = found.messages[0], found.messages[-1]
    creator = people[first.sender_id]
    others = sorted({*found.participant_ids, *(message.sender_id for message in found.messages)} - {first.sender_id})
    return ConversationFacts(
        fhir_id=ids.new_uuid(),
        number=number,
        patient_id=found.patient_id,
        subject=found.subject,
        created_by=first.sender_id,
        created_by_display=creator.display_name,
        created_at=first.sent_at,
        includes_patient=False,
        organisation_ids=tuple(found.organisation_ids),
        status=found.status,
        # Everything a message does to a status has been done by then.
        status_at=first.sent_at if found.status == "new" else last.sent_at + len(found.messages) * SMALLEST_STEP,
        status_by=first.sender_id,
        participants=(
            ParticipantFacts(first.sender_id, creator.display_name, "initiator", first.sent_at, None),
            *(
                ParticipantFacts(user_id, people[user_id].display_name, "participant", first.sent_at, first.sender_id)
                for user_id in others
            ),
        ),
    )


def _messages(
    header: ConversationFacts, found: PastConversation, following: Any, people: dict[UserId, Actor]
) -> list[MessageFacts]:
    facts: list[MessageFacts] = []
    for message in found.messages:
        sent_at = message.sent_at if not facts else max(message.sent_at, facts[-1].sent_at + SMALLEST_STEP)
        facts.append(
            MessageFacts(
                fhir_id=ids.new_uuid(),
                number=next(following),
                conversation_fhir_id=header.fhir_id,
                patient_id=header.patient_id,
                sender_id=message.sender_id,
                sender_display=people[message.sender_id].display_name,
                body=message.body,
                sent_at=sent_at,
                amends_fhir_id=None,
            )
        )
    return facts
