"""Routes of one's own sign-in and account."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from quill.access.guards import AuthenticatorDep, Public, SignedInReader, SignedInWriter
from quill.accounts import schemas, service
from quill.accounts.schemas import DetailOut
from quill.accounts.service import Registration
from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import cookies, sign_in, totp
from quill.auth.logins import LoginLine
from quill.auth.service import SignedIn
from quill.edge.inputs import PageQuery, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    BadRefreshToken,
    CsrfFailed,
    CurrentPasswordWrong,
    EmailTaken,
    InactiveUser,
    InvalidCredentials,
    InvalidResetToken,
    InvalidToken,
    InvalidTotp,
    LoginNotFound,
    MissingFields,
    NoRefreshToken,
    NoTotpSecret,
    OrganisationUnknown,
    Overloaded,
    PasswordTooCommon,
    PasswordTooShort,
    ReauthenticationRequired,
    SecondFactorUnreadable,
    TooManyRequests,
    TotpAlreadyEnabled,
    TwoFactorRequired,
    Unauthenticated,
    UsernameTaken,
)
from quill.kit.ids import OrganisationId
from quill.organisations import service as organisations

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api/auth",
    tags=["sign-in"],
    dependencies=[Depends(refuse_unknown_query)],
)


async def user_agent_of(request: Request) -> str:
    """Return the browser's own description, for the person's list of logins."""
    return request.headers.get("user-agent", "")


async def signed_in_of(request: Request, _actor: SignedInWriter) -> SignedIn:
    """Return the login the guard let in."""
    signed_in: SignedIn = request.state.signed_in
    return signed_in


UserAgent = Annotated[str, Depends(user_agent_of)]
LoginIdPath = Annotated[str, Path(max_length=64, description="Id of a login in one's list.")]


@router.post(
    "/login",
    dependencies=[Depends(Public("this is how one signs in"))],
    responses=answers(
        InvalidCredentials, TwoFactorRequired, InvalidTotp, TooManyRequests, Overloaded, SecondFactorUnreadable
    ),
)
async def login(
    body: schemas.LoginIn, unit: UnitDep, authenticator: AuthenticatorDep, agent: UserAgent, response: Response
) -> schemas.LoginOut:
    """Sign in: sets the access, refresh and CSRF cookies."""
    attempt = sign_in.Attempt(body.username, body.password, code=body.totp_code, user_agent=agent)
    grant = await sign_in.sign_in(unit, authenticator, attempt)
    cookies.set_login(response, unit.settings, authenticator.tokens, grant.facts)
    user = schemas.LoginUser(username=grant.actor.name, roles=sorted(grant.actor.roles))
    return schemas.LoginOut(detail="ok", user=user)


@router.post(
    "/refresh",
    dependencies=[Depends(Public("the refresh cookie is the proof"))],
    responses=answers(NoRefreshToken, BadRefreshToken, InactiveUser, TooManyRequests),
)
async def refresh(request: Request, unit: UnitDep, authenticator: AuthenticatorDep, response: Response) -> DetailOut:
    """Exchange the refresh cookie for a fresh set of cookies; the old refresh token is used up."""
    grant = await sign_in.refresh(unit, authenticator, cookies.refresh_token_of(request))
    cookies.set_login(response, unit.settings, authenticator.tokens, grant.facts)
    return DetailOut(detail="ok")


@router.post(
    "/logout",
    dependencies=[Depends(Public("checks the access and CSRF tokens itself, because an expired one will do"))],
    responses=answers(Unauthenticated, InvalidToken, CsrfFailed),
)
async def logout(request: Request, unit: UnitDep, authenticator: AuthenticatorDep, response: Response) -> DetailOut:
    """End this login: its access and refresh tokens are worth nothing from the next request on.

    Without any access token the answer is 401 and the cookies stay: a browser that has only its refresh cookie left
    refreshes and asks again, and so the login is really ended. Taking the cookie from it would leave the login alive.
    """
    await sign_in.sign_out(unit, authenticator, cookies.access_token_of(request), cookies.csrf_tokens_of(request))
    cookies.clear_login(response, unit.settings)
    return DetailOut(detail="ok")


@router.get("/me")
async def me(actor: SignedInReader, reader: ReaderDep, request: Request) -> schemas.MeOut:
    """Return the person signed in, with the rights held at this moment."""
    signed_in: SignedIn = request.state.signed_in
    audit.record(reader, actor, Act.LOGIN_READ, subject=f"login:{actor.login_id}")
    return schemas.MeOut(
        id=actor.person_id,
        username=actor.name,
        name=signed_in.full_name,
        email=actor.email,
        roles=sorted(actor.roles),
        system_permissions=actor.level.value,
        totp_enabled=signed_in.is_totp_enabled,
        enabled_features=await organisations.enabled_features(reader, actor),
        clinical_services_enabled=reader.settings.clinical_services_enabled,
        competencies=sorted(actor.competencies),
        professional_registrations=[schemas.RegistrationOut.model_validate(held) for held in signed_in.registrations],
        fhir_patient_id=actor.patient_id,
    )


@router.post(
    "/register",
    dependencies=[Depends(Public("people register themselves"))],
    responses=answers(
        MissingFields,
        PasswordTooShort,
        PasswordTooCommon,
        UsernameTaken,
        EmailTaken,
        OrganisationUnknown,
        TooManyRequests,
        Overloaded,
    ),
)
async def register(body: schemas.RegisterIn, unit: UnitDep, authenticator: AuthenticatorDep) -> DetailOut:
    """Make an account of patient level; asks to join an organisation, which an admin approves or declines."""
    wanted = Registration(
        username=body.username,
        email=body.email,
        password=body.password,
        full_name=body.full_name,
        organisation_id=None if body.organisation_id is None else OrganisationId(body.organisation_id),
    )
    await service.register(unit, authenticator, wanted)
    return DetailOut(detail="created")


@router.post(
    "/forgot-password",
    dependencies=[Depends(Public("whoever forgot a password cannot sign in"))],
    responses=answers(TooManyRequests),
)
async def forgot_password(
    body: schemas.ForgotPasswordIn, reader: ReaderDep, authenticator: AuthenticatorDep
) -> DetailOut:
    """Mail a link to whoever has the address; the answer is the same when nobody has."""
    await service.request_reset(reader.services, reader.facts, authenticator, body.email)
    return DetailOut(detail="ok")


@router.post(
    "/reset-password",
    dependencies=[Depends(Public("the token of the mailed link is the proof"))],
    responses=answers(InvalidResetToken, PasswordTooShort, PasswordTooCommon, TooManyRequests, Overloaded),
)
async def reset_password(body: schemas.ResetPasswordIn, unit: UnitDep, authenticator: AuthenticatorDep) -> DetailOut:
    """Replace a forgotten password; ends every login, and a second factor is asked for as before."""
    await service.reset_password(unit, authenticator, token=body.token, new=body.new_password)
    return DetailOut(detail="Password reset successfully")


@router.post(
    "/change-password",
    responses=answers(CurrentPasswordWrong, PasswordTooShort, PasswordTooCommon, TooManyRequests, Overloaded),
)
async def change_password(
    actor: SignedInWriter, body: schemas.ChangePasswordIn, unit: UnitDep, authenticator: AuthenticatorDep
) -> DetailOut:
    """Replace one's own password; ends every other login and every reset link."""
    await service.change_password(unit, authenticator, actor, current=body.current_password, new=body.new_password)
    return DetailOut(detail="Password changed")


