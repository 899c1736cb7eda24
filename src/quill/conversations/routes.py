"""Routes of conversations."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

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
from quill.edge.answers import as_json
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
    response_model=ConversationDetailOut,
    responses=answers(*_WRITE, PatientNotFound, PatientDeactivated, PatientHasNoAccount, IdempotencyKeyReused),
)
async def create_conversation_endpoint(
    body: ConversationIn, actor: ConversationWriter, unit: UnitDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Begin a conversation about a patient, with its first message."""
    return as_json(await conversations.create(unit, actor, body, idempotency_key=idempotency_key))


@router.get("/api/conversations", response_model=ConversationListOut, responses=answers(*_READ))
async def list_conversations_endpoint(
    actor: ConversationLister,
    reader: ReaderDep,
    page: PageQuery,
    status: StatusQuery = None,
    patient_id: Annotated[PatientFilter, Query(description="Only about this patient.")] = None,
) -> Response:
    """Return every conversation the caller may read, newest activity first."""
    return as_json(await conversations.list_visible(reader, actor, page, status=status, patient_id=patient_id))


@router.get(
    "/api/patients/{patient_id}/conversations",
    response_model=ConversationListOut,
    responses=answers(*_READ, PatientNotFound),
)
async def list_patient_conversations_endpoint(
    patient_id: PatientIdPath,
    actor: PatientConversationLister,
    reader: ReaderDep,
    page: PageQuery,
    status: StatusQuery = None,
) -> Response:
    """Return every conversation about a patient which the caller may read, newest activity first."""
    subject = checked_patient_id(patient_id)
    return as_json(await conversations.list_about(reader, actor, subject, page, status=status))


@router.get(
    "/api/conversations/{conversation_id}",
    response_model=ConversationDetailOut,
    responses=answers(*_READ, ConversationNotFound),
)
async def get_conversation_endpoint(conversation_id: int, actor: ConversationReader, reader: ReaderDep) -> Response:
    """Return a conversation with its newest messages, oldest first; a participant has read them then."""
    return as_json(await conversations.show(reader, actor, ConversationId(conversation_id)))


@router.patch(
    "/api/conversations/{conversation_id}",
    response_model=ConversationOut,
    responses=answers(*_WRITE, ConversationNotFound, NotParticipant, PatientDeactivated),
)
async def update_conversation_status_endpoint(
    conversation_id: int, body: StatusIn, actor: ConversationWriter, unit: UnitDep
) -> Response:
    """Give a conversation another status."""
    return as_json(await conversations.set_status(unit, actor, ConversationId(conversation_id), body.status))


@router.get(
    "/api/conversations/{conversation_id}/messages",
    response_model=MessageListOut,
    responses=answers(*_READ, ConversationNotFound),
)
async def list_messages_endpoint(
    conversation_id: int, actor: ConversationReader, reader: ReaderDep, page: PageQuery
) -> Response:
    """Return the newest messages, oldest first; `next_cursor` leads to older ones. Marks nothing read."""
    return as_json(await conversations.list_messages(reader, actor, ConversationId(conversation_id), page))


@router.post(
    "/api/conversations/{conversation_id}/messages",
    response_model=MessageOut,
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
) -> Response:
    """Send a message, or amend one of one's own."""
    return as_json(
        await conversations.send(
            unit,
            actor,
            ConversationId(conversation_id),
            body.body,
            amends_id=MessageId(body.amends_id) if body.amends_id is not None else None,
            idempotency_key=idempotency_key,
        )
    )


@router.get(
    "/api/conversations/{conversation_id}/participants",
    response_model=list[ParticipantOut],
    responses=answers(*_READ, ConversationNotFound),
)
async def list_participants_endpoint(conversation_id: int, actor: ConversationReader, reader: ReaderDep) -> Response:
    """Return who takes part."""
    return as_json(await conversations.list_participants(reader, actor, ConversationId(conversation_id)))


@router.post(
    "/api/conversations/{conversation_id}/participants",
    response_model=ParticipantOut,
    responses=answers(*_WRITE, ConversationNotFound, NotParticipant, UserNotFound, PatientDeactivated),
)
async def add_participant_endpoint(
    conversation_id: int, body: ParticipantIn, actor: ConversationWriter, unit: UnitDep
) -> Response:
    """Let somebody who may access the patient take part."""
    return as_json(await conversations.add(unit, actor, ConversationId(conversation_id), body))


@router.delete(
    "/api/conversations/{conversation_id}/participants/{user_id}",
    response_model=OkOut,
    responses=answers(*_WRITE, ConversationNotFound, MayNotRemove, ParticipantNotFound),
)
async def remove_participant_endpoint(
    conversation_id: int, user_id: int, actor: ConversationWriter, unit: UnitDep
) -> Response:
    """Leave a conversation or, as its creator or an admin, take somebody out of it."""
    return as_json(await conversations.remove(unit, actor, ConversationId(conversation_id), UserId(user_id)))


@router.post(
    "/api/conversations/{conversation_id}/join",
    response_model=ParticipantOut,
    responses=answers(*_WRITE, ConversationNotFound, MayNotJoin, PatientDeactivated),
)
async def join_conversation_endpoint(conversation_id: int, actor: ConversationWriter, unit: UnitDep) -> Response:
    """Take part in a conversation of one's own organisation."""
    return as_json(await conversations.join(unit, actor, ConversationId(conversation_id)))


@router.post(
    "/api/conversations/{conversation_id}/read",
    response_model=OkOut,
    responses=answers(ClinicalServicesDisabled, Unauthenticated, CsrfFailed, ConversationNotFound, MessageNotFound),
)
async def mark_read_endpoint(
    conversation_id: int, actor: ConversationWriter, unit: UnitDep, body: ReadIn | None = None
) -> Response:
    """Mark a conversation read up to a message, or up to the newest."""
    message_id = MessageId(body.message_id) if body is not None and body.message_id is not None else None
    return as_json(await conversations.mark_read(unit, actor, ConversationId(conversation_id), message_id))
