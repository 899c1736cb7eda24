"""Routes of people administration: accounts, their rights, their logins, their links to patients."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from quill.access.guards import AdminReader, AdminWriter, AuthenticatorDep, SignedInReader
from quill.auth.service import SignedIn
from quill.edge.inputs import PageQuery, RowId, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    EmailTaken,
    ExternalAccountNotLinked,
    LastSuperadmin,
    LevelMissing,
    LoginNotFound,
    MissingFields,
    Overloaded,
    OwnHighRiskCompetency,
    OwnLevel,
    PasswordTooCommon,
    PasswordTooShort,
    PatientAlreadyLinked,
    PatientDeactivated,
    PatientNotFound,
    PermissionLevelUnknown,
    ReauthenticationRequired,
    RegistrationTaken,
    SuperadminMissing,
    UsernameTaken,
    UserNotFound,
)
from quill.identity import catalogue, registration
from quill.identity.people import Person
from quill.kit.ids import UserId
from quill.staff import service as staff
from quill.staff.guards import PatientLinker, UserChanger, UserCreator
from quill.staff.schemas import (
    CatalogueOut,
    CompetenciesOut,
    CompetencyOut,
    DetailOut,
    EmployerOut,
    LinkIn,
    LinkOut,
    LoginLineOut,
    LoginsOut,
    OwnCompetenciesIn,
    ProfessionOut,
    RegistrationIn,
    RegistrationOut,
    RegulatorOut,
    RolesOut,
    UserActivityOut,
    UserChangeIn,
    UserDetailOut,
    UserDoneOut,
    UserIn,
    UsersOut,
    UserSummary,
)
from quill.unit import Reader

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api",
    tags=["people"],
    dependencies=[Depends(refuse_unknown_query)],
)

UserPath = Annotated[RowId, Path(description="Number of the account.")]

_ACCOUNT_ERRORS = (
    SuperadminMissing, MissingFields, PasswordTooShort, PasswordTooCommon, UsernameTaken, EmailTaken,
    RegistrationTaken, Overloaded,
)  # fmt: skip


@router.post("/users", responses=answers(*_ACCOUNT_ERRORS))
async def create_user_with_cbac(
    actor: UserCreator, unit: UnitDep, authenticator: AuthenticatorDep, body: UserIn
) -> UserDoneOut:
    """Make an account that can sign in at once; it belongs to no organisation. Only a superadmin makes admins."""
    wish = staff.NewAccount(
        name=body.name,
        username=body.username,
        email=body.email,
        password=body.password,
        level=body.system_permissions,
        profession=body.base_profession,
        additional_competencies=body.additional_competencies,
        removed_competencies=body.removed_competencies,
        roles=body.roles,
        registrations=_pairs(body.professional_registrations) or (),
    )
    user_id, username = await staff.create(unit, actor, authenticator.passwords, wish)
    return UserDoneOut(detail="created", id=user_id, username=username, email=body.email)


@router.patch(
    "/users/{user_id}",
    responses=answers(
        *_ACCOUNT_ERRORS, UserNotFound, OwnLevel, OwnHighRiskCompetency, ReauthenticationRequired, LastSuperadmin
    ),
)
async def update_user(
    request: Request,
    actor: UserChanger,
    unit: UnitDep,
    authenticator: AuthenticatorDep,
    user_id: UserPath,
    body: UserChangeIn,
) -> UserDoneOut:
    """Change an account, all or nothing. A new password, new rights and disabling end the person's logins.

    One's own password and address are changed from here only with a sign-in of the last 15 minutes;
    `POST /api/auth/change-password` asks for the current password instead.
    """
    signed_in: SignedIn = request.state.signed_in
    changes = staff.Changes(
        name=body.name,
        username=body.username,
        email=body.email,
        password=body.password,
        level=body.system_permissions,
        profession=body.base_profession,
        additional_competencies=body.additional_competencies,
        removed_competencies=body.removed_competencies,
        roles=body.roles,
        registrations=_pairs(body.professional_registrations),
        is_active=body.is_active,
    )
    person = await staff.change(
        unit, actor, authenticator.passwords, UserId(user_id), changes, is_fresh=signed_in.is_fresh
    )
    return UserDoneOut(detail="updated", id=person.user_id, username=person.username, email=person.email)


@router.get("/users", responses=answers(PatientNotFound, PermissionLevelUnknown, LevelMissing))
async def list_users(
    actor: SignedInReader,
    reader: ReaderDep,
    page: PageQuery,
    patient_id: Annotated[
        str, Query(max_length=255, description="Whom to write to about this patient; blank counts as absent.")
    ] = "",
    permission_level: Annotated[
        str, Query(max_length=32, description="This level and above; without `patient_id` only.")
    ] = "",
) -> UsersOut:
    """List the people around a patient, for whoever may see the patient; or, for admins, everybody.

    Around a patient are the active staff of the organisations that care, and those who hold an active grant.
    """
    if patient_id.strip():
        found, total = await staff.list_around_patient(reader, actor, patient_id.strip(), page)
    else:
        found, total = await staff.list_users(reader, actor, permission_level.strip() or None, page)
    users = [
        UserSummary(
            id=line.user_id,
            username=line.username,
            name=line.full_name or line.username,
            email=line.email,
            system_permissions=line.level.value,
            is_active=line.is_active,
        )
        for line in found.rows
    ]
    return UsersOut(users=users, next_cursor=found.next_cursor, total=total)


@router.get("/users/{user_id}", responses=answers(UserNotFound))
async def get_user(actor: AdminReader, reader: ReaderDep, user_id: UserPath) -> UserDetailOut:
    """Read an account: rights, state, link to a patient, organisations. `name` is the username when there is none."""
    found = await staff.get(reader, actor, UserId(user_id))
    person = found.person
    return UserDetailOut(
        id=person.user_id,
        username=person.username,
        email=person.email,
        name=person.display_name,
        base_profession=person.profession,
        additional_competencies=list(person.additional_competencies),
        removed_competencies=list(person.removed_competencies),
        final_competencies=sorted(person.competencies_held(reader.settings)),
        system_permissions=person.level.value,
        is_active=person.is_active,
        roles=list(person.roles),
        professional_registrations=[RegistrationOut.model_validate(held) for held in person.registrations],
        totp_enabled=person.is_totp_enabled,
        fhir_patient_id=person.patient_id,
        organisations=[EmployerOut.model_validate(employer) for employer in found.organisations],
    )


@router.post("/users/{user_id}/activate", responses=answers(UserNotFound, SuperadminMissing))
async def activate_user(
    actor: UserChanger, unit: UnitDep, authenticator: AuthenticatorDep, user_id: UserPath
) -> UserActivityOut:
    """Let a disabled account sign in again."""
    person = await staff.switch(unit, actor, authenticator.passwords, UserId(user_id), is_active=True)
    return UserActivityOut(detail="activated", id=person.user_id, is_active=person.is_active)


@router.post("/users/{user_id}/deactivate", responses=answers(UserNotFound, SuperadminMissing, LastSuperadmin))
async def deactivate_user(
    actor: UserChanger, unit: UnitDep, authenticator: AuthenticatorDep, user_id: UserPath
) -> UserActivityOut:
    """Disable an account: its logins end, and it cannot sign in."""
    person = await staff.switch(unit, actor, authenticator.passwords, UserId(user_id), is_active=False)
    return UserActivityOut(detail="deactivated", id=person.user_id, is_active=person.is_active)


@router.patch(
    "/users/{user_id}/link-patient",
    responses=answers(
        UserNotFound,
        SuperadminMissing,
        PatientNotFound,
        PatientDeactivated,
        PatientAlreadyLinked,
        ExternalAccountNotLinked,
    ),
)
async def link_patient_to_user(actor: PatientLinker, unit: UnitDep, user_id: UserPath, body: LinkIn) -> LinkOut:
    """Tie an account to a patient record as the person's own, in place of an earlier one.

    People of every level may be patients. External accounts cannot be linked (409).
    """
    patient_id = await staff.link_patient(unit, actor, UserId(user_id), body.fhir_patient_id)
    return LinkOut(user_id=user_id, fhir_patient_id=patient_id)


@router.delete("/users/{user_id}/link-patient", responses=answers(UserNotFound, SuperadminMissing))
async def unlink_patient_from_user(actor: PatientLinker, unit: UnitDep, user_id: UserPath) -> LinkOut:
    """Untie an account from its patient record, whose reader it then no longer is."""
    await staff.unlink_patient(unit, actor, UserId(user_id))
    return LinkOut(user_id=user_id, fhir_patient_id=None)


@router.get("/users/{user_id}/logins", responses=answers(UserNotFound))
async def list_user_logins(actor: AdminReader, reader: ReaderDep, user_id: UserPath, page: PageQuery) -> LoginsOut:
    """List somebody's live logins, newest first."""
    found = await staff.list_logins(reader, actor, UserId(user_id), page)
    return LoginsOut(logins=[LoginLineOut.model_validate(line) for line in found.rows], next_cursor=found.next_cursor)


