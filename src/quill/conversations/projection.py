"""Conversations and messages as intents: how they are written to FHIR, and how they are projected into tables."""

import datetime
from typing import Any

import sqlalchemy as sa

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.conversations import appending, headers, notices, queries
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant
from quill.errors import FhirRefused, StaleEdit
from quill.kit.clock import rfc3339
from quill.kit.documents import Document
from quill.kit.ids import ConversationId, PatientId, UserId
from quill.ports.fhir import StoredResource
from quill.ports.fhir_communication import (
    ConversationFacts,
    MessageFacts,
    ParticipantFacts,
    conversation_facts,
    message_facts,
)
from quill.unit import Unit


class ConversationKind:
    """A conversation begun: the header, and the first message.

    The payload holds both documents. A header without a message is a beginning that came to nothing: nobody is shown
    it.
    """

    name = "conversation"

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the FHIR store shares the unit's transaction."""
        return unit.fhir.joins_transaction

    async def write(self, unit: Unit, payload: Document) -> None:
        """Write the header, which the message refers to, then the message.

        A header that is there already is left as it is: it may have changed since.
        """
        try:
            await unit.fhir.write(payload["header"], if_match=0)
        except StaleEdit:
            await headers.read(unit.fhir, payload["header"]["id"])
        await unit.fhir.write(payload["message"])

    async def has_landed(self, unit: Unit, payload: Document) -> bool:
        """Tell whether both are there; the message is written last."""
        return await unit.fhir.find("Communication", payload["message"]["id"]) is not None

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Add the conversation with its people, its organisations and its first message."""
        facts, first = await _without_ended(unit, _facts_of(payload["header"])), _message_of(payload["message"])
        if await queries.find_number_of_conversation(unit.session, facts.fhir_id) is None:
            await _insert_conversation(unit, facts)
            # Nobody else sees it yet.
            unit.note_lock(appending.lock_name(facts.number))
            await appending.append(unit, first, ConversationId(facts.number), amends_id=None)
            audit.record(
                unit,
                actor,
                Act.CONVERSATION_CREATE,
                patient_id=PatientId(facts.patient_id),
                subject=f"conversation:{facts.number}",
            )
        return {"conversation_id": facts.number, "message_id": first.number}


class MessageKind:
    """One message; the payload holds the document, and the numbers of its conversation and of what it amends."""

    name = "message"

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the FHIR store shares the unit's transaction."""
        return unit.fhir.joins_transaction

    async def write(self, unit: Unit, payload: Document) -> None:
        """Write the message; the same content again is harmless."""
        await unit.fhir.write(payload["message"])

    async def has_landed(self, unit: Unit, payload: Document) -> bool:
        """Tell whether the store holds it."""
        return await unit.fhir.find("Communication", payload["message"]["id"]) is not None

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Add the message to its conversation, also to one closed meanwhile: it is in the record already."""
        facts = _message_of(payload["message"])
        conversation_id = ConversationId(payload["conversation_id"])
        created_at, is_new = await appending.append(unit, facts, conversation_id, amends_id=payload["amends_id"])
        if is_new:
            audit.record(
                unit,
                actor,
                Act.MESSAGE_SEND if payload["amends_id"] is None else Act.MESSAGE_AMEND,
                patient_id=PatientId(facts.patient_id),
                subject=f"conversation:{conversation_id}",
            )
        return {"message_id": facts.number, "created_at": rfc3339(created_at)}


class ChangeKind:
    """A change of the header; the payload holds the change, the conversation, and the audit trail's words for it."""

    name = "conversation-change"

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the FHIR store shares the unit's transaction."""
        return unit.fhir.joins_transaction

    async def write(self, unit: Unit, payload: Document) -> Document:
        """Make the change to the header as it is now; returns the header with it."""
        return _written(await headers.apply(unit, payload["fhir_id"], payload["change"]))

    async def has_landed(self, unit: Unit, payload: Document) -> Document | bool:
        """Return the header if it shows the change, otherwise ``False``."""
        stored, facts = await headers.read(unit.fhir, payload["fhir_id"])
        return _written(stored) if headers.applied(facts, payload["change"]) == facts else False

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Bring people and status up to date with the header, other people's changes included.

        A header that is newer has been projected already, and with it this change.
        """
        row = await _locked(unit, ConversationId(payload["conversation_id"]))
        await _bring_up_to_date(unit, row, payload["written"])
        audit.record(
            unit, actor, Act(payload["act"]), patient_id=PatientId(row.patient_id), subject=payload["audit_subject"]
        )
        return {"conversation_id": row.id}


class EndKind(ChangeKind):
    """The header's correction after somebody's part was ended in the tables; left to the sweep, and audited by it.

    The payload holds the change and the conversation.
    """

    name = "participation-end"

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Bring the conversation up to date with whatever else the header says by now."""
        del actor
        row = await _locked(unit, ConversationId(payload["conversation_id"]))
        await _bring_up_to_date(unit, row, payload["written"])
        return {"conversation_id": row.id}


