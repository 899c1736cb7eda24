"""Routes of one's own sign-in and account."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from quill.access.guards import AuthenticatorDep, Public, SignedInReader
from quill.accounts.schemas import DetailOut, LoginIn, LoginOut, LoginUser, MeOut
from quill.auth import cookies
from quill.auth import service as auth
from quill.edge.inputs import refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    BadRefreshToken,
    CsrfFailed,
    InactiveUser,
    InvalidCredentials,
    InvalidTotp,
    NoRefreshToken,
    Overloaded,
    TooManyRequests,
    TwoFactorRequired,
    Unauthenticated,
)
from quill.organisations import service as organisations

router = APIRouter(prefix="/api/auth", tags=["sign-in"], dependencies=[Depends(refuse_unknown_query)])


def user_agent_of(request: Request) -> str:
    """Return the browser's own description, for the person's list of logins."""
    return request.headers.get("user-agent", "")


UserAgent = Annotated[str, Depends(user_agent_of)]


@router.post(
    "/login",
    dependencies=[Depends(Public("this is how one signs in"))],
    responses=answers(InvalidCredentials, TwoFactorRequired, InvalidTotp, TooManyRequests, Overloaded),
)
async def login(
    body: LoginIn, unit: UnitDep, authenticator: AuthenticatorDep, agent: UserAgent, response: Response
) -> LoginOut:
    """Sign in: sets the access, refresh and CSRF cookies."""
    grant = await auth.sign_in(
        unit,
        authenticator,
        username=body.username,
        password=body.password,
        totp_code=body.totp_code,
        user_agent=agent,
    )
    cookies.set_login(response, unit.settings, authenticator.tokens, grant.facts)
    return LoginOut(detail="ok", user=LoginUser(username=grant.actor.name, roles=sorted(grant.actor.roles)))


@router.post(
    "/refresh",
    dependencies=[Depends(Public("the refresh cookie is the proof"))],
    responses=answers(NoRefreshToken, BadRefreshToken, InactiveUser),
)
async def refresh(request: Request, unit: UnitDep, authenticator: AuthenticatorDep, response: Response) -> DetailOut:
    """Exchange the refresh cookie for a fresh set of cookies; the old refresh token is used up."""
    grant = await auth.refresh(unit, authenticator, cookies.refresh_token_of(request))
    cookies.set_login(response, unit.settings, authenticator.tokens, grant.facts)
    return DetailOut(detail="ok")


@router.post(
    "/logout",
    dependencies=[Depends(Public("checks the access and CSRF tokens itself, because an expired one will do"))],
    responses=answers(Unauthenticated, CsrfFailed),
)
async def logout(request: Request, unit: UnitDep, authenticator: AuthenticatorDep, response: Response) -> DetailOut:
    """End this login: its access and refresh tokens are worth nothing from the next request on."""
    await auth.sign_out(
        unit, authenticator, cookies.access_token_of(request), cookies.csrf_tokens_of(request)
    )
    cookies.clear_login(response, unit.settings)
    return DetailOut(detail="ok")


@router.get("/me", responses=answers(Unauthenticated))
async def me(actor: SignedInReader, reader: ReaderDep, request: Request) -> MeOut:
    """Return the person signed in, with the rights held at this moment."""
    signed_in: auth.SignedIn = request.state.signed_in
    return MeOut(
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
        fhir_patient_id=actor.patient_id,
    )