@router.delete("/users/{user_id}/logins", responses=answers(UserNotFound, SuperadminMissing))
async def end_user_logins(actor: UserChanger, unit: UnitDep, user_id: UserPath) -> DetailOut:
    """Sign somebody out everywhere."""
    await staff.end_logins(unit, actor, UserId(user_id))
    return DetailOut(detail="ended")


@router.delete("/users/{user_id}/logins/{login_id}", responses=answers(UserNotFound, LoginNotFound, SuperadminMissing))
async def end_user_login(
    actor: UserChanger, unit: UnitDep, user_id: UserPath, login_id: Annotated[str, Path(max_length=36)]
) -> DetailOut:
    """Sign somebody out on one device."""
    await staff.end_login(unit, actor, UserId(user_id), login_id)
    return DetailOut(detail="ended")


@router.post(
    "/users/{user_id}/totp/disable", responses=answers(UserNotFound, SuperadminMissing, ReauthenticationRequired)
)
async def disable_user_totp(actor: UserChanger, unit: UnitDep, user_id: UserPath) -> DetailOut:
    """Turn off the second factor of somebody who lost it; one's own is `POST /api/auth/totp/disable`."""
    await staff.disable_second_factor(unit, actor, UserId(user_id))
    return DetailOut(detail="disabled")


