"""Routes of invites and of external access."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from quill.access.guards import AuthenticatorDep, PatientIdPath, Public
from quill.actor import Level
from quill.edge.inputs import PageQuery, RowId, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    ClinicalServicesDisabled,
    GrantNotFound,
    InvalidInviteToken,
    InviteClosed,
    InviteGone,
    InviteNotFound,
    NotOwnRecord,
    Overloaded,
    PasswordTooCommon,
    PasswordTooShort,
    PatientDeactivated,
    PatientNotFound,
    TooManyRequests,
    UsernameHeld,
)
from quill.external import service as external
from quill.external.guards import AccessRevoker, ExternalAccessReader, ExternalInviter, InviteWithdrawer
from quill.external.schemas import (
    AcceptanceIn,
    AcceptedOut,
    GrantOut,
    GrantsOut,
    InviteIn,
    InviteOut,
    InviteSentOut,
    InvitesOut,
    StatusOut,
)
from quill.external.service import Acceptance
from quill.kit.ids import PatientId, UserId

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api",
    tags=["external access"],
    dependencies=[Depends(refuse_unknown_query)],
)

_OWNERS_ONLY = (PatientNotFound, NotOwnRecord, ClinicalServicesDisabled)


@router.post(
    "/patients/{patient_id}/invite-external", responses=answers(*_OWNERS_ONLY, PatientDeactivated, TooManyRequests)
)
async def invite_external_user(
    actor: ExternalInviter, unit: UnitDep, authenticator: AuthenticatorDep, patient_id: PatientIdPath, body: InviteIn
) -> InviteSentOut:
    """Invite somebody to see this patient's record; the link works once and for seven days.

    Where mail is configured it goes to the address too; `invite_url` is for passing it on otherwise.
    """
    sent = await external.invite(
        unit, authenticator, actor, PatientId(patient_id), email=body.email, level=Level(body.user_type)
    )
    return InviteSentOut(
        invite_url=sent.path, token=sent.token, id=sent.id, expires_at=sent.expires_at, is_emailed=sent.is_emailed
    )


@router.get("/patients/{patient_id}/invites", responses=answers(*_OWNERS_ONLY))
async def list_invites(
    actor: ExternalAccessReader, reader: ReaderDep, patient_id: PatientIdPath, page: PageQuery
) -> InvitesOut:
    """List who was invited to this patient's record and what became of it, newest first."""
    found = await external.list_invites(reader, actor, PatientId(patient_id), page)
    return InvitesOut(invites=[InviteOut.model_validate(row) for row in found.rows], next_cursor=found.next_cursor)


@router.delete(
    "/patients/{patient_id}/invites/{invite_id}", responses=answers(*_OWNERS_ONLY, InviteNotFound, InviteClosed)
)
async def withdraw_invite(
    actor: InviteWithdrawer, unit: UnitDep, patient_id: PatientIdPath, invite_id: Annotated[RowId, Path()]
) -> StatusOut:
    """Take an invite back before it is accepted."""
    await external.withdraw(unit, actor, PatientId(patient_id), invite_id)
    return StatusOut(status="withdrawn")


@router.post(
    "/accept-invite",
    dependencies=[Depends(Public("the token of the invite is the proof"))],
    responses=answers(
        InvalidInviteToken,
        PasswordTooShort,
        PasswordTooCommon,
        UsernameHeld,
        InviteGone,
        TooManyRequests,
        Overloaded,
    ),
)
async def accept_invite(body: AcceptanceIn, unit: UnitDep, authenticator: AuthenticatorDep) -> AcceptedOut:
    """Accept an invite, with the account that has the invited address or with a new one.

    Signs nobody in: who has an account signs in with it, and who has none gets one by `username` and `password`.
    """
    accepted = await external.accept(unit, authenticator, Acceptance(body.token, body.username, body.password))
    return AcceptedOut(
        status="registered" if accepted.is_new else "access_granted",
        user_id=accepted.user_id,
        redirect="/app/login" if accepted.is_new else "/app/",
    )


@router.get("/patients/{patient_id}/external-access", responses=answers(*_OWNERS_ONLY))
async def list_external_access(
    actor: ExternalAccessReader, reader: ReaderDep, patient_id: PatientIdPath, page: PageQuery
) -> GrantsOut:
    """List who sees this patient's record by an invite."""
    found = await external.list_grants(reader, actor, PatientId(patient_id), page)
    return GrantsOut(
        grants=[
            GrantOut(
                user_id=row.user_id,
                username=row.username,
                name=row.full_name or row.username,
                email=row.email,
                user_type=row.permission_level,
                is_active=row.is_active,
                granted_at=row.granted_at,
                granted_by_user_id=row.granted_by_user_id,
                access_level=row.access_level,
            )
            for row in found.rows
        ],
        next_cursor=found.next_cursor,
    )


@router.delete(
    "/patients/{patient_id}/external-access/{user_id}",
    responses=answers(*_OWNERS_ONLY, GrantNotFound),
)
async def revoke_external_access(
    actor: AccessRevoker, unit: UnitDep, patient_id: PatientIdPath, user_id: Annotated[RowId, Path()]
) -> StatusOut:
    """End somebody's access to this patient's record, with pending invites and the part taken in conversations.

    It holds at once, whether or not the FHIR store answers. No old link brings the access back, and access given anew
    brings back no part taken before.
    """
    await external.revoke(unit, actor, PatientId(patient_id), UserId(user_id))
    return StatusOut(status="revoked")
