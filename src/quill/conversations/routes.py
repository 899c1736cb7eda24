"""Routes of conversations."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from quill.access.guards import PatientIdPath, checked_patient_id
from quill.conversations import service as conversations
from quill.conversations.guards import (
    ConversationLister,
    ConversationReader,
    ConversationWriter,
    PatientConversationLister,
)
from quill.conversations.schemas import (
    ConversationDetailOut,
    ConversationIn,
    ConversationListOut,
    ConversationOut,
    MessageIn,
    MessageListOut,
    MessageOut,
    OkOut,
    ParticipantIn,
    ParticipantOut,
    PatientFilter,
    ReadIn,
    StatusFilter,
    StatusIn,
)
from quill.edge.inputs import IdempotencyKey, PageQuery, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    ClinicalServicesDisabled,
    CompetencyMissing,
    ConversationClosed,
    ConversationNotFound,
    CsrfFailed,
    FhirRefused,
    FhirUnavailable,
    IdempotencyKeyReused,
    MayNotJoin,
    MayNotRemove,
    MessageNotFound,
    NotParticipant,
    NotYourMessage,
    ParticipantNotFound,
    PatientDeactivated,
    PatientHasNoAccount,
    PatientNotFound,
    RequestInProgress,
    Unauthenticated,
    UserNotFound,
)
from quill.kit.ids import ConversationId, MessageId, UserId

router = APIRouter(
    generate_unique_id_function=operation_id, tags=["conversations"], dependencies=[Depends(refuse_unknown_query)]
)

_READ = (ClinicalServicesDisabled, Unauthenticated, CompetencyMissing)
_WRITE = (*_READ, CsrfFailed, FhirRefused, FhirUnavailable, RequestInProgress)

StatusQuery = Annotated[StatusFilter, Query(description="Only this status; an unknown one matches nothing.")]


@router.post(
    "/api/conversations",
    responses=answers(*_WRITE, PatientNotFound, PatientDeactivated, PatientHasNoAccount, IdempotencyKeyReused),
)
async def create_conversation_endpoint(
    body: ConversationIn, actor: ConversationWriter, unit: UnitDep, idempotency_key: IdempotencyKey = None
) -> ConversationDetailOut:
    """Begin a conversation about a patient, with its first message."""
    return await conversations.create(unit, actor, body, idempotency_key=idempotency_key)


@router.get("/api/conversations", responses=answers(*_READ))
async def list_conversations_endpoint(
    actor: ConversationLister,
    reader: ReaderDep,
    page: PageQuery,
    status: StatusQuery = None,
    patient_id: Annotated[PatientFilter, Query(description="Only about this patient.")] = None,
) -> ConversationListOut:
    """Return every conversation the caller may read, newest activity first."""
    return await conversations.list_visible(reader, actor, page, status=status, patient_id=patient_id)


@router.get("/api/patients/{patient_id}/conversations", responses=answers(*_READ, PatientNotFound))
async def list_patient_conversations_endpoint(
    patient_id: PatientIdPath,
    actor: PatientConversationLister,
    reader: ReaderDep,
    page: PageQuery,
    status: StatusQuery = None,
) -> ConversationListOut:
    """Return every conversation about a patient which the caller may read, newest activity first."""
    subject = checked_patient_id(patient_id)
    return await conversations.list_about(reader, actor, subject, page, status=status)


@router.get("/api/conversations/{conversation_id}", responses=answers(*_READ, ConversationNotFound))
async def get_conversation_endpoint(
    conversation_id: int, actor: ConversationReader, reader: ReaderDep
) -> ConversationDetailOut:
    """Return a conversation with its newest messages, oldest first; a participant has read them then."""
    return await conversations.show(reader, actor, ConversationId(conversation_id))


@router.patch(
    "/api/conversations/{conversation_id}",
    responses=answers(*_WRITE, ConversationNotFound, NotParticipant, PatientDeactivated),
)
async def update_conversation_status_endpoint(
    conversation_id: int, body: StatusIn, actor: ConversationWriter, unit: UnitDep
) -> ConversationOut:
    """Give a conversation another status."""
    return await conversations.set_status(unit, actor, ConversationId(conversation_id), body.status)


@router.get("/api/conversations/{conversation_id}/messages", responses=answers(*_READ, ConversationNotFound))
async def list_messages_endpoint(
    conversation_id: int, actor: ConversationReader, reader: ReaderDep, page: PageQuery
) -> MessageListOut:
    """Return the newest messages, oldest first; `next_cursor` leads to older ones. Marks nothing read."""
    return await conversations.list_messages(reader, actor, ConversationId(conversation_id), page)


@router.post(
    "/api/conversations/{conversation_id}/messages",
    responses=answers(
        *_WRITE,
        ConversationNotFound,
        NotParticipant,
        MessageNotFound,
        NotYourMessage,
        ConversationClosed,
        PatientDeactivated,
        IdempotencyKeyReused,
    ),
)
async def send_message_endpoint(
    conversation_id: int,
    body: MessageIn,
    actor: ConversationWriter,
    unit: UnitDep,
    idempotency_key: IdempotencyKey = None,
) -> MessageOut:
    """Send a message, or amend one of one's own."""
    return await conversations.send(
        unit,
        actor,
        ConversationId(conversation_id),
        body.body,
        amends_id=MessageId(body.amends_id) if body.amends_id is not None else None,
        idempotency_key=idempotency_key,
    )