CONVERSATION_KIND = ConversationKind()
MESSAGE_KIND = MessageKind()
CHANGE_KIND = ChangeKind()
END_KIND = EndKind()
KINDS = (CONVERSATION_KIND, MESSAGE_KIND, CHANGE_KIND, END_KIND)


def conversation_row(facts: ConversationFacts) -> dict[str, Any]:
    """Return the columns of ``conversation`` that follow from a header, as at its beginning."""
    return {
        "id": facts.number,
        "fhir_conversation_id": facts.fhir_id,
        "header_version": 1,
        "patient_id": facts.patient_id,
        "subject": facts.subject,
        "status": facts.status,
        "status_changed_at": facts.status_at,
        "status_changed_by_user_id": facts.status_by,
        "include_patient_as_participant": facts.includes_patient,
        "created_by_user_id": facts.created_by,
        "created_at": facts.created_at,
        "updated_at": facts.created_at,
        "last_message_preview": None,
        "last_message_at": None,
    }


def participant_row(
    conversation_id: int, participant: ParticipantFacts, *, active_at: datetime.datetime, unread_count: int = 0
) -> dict[str, Any]:
    """Return the columns of ``conversation_participant`` for somebody who has read nothing yet."""
    return {
        "conversation_id": conversation_id,
        "user_id": participant.user_id,
        "role": participant.role,
        "joined_at": participant.joined_at,
        "added_by_user_id": participant.added_by,
        "last_read_message_id": None,
        "last_read_at": None,
        "unread_count": unread_count,
        "active_at": active_at,
    }


async def _insert_conversation(unit: Unit, facts: ConversationFacts) -> None:
    session = unit.session
    await session.execute(sa.insert(Conversation), conversation_row(facts))
    await session.execute(
        sa.insert(ConversationParticipant),
        [participant_row(facts.number, found, active_at=facts.created_at) for found in facts.participants],
    )
    if facts.organisation_ids:
        await session.execute(
            sa.insert(ConversationOrganisation),
            [
                {"conversation_id": facts.number, "organisation_id": found, "active_at": facts.created_at}
                for found in facts.organisation_ids
            ],
        )


async def _bring_up_to_date(unit: Unit, row: Conversation, written: Document) -> None:
    """Bring a conversation up to date with a version of its header; an older one than it has seen changes nothing."""
    if written["version"] <= row.header_version:
        return
    facts = _facts_of(written["header"])
    row.header_version = written["version"]
    await _bring_status_up_to_date(unit, row, facts)
    await _bring_people_up_to_date(unit, row, await _without_ended(unit, facts))


async def _without_ended(unit: Unit, facts: ConversationFacts) -> ConversationFacts:
    # The header may have been written before somebody's access ended, or not have heard of it yet.
    ends = await queries.participation_ends(unit.session, PatientId(facts.patient_id))
    return headers.without_ended(facts, ends)


async def _bring_status_up_to_date(unit: Unit, row: Conversation, facts: ConversationFacts) -> None:
    if facts.status_at <= row.status_changed_at:
        return
    row.status = facts.status
    row.status_changed_at = facts.status_at
    row.status_changed_by_user_id = facts.status_by
    row.updated_at = max(row.updated_at, facts.status_at)
    await unit.session.flush()
    await appending.show_activity(unit, ConversationId(row.id), row.updated_at)
    await notices.after_status(unit, ConversationId(row.id), PatientId(row.patient_id), row.status)


async def _bring_people_up_to_date(unit: Unit, row: Conversation, facts: ConversationFacts) -> None:
    conversation_id = ConversationId(row.id)
    known = set(await queries.participant_ids(unit.session, conversation_id))
    wanted = {found.user_id: found for found in facts.participants}
    if gone := known - wanted.keys():
        await unit.session.execute(
            sa.delete(ConversationParticipant)
            .where(
                ConversationParticipant.conversation_id == conversation_id, ConversationParticipant.user_id.in_(gone)
            )
            .execution_options(synchronize_session=False)
        )
    for user_id in sorted(wanted.keys() - known):
        unread = await queries.count_of_others(unit.session, conversation_id, UserId(user_id))
        await unit.session.execute(
            sa.insert(ConversationParticipant),
            participant_row(row.id, wanted[user_id], active_at=row.updated_at, unread_count=unread),
        )


async def _locked(unit: Unit, conversation_id: ConversationId) -> Conversation:
    row = await queries.lock_conversation(unit.session, conversation_id)
    if row is None:
        raise FhirRefused("The patient record store holds a header of no conversation Quill knows")
    return row


def _written(stored: StoredResource) -> Document:
    return {"version": stored.version, "header": stored.document}


def _facts_of(document: Document) -> ConversationFacts:
    facts = conversation_facts(document)
    if facts is None:
        raise FhirRefused("The record of this conversation is not readable")
    return facts


def _message_of(document: Document) -> MessageFacts:
    facts = message_facts(document)
    if facts is None:
        raise FhirRefused("The record of this message is not readable")
    return facts
