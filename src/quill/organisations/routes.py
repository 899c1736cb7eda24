"""Routes of organisations, their members, their features, and requests to join them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from quill.access.guards import PatientIdPath, Public
from quill.edge.inputs import PageQuery, RowId, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    AlreadyMember,
    ClinicalServicesDisabled,
    JoinRequestDecided,
    JoinRequestNotFound,
    MembershipNotFound,
    NotStaffLevel,
    OrganisationNotFound,
    OrganisationTypeUnknown,
    PatientDeactivated,
    PatientNotFound,
    UserNotFound,
)
from quill.kit.ids import OrganisationId, PatientId, UserId
from quill.organisations import service as organisations
from quill.organisations.guards import (
    FeatureReader,
    FeatureWriter,
    MemberRemover,
    OrganisationReader,
    OrganisationWriter,
    PatientAdder,
    SharedOrganisationsReader,
)
from quill.organisations.schemas import (
    FeatureIn,
    FeatureOut,
    FeaturesOut,
    JoinDecisionOut,
    JoinRequestOut,
    JoinRequestsOut,
    OrganisationChangeIn,
    OrganisationDetailsOut,
    OrganisationIn,
    OrganisationName,
    OrganisationNamesOut,
    OrganisationOut,
    OrganisationsOut,
    PatientAddedOut,
    PatientIn,
    PatientMemberOut,
    SharedOrganisation,
    SharedOrganisationsOut,
    StaffAddedOut,
    StaffIn,
    StaffMemberOut,
    StatusOut,
)
from quill.organisations.service.joining import Verdict

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api",
    tags=["organisations"],
    dependencies=[Depends(refuse_unknown_query)],
)

OrganisationPath = Annotated[RowId, Path(description="Number of the organisation.")]


@router.get("/auth/organizations", dependencies=[Depends(Public("the registration form offers them"))])
async def list_organizations_public(reader: ReaderDep, page: PageQuery) -> OrganisationNamesOut:
    """List numbers and names for the registration form, in order of the names.

    Empty when the operator shows no names to strangers (`QUILL_PUBLIC_ORGANISATION_LIST=false`).
    """
    found = await organisations.list_names(reader, page)
    return OrganisationNamesOut(
        organizations=[OrganisationName.model_validate(row) for row in found.rows], next_cursor=found.next_cursor
    )


@router.get("/organizations")
async def list_organizations(actor: OrganisationReader, reader: ReaderDep, page: PageQuery) -> OrganisationsOut:
    """List every organisation in order of the names."""
    found, total = await organisations.list_organisations(reader, actor, page)
    return OrganisationsOut(
        organizations=[OrganisationOut.model_validate(row) for row in found.rows],
        next_cursor=found.next_cursor,
        total=total,
    )


@router.post("/organizations", responses=answers(OrganisationTypeUnknown))
async def create_organization(actor: OrganisationWriter, unit: UnitDep, body: OrganisationIn) -> OrganisationOut:
    """Make an organisation, without members and without features."""
    made = await organisations.create(unit, actor, name=body.name, type=body.type, location=body.location)
    return OrganisationOut.model_validate(made)


@router.get("/organizations/{org_id}", responses=answers(OrganisationNotFound))
async def get_organization(
    actor: OrganisationReader, reader: ReaderDep, org_id: OrganisationPath, page: PageQuery
) -> OrganisationDetailsOut:
    """Read an organisation with its true member counts and a page of each kind of member."""
    found = await organisations.get(reader, actor, OrganisationId(org_id), page)
    return OrganisationDetailsOut(
        **OrganisationOut.model_validate(found.organisation).model_dump(),
        staff_count=found.staff_count,
        patient_count=found.patient_count,
        staff_members=[
            StaffMemberOut(
                id=row.id,
                username=row.username,
                name=row.full_name or row.username,
                email=row.email,
                system_permissions=row.permission_level,
                is_active=row.is_active,
                is_primary=row.is_primary,
                joined_at=row.joined_at,
            )
            for row in found.staff_members
        ],
        patient_members=[PatientMemberOut.model_validate(row) for row in found.patient_members],
        next_cursor=found.next_cursor,
    )


@router.put("/organizations/{org_id}", responses=answers(OrganisationNotFound, OrganisationTypeUnknown))
async def update_organization(
    actor: OrganisationWriter, unit: UnitDep, org_id: OrganisationPath, body: OrganisationChangeIn
) -> OrganisationOut:
    """Change the values given; a blank location clears it."""
    changed = await organisations.update(
        unit, actor, OrganisationId(org_id), name=body.name, type=body.type, location=body.location
    )
    return OrganisationOut.model_validate(changed)


@router.post(
    "/organizations/{org_id}/staff",
    responses=answers(OrganisationNotFound, UserNotFound, NotStaffLevel, AlreadyMember),
)
async def add_staff_to_organization(
    actor: OrganisationWriter, unit: UnitDep, org_id: OrganisationPath, body: StaffIn
) -> StaffAddedOut:
    """Make somebody staff: the organisation's patients are theirs to see from the next request on."""
    person = await organisations.add_staff(unit, actor, OrganisationId(org_id), UserId(body.user_id))
    return StaffAddedOut(organisation_id=org_id, user_id=person.user_id, username=person.username)