@router.get("/api/conversations/{conversation_id}/participants", responses=answers(*_READ, ConversationNotFound))
async def list_participants_endpoint(
    conversation_id: int, actor: ConversationReader, reader: ReaderDep
) -> list[ParticipantOut]:
    """Return who takes part."""
    return await conversations.list_participants(reader, actor, ConversationId(conversation_id))


@router.post(
    "/api/conversations/{conversation_id}/participants",
    responses=answers(*_WRITE, ConversationNotFound, NotParticipant, UserNotFound, PatientDeactivated),
)
async def add_participant_endpoint(
    conversation_id: int, body: ParticipantIn, actor: ConversationWriter, unit: UnitDep
) -> ParticipantOut:
    """Let somebody who may access the patient take part."""
    return await conversations.add(unit, actor, ConversationId(conversation_id), body)


@router.delete(
    "/api/conversations/{conversation_id}/participants/{user_id}",
    responses=answers(*_WRITE, ConversationNotFound, MayNotRemove, ParticipantNotFound),
)
async def remove_participant_endpoint(
    conversation_id: int, user_id: int, actor: ConversationWriter, unit: UnitDep
) -> OkOut:
    """Leave a conversation or, as its creator or an admin, take somebody out of it."""
    return await conversations.remove(unit, actor, ConversationId(conversation_id), UserId(user_id))


@router.post(
    "/api/conversations/{conversation_id}/join",
    responses=answers(*_WRITE, ConversationNotFound, MayNotJoin, PatientDeactivated),
)
async def join_conversation_endpoint(conversation_id: int, actor: ConversationWriter, unit: UnitDep) -> ParticipantOut:
    """Take part in a conversation of one's own organisation."""
    return await conversations.join(unit, actor, ConversationId(conversation_id))


@router.post(
    "/api/conversations/{conversation_id}/read",
    responses=answers(ClinicalServicesDisabled, Unauthenticated, CsrfFailed, ConversationNotFound, MessageNotFound),
)
async def mark_read_endpoint(
    conversation_id: int, actor: ConversationWriter, unit: UnitDep, body: ReadIn | None = None
) -> OkOut:
    """Mark a conversation read up to a message, or up to the newest."""
    message_id = MessageId(body.message_id) if body is not None and body.message_id is not None else None
    return await conversations.mark_read(unit, actor, ConversationId(conversation_id), message_id)