@router.get("/cbac/my-competencies")
async def get_my_competencies(actor: SignedInReader, reader: ReaderDep) -> CompetenciesOut:
    """Read one's own competencies."""
    return _competencies(await staff.get_competencies(reader, actor), reader)


@router.patch("/cbac/my-competencies", responses=answers(OwnHighRiskCompetency, LevelMissing))
async def update_my_competencies(actor: AdminWriter, unit: UnitDep, body: OwnCompetenciesIn) -> CompetenciesOut:
    """Replace one's own additional or removed competencies, as an admin; one of high risk is for others to grant."""
    person = await staff.change_own_competencies(
        unit, actor, additional=body.additional_competencies, removed=body.removed_competencies
    )
    return _competencies(person, unit)


@router.get("/cbac/catalogue")
async def get_catalogue(actor: SignedInReader, reader: ReaderDep) -> CatalogueOut:
    """List the professions with competencies and regulator, the competencies with category and risk, the regulators.

    Where `registration_enforced`, a profession that `requires_registration` counts only for those whose registration
    with that regulator is recorded.
    """
    del actor
    return CatalogueOut(
        professions=[
            ProfessionOut(id=name, competencies=sorted(held), requires_registration=registration.REQUIRED.get(name))
            for name, held in catalogue.PROFESSIONS.items()
        ],
        competencies=[CompetencyOut.model_validate(entry) for entry in catalogue.COMPETENCIES.values()],
        regulators=[RegulatorOut.model_validate(entry) for entry in registration.REGULATORS.values()],
        registration_enforced=reader.settings.require_professional_registration,
    )


@router.get("/roles")
async def list_roles(actor: SignedInReader) -> RolesOut:
    """List the roles that admins can grant."""
    del actor
    return RolesOut(roles=list(catalogue.ROLES))


def _pairs(registrations: list[RegistrationIn] | None) -> list[tuple[str, str]] | None:
    return None if registrations is None else [(told.body, told.number) for told in registrations]


def _competencies(person: Person, reader: Reader) -> CompetenciesOut:
    return CompetenciesOut(
        user_id=person.user_id,
        username=person.username,
        base_profession=person.profession,
        additional_competencies=list(person.additional_competencies),
        removed_competencies=list(person.removed_competencies),
        final_competencies=sorted(person.competencies_held(reader.settings)),
    )