@router.delete("/organizations/{org_id}/staff/{user_id}", responses=answers(MembershipNotFound))
async def remove_staff_from_organization(
    actor: MemberRemover, unit: UnitDep, org_id: OrganisationPath, user_id: Annotated[RowId, Path()]
) -> StatusOut:
    """End a membership, and with it all access that came from it, from the next request on."""
    await organisations.remove_staff(unit, actor, OrganisationId(org_id), UserId(user_id))
    return StatusOut(status="removed")


@router.post(
    "/organizations/{org_id}/patients",
    responses=answers(
        OrganisationNotFound, PatientNotFound, PatientDeactivated, AlreadyMember, ClinicalServicesDisabled
    ),
)
async def add_patient_to_organization(
    actor: PatientAdder, unit: UnitDep, org_id: OrganisationPath, body: PatientIn
) -> PatientAddedOut:
    """Put a patient, who must exist and be active, into the organisation's care."""
    await organisations.add_patient(unit, actor, OrganisationId(org_id), body.patient_id)
    return PatientAddedOut(organisation_id=org_id, patient_id=body.patient_id)


@router.delete("/organizations/{org_id}/patients/{patient_id}", responses=answers(MembershipNotFound))
async def remove_patient_from_organization(
    actor: MemberRemover, unit: UnitDep, org_id: OrganisationPath, patient_id: PatientIdPath
) -> StatusOut:
    """End the organisation's care, and with it its staff's access, from the next request on."""
    await organisations.remove_patient(unit, actor, OrganisationId(org_id), patient_id)
    return StatusOut(status="removed")


@router.get("/organizations/{org_id}/features", responses=answers(OrganisationNotFound))
async def list_org_features(actor: FeatureReader, reader: ReaderDep, org_id: OrganisationPath) -> FeaturesOut:
    """List the features that are switched on."""
    rows = await organisations.list_features(reader, actor, OrganisationId(org_id))
    return FeaturesOut(features=[FeatureOut.model_validate(row) for row in rows])


@router.put("/organizations/{org_id}/features/{feature_key}", responses=answers(OrganisationNotFound))
async def toggle_org_feature(
    actor: FeatureWriter,
    unit: UnitDep,
    org_id: OrganisationPath,
    feature_key: Annotated[str, Path(max_length=50)],
    body: FeatureIn,
) -> StatusOut:
    """Switch a feature on or off; `already_…` when it was so before."""
    is_new = await organisations.switch_feature(
        unit, actor, OrganisationId(org_id), feature_key, is_enabled=body.enabled
    )
    word = "enabled" if body.enabled else "disabled"
    return StatusOut(status=word if is_new else f"already_{word}")


@router.get("/organizations/{org_id}/join-requests", responses=answers(OrganisationNotFound))
async def list_join_requests(
    actor: OrganisationReader,
    reader: ReaderDep,
    org_id: OrganisationPath,
    page: PageQuery,
    status: Annotated[Verdict, Query(description="What became of them.")] = "pending",
) -> JoinRequestsOut:
    """List requests to join, oldest first: those waiting for a decision unless another status is asked for."""
    found = await organisations.list_join_requests(reader, actor, OrganisationId(org_id), status, page)
    return JoinRequestsOut(
        join_requests=[
            JoinRequestOut(
                id=row.id,
                user_id=row.person.user_id,
                username=row.person.username,
                name=row.person.full_name or row.person.username,
                email=row.person.email,
                system_permissions=row.person.level.value,
                status=row.status,
                requested_at=row.requested_at,
                decided_at=row.decided_at,
            )
            for row in found.rows
        ],
        next_cursor=found.next_cursor,
    )


@router.post(
    "/organizations/{org_id}/join-requests/{request_id}/approve",
    responses=answers(JoinRequestNotFound, JoinRequestDecided, NotStaffLevel),
)
async def approve_join_request(
    actor: OrganisationWriter, unit: UnitDep, org_id: OrganisationPath, request_id: Annotated[RowId, Path()]
) -> JoinDecisionOut:
    """Make whoever asked staff of the organisation.

    Somebody of `patient` level, as everybody is who registered, is raised to `staff` by this. Profession and roles are
    given by `PATCH /api/users/{user_id}`. External accounts and accounts linked to a patient record are not raised by
    the way (400): change their level first.
    """
    user_id = await organisations.approve(unit, actor, OrganisationId(org_id), request_id)
    return JoinDecisionOut(id=request_id, organisation_id=org_id, user_id=user_id, status="approved")


@router.post(
    "/organizations/{org_id}/join-requests/{request_id}/decline",
    responses=answers(JoinRequestNotFound, JoinRequestDecided),
)
async def decline_join_request(
    actor: OrganisationWriter, unit: UnitDep, org_id: OrganisationPath, request_id: Annotated[RowId, Path()]
) -> JoinDecisionOut:
    """Decline a request; the account stays as it is and may ask again."""
    user_id = await organisations.decline(unit, actor, OrganisationId(org_id), request_id)
    return JoinDecisionOut(id=request_id, organisation_id=org_id, user_id=user_id, status="declined")


@router.get("/patients/{patient_id}/shared-organisations", responses=answers(ClinicalServicesDisabled))
async def shared_organisations_endpoint(
    actor: SharedOrganisationsReader, reader: ReaderDep, patient_id: PatientIdPath
) -> SharedOrganisationsOut:
    """List the organisations that caller and patient share; none for outsiders and for patients nobody knows."""
    rows = await organisations.list_shared(reader, actor, PatientId(patient_id))
    return SharedOrganisationsOut(organisations=[SharedOrganisation.model_validate(row) for row in rows])
