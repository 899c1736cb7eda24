"""Who takes part: adding somebody, joining, leaving, taking somebody out."""

import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from quill.access import service as access
from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.conversations import headers, queries
from quill.conversations.models import ConversationParticipant, ParticipationEnd
from quill.conversations.notices import READING
from quill.conversations.projection import END_KIND
from quill.conversations.queries import ConversationRow
from quill.conversations.schemas import OkOut, ParticipantIn, ParticipantOut
from quill.conversations.service import changing, finding, wire
from quill.conversations.visibility import about_related_patients, everything
from quill.errors import (
    ConversationNotFound,
    MayNotJoin,
    MayNotRemove,
    ParticipantNotFound,
    Unprocessable,
    UserNotFound,
)
from quill.identity import service as identity
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import ConversationId, PatientId, UserId
from quill.patients import service as patients
from quill.ports.fhir_communication import ParticipantFacts
from quill.unit import Unit

ONLY_PARTICIPANTS_ADD = "Only participants can add others"


async def add(unit: Unit, actor: Actor, conversation_id: ConversationId, wanted: ParticipantIn) -> ParticipantOut:
    """Let somebody take part: that person and nobody else sees the conversation from now on.

    Returns:
        The participation; the one there was, unchanged, when the person takes part already.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
        NotParticipant: 403, the actor may only read.
        PatientDeactivated: 409, the record takes no new entries.
        UserNotFound: 404, there is no such account.
        Unprocessable: 422, the person's account is disabled, or the person may not access the patient.
        Unavailable: 502 or 503, the FHIR store did not take it; nobody was added.
    """
    row = await finding.find_writable(unit, actor, conversation_id, Act.PARTICIPANT_ADD, sentence=ONLY_PARTICIPANTS_ADD)
    user_id = UserId(wanted.user_id)
    if not await identity.person_exists(unit.session, user_id):
        raise UserNotFound
    known = await wire.find_participant(unit, conversation_id, user_id)
    if known is not None:
        return known
    allowed = await access.find_allowed(unit, PatientId(row.patient_id), [user_id], READING)
    if user_id not in allowed:
        raise Unprocessable.at(
            "user_id",
            "A participant must be an active person who may access this patient",
            kind="participant_not_allowed",
        )
    person = ParticipantFacts(user_id, allowed[user_id].display_name, wanted.role, clock.now(), actor.user_id)
    return await _put_in(unit, actor, row, person, Act.PARTICIPANT_ADD)


async def join(unit: Unit, actor: Actor, conversation_id: ConversationId) -> ParticipantOut:
    """Take part in a conversation of one's organisation, or in any about a patient as an admin.

    Returns:
        The participation; the one there was, when the actor takes part already.

    Raises:
        MayNotJoin: 403, patients and external people cannot; staff cannot outside the conversation's organisations.
        ConversationNotFound: 404, there is none about a patient the actor is tied to.
        CompetencyMissing: 403, the actor may not read records.
        PatientDeactivated: 409, the record takes no new entries.
        Unavailable: 502 or 503, the FHIR store did not take it.
    """
    _check_level(unit, actor, conversation_id)
    row = await queries.find_where(unit.session, actor, conversation_id, about_related_patients)
    if row is None:
        audit.record_refusal(
            unit, actor, Act.CONVERSATION_JOIN, reason="not_readable", subject=f"conversation:{conversation_id}"
        )
        raise ConversationNotFound
    patient_id = PatientId(row.patient_id)
    access.check_rights(unit, actor, READING, patient_id=patient_id)
    known = await wire.find_participant(unit, conversation_id, actor.person_id)
    if known is not None:
        return known
    owners = await queries.organisation_ids(unit.session, conversation_id)
    if not actor.is_admin and set(owners).isdisjoint(actor.organisation_ids):
        finding.record_refusal(unit, actor, Act.CONVERSATION_JOIN, row, MayNotJoin.code)
        raise MayNotJoin
    await patients.check_takes_entries(unit, patient_id)
    person = ParticipantFacts(actor.person_id, actor.display_name, "participant", clock.now(), None)
    return await _put_in(unit, actor, row, person, Act.CONVERSATION_JOIN)