@router.post("/totp/setup", responses=answers(TotpAlreadyEnabled))
async def totp_setup(actor: SignedInWriter, unit: UnitDep, authenticator: AuthenticatorDep) -> schemas.TotpSetupOut:
    """Return the address to show as a QR code; nothing changes at sign-in until a code is verified."""
    return schemas.TotpSetupOut(provision_uri=await totp.set_up(unit, authenticator, actor))


@router.post("/totp/verify", responses=answers(NoTotpSecret, InvalidTotp, TooManyRequests, SecondFactorUnreadable))
async def totp_verify(
    actor: SignedInWriter, body: schemas.TotpVerifyIn, unit: UnitDep, authenticator: AuthenticatorDep
) -> schemas.TotpVerifyOut:
    """Turn the second factor on; the recovery codes in the answer are shown this once."""
    codes = await totp.verify(unit, authenticator, actor, body.code)
    return schemas.TotpVerifyOut(detail="enabled", recovery_codes=codes)


@router.post("/totp/disable", responses=answers(ReauthenticationRequired, TooManyRequests, Overloaded))
async def totp_disable(
    signed_in: Annotated[SignedIn, Depends(signed_in_of)],
    unit: UnitDep,
    authenticator: AuthenticatorDep,
    body: schemas.TotpDisableIn | None = None,
) -> DetailOut:
    """Turn the second factor off and end one's other logins; wants a fresh sign-in or the password."""
    await totp.disable(unit, authenticator, signed_in, body.password if body else None)
    return DetailOut(detail="disabled")


@router.get("/logins")
async def list_logins(actor: SignedInReader, reader: ReaderDep, page: PageQuery) -> schemas.LoginsOut:
    """Return where one is signed in, newest first."""
    found = await service.list_logins(reader, actor, page)
    return schemas.LoginsOut(
        logins=[_login_line(line, actor) for line in found.rows],
        next_cursor=found.next_cursor,
    )


def _login_line(line: LoginLine, actor: Actor) -> schemas.LoginLineOut:
    return schemas.LoginLineOut(
        id=line.id,
        created_at=line.created_at,
        refreshed_at=line.refreshed_at,
        source=line.source,
        user_agent=line.user_agent,
        is_current=line.id == actor.login_id,
    )


@router.delete("/logins/{login_id}", responses=answers(LoginNotFound))
async def end_login(actor: SignedInWriter, unit: UnitDep, login_id: LoginIdPath, response: Response) -> DetailOut:
    """End one of one's own logins; when it is the one in use, this is signing out."""
    await service.end_login(unit, actor, login_id)
    if login_id == actor.login_id:
        cookies.clear_login(response, unit.settings)
    return DetailOut(detail="ended")