async def remove(unit: Unit, actor: Actor, conversation_id: ConversationId, user_id: UserId) -> OkOut:
    """Leave a conversation, or take somebody out of it: the creator and admins may. What was said stays.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
        MayNotRemove: 403, the actor is neither the person, nor the creator, nor an admin.
        ParticipantNotFound: 404, the person takes no part.
        Unavailable: 502 or 503, the FHIR store did not take it.
    """
    leaves = user_id == actor.user_id
    act = Act.CONVERSATION_LEAVE if leaves else Act.PARTICIPANT_REMOVE
    row = await finding.find_readable(unit, actor, conversation_id, act)
    if not (leaves or actor.is_admin or row.created_by_user_id == actor.user_id):
        finding.record_refusal(unit, actor, act, row, MayNotRemove.code)
        raise MayNotRemove
    if user_id not in await queries.participant_ids(unit.session, conversation_id):
        raise ParticipantNotFound
    await changing.change(unit, actor, row, headers.removing(user_id), act, about=user_id)
    return {"ok": True}


async def end_participation(unit: Unit, actor: Actor, user_id: UserId, patient_id: PatientId) -> None:
    """Take somebody whose access to a patient ends out of every conversation about that patient, in this transaction.

    Nobody without access reads a conversation anyway; this is so that access given again later does not bring back old
    conversations by itself. The FHIR headers are corrected by the sweep, so no store has to answer for this to hold.
    Repeating it is harmless.
    """
    ended_at = clock.now()
    numbers = await queries.participations(unit.session, user_id, patient_id)
    for conversation_id in numbers:
        await queries.lock_conversation(unit.session, conversation_id)
    await _keep_end(unit, patient_id, user_id, ended_at)
    for conversation_id in numbers:
        await _end_in(unit, actor, conversation_id, user_id, ended_at)


async def _keep_end(unit: Unit, patient_id: PatientId, user_id: UserId, ended_at: datetime.datetime) -> None:
    end = await queries.lock_participation_end(unit.session, patient_id, user_id)
    if end is None:
        try:
            async with unit.session.begin_nested():
                unit.session.add(ParticipationEnd(patient_id=patient_id, user_id=user_id, ended_at=ended_at))
        except IntegrityError:
            # Another revocation was first by a moment; this one says the same.
            end = await queries.lock_participation_end(unit.session, patient_id, user_id)
    if end is not None:
        end.ended_at = max(end.ended_at, ended_at)
        await unit.session.flush()


async def _end_in(
    unit: Unit, actor: Actor, conversation_id: ConversationId, user_id: UserId, ended_at: datetime.datetime
) -> None:
    row = await queries.find_where(unit.session, actor, conversation_id, everything)
    if row is None:
        return
    await unit.session.execute(
        sa.delete(ConversationParticipant)
        .where(ConversationParticipant.conversation_id == conversation_id, ConversationParticipant.user_id == user_id)
        .execution_options(synchronize_session=False)
    )
    audit.record(
        unit,
        actor,
        Act.PARTICIPANT_REMOVE,
        patient_id=PatientId(row.patient_id),
        subject=f"conversation:{conversation_id}:user:{user_id}",
    )
    change = headers.ending(user_id, ended_at)
    payload: Document = {"conversation_id": row.id, "fhir_id": row.fhir_conversation_id, "change": change}
    await intents.defer(unit, actor, Wish(END_KIND, payload))


async def _put_in(unit: Unit, actor: Actor, row: ConversationRow, person: ParticipantFacts, act: Act) -> ParticipantOut:
    ends = await queries.participation_ends(unit.session, PatientId(row.patient_id))
    change = headers.adding(person, ended_at=ends.get(person.user_id))
    await changing.change(unit, actor, row, change, act, about=person.user_id)
    found = await wire.find_participant(unit, ConversationId(row.id), UserId(person.user_id))
    if found is None:
        # Taken out again by somebody else between our writing and our looking.
        raise ParticipantNotFound
    return found


def _check_level(unit: Unit, actor: Actor, conversation_id: ConversationId) -> None:
    if actor.is_staff:
        return
    audit.record_refusal(
        unit, actor, Act.CONVERSATION_JOIN, reason=MayNotJoin.code, subject=f"conversation:{conversation_id}"
    )
    who = "Patients" if actor.level is Level.PATIENT else "External users"
    raise MayNotJoin(f"{who} cannot self-join conversations")
