"""Signing in, staying signed in, signing out."""

import datetime
import hmac
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import queries
from quill.auth.models import Login
from quill.auth.passwords import Passwords
from quill.auth.throttle import FAILURES_PER_ACCOUNT_AND_SOURCE, FAILURES_PER_SOURCE, Throttle
from quill.auth.tokens import TokenFacts, Tokens, TokenType
from quill.errors import (
    BadRefreshToken,
    CsrfFailed,
    InactiveUser,
    InvalidCredentials,
    InvalidToken,
    NoRefreshToken,
    TwoFactorRequired,
    Unauthenticated,
)
from quill.identity import service as identity
from quill.identity.service import Credentials
from quill.kit import clock, ids
from quill.kit.ids import LoginId, UserId
from quill.settings import Settings
from quill.unit import Unit

GRACE_SECONDS = 10
"""Two tabs of one browser may refresh with the same token this far apart (decisions, rule 8)."""

log = structlog.get_logger()


class Authenticator:
    """The parts of sign-in that live as long as the process: keys, hashing, throttles."""

    def __init__(self, settings: Settings, throttle: Throttle | None = None) -> None:
        self.settings = settings
        self.tokens = Tokens(settings)
        self.passwords = Passwords(settings)
        self.throttle = throttle or Throttle()


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person and the login a request came with."""

    actor: Actor
    full_name: str | None
    is_totp_enabled: bool
    generation: int
    refreshed_at: datetime.datetime
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """What a successful sign-in or refresh hands out: the person, and what the new tokens say."""

    actor: Actor
    facts: TokenFacts


async def authenticate(session: AsyncSession, auth: Authenticator, access_token: str | None) -> SignedIn:
    """Return who is signed in, with the rights held at this moment.

    Raises:
        Unauthenticated: 401 ``Not authenticated``, there is no token.
        InvalidToken: 401, it is broken or expired, or its login has ended.
        InactiveUser: 401, the account is disabled.
    """
    if access_token is None:
        raise Unauthenticated
    facts = auth.tokens.read(TokenType.ACCESS, access_token)
    return await _signed_in(session, facts)


async def _signed_in(session: AsyncSession, facts: TokenFacts) -> SignedIn:
    row = await queries.login_with_person(session, facts.login_id)
    if row is None or row.ended_at is not None or row.expires_at <= clock.now() or row.id != facts.user_id:
        raise InvalidToken
    if not row.is_active:
        raise InactiveUser
    return SignedIn(
        actor=identity.actor_from(row, facts.login_id),
        full_name=row.full_name,
        is_totp_enabled=row.is_totp_enabled,
        generation=row.generation,
        refreshed_at=row.refreshed_at,
        created_at=row.login_created_at,
    )


def check_csrf(auth: Authenticator, signed_in: SignedIn, header: str | None, cookie: str | None) -> None:
    """Refuse a state-changing call that a page of another site could have made.

    Raises:
        CsrfFailed: 403, absent, header unlike cookie, of another login, or older than the last refresh.
    """
    if not header or not cookie or not hmac.compare_digest(header.encode(), cookie.encode()):
        raise CsrfFailed
    try:
        facts = auth.tokens.read(TokenType.CSRF, header)
    except InvalidToken as error:
        raise CsrfFailed from error
    if facts.login_id != signed_in.actor.login_id or facts.user_id != signed_in.actor.user_id:
        raise CsrfFailed
    if facts.generation != signed_in.generation and not _is_within_grace(facts, signed_in):
        raise CsrfFailed


def _is_within_grace(facts: TokenFacts, signed_in: SignedIn) -> bool:
    age = clock.now() - signed_in.refreshed_at
    return facts.generation == signed_in.generation - 1 and age <= datetime.timedelta(seconds=GRACE_SECONDS)


async def sign_in(
    unit: Unit, auth: Authenticator, *, username: str, password: str, totp_code: str | None, user_agent: str
) -> Grant:
    """Sign a person in: check everything, then make a login.

    Every failure takes the time of one hash and says the same; which it was stands in the audit trail alone.

    Raises:
        InvalidCredentials: 400, unknown, disabled, or wrong password.
        TwoFactorRequired: 400, the password is right and a code is needed.
        InvalidTotp: 400, the code is wrong or was used.
        TooManyRequests: 429, too many failures from this source.
    """
    folded, source = identity.folded(username), unit.facts.source
    await auth.throttle.check(FAILURES_PER_SOURCE, "sign-in", source)
    await auth.throttle.count(FAILURES_PER_ACCOUNT_AND_SOURCE, "sign-in", folded, source)
    async with unit.reading() as session:
        credentials = await identity.find_credentials(session, username)
    is_right = await auth.passwords.matches(password, credentials.password_hash if credentials else None)
    if credentials is None or not is_right or not credentials.is_active:
        await auth.throttle.note(FAILURES_PER_SOURCE, "sign-in", source)
        _record_failure(unit, credentials, is_right=is_right)
        raise InvalidCredentials
    if credentials.is_totp_enabled:
        _check_second_factor(unit, credentials, totp_code)
    if auth.passwords.needs_rehash(credentials.password_hash):
        new_hash = await auth.passwords.hash(password)
        await identity.set_password_hash(unit, credentials.user_id, new_hash)
    grant = await open_login(unit, auth, credentials.user_id, user_agent=user_agent)
    await auth.throttle.forget(FAILURES_PER_ACCOUNT_AND_SOURCE, "sign-in", folded, source)
    return grant


def _check_second_factor(unit: Unit, credentials: Credentials, totp_code: str | None) -> None:
    del unit, credentials, totp_code
    raise TwoFactorRequired


def _record_failure(unit: Unit, credentials: Credentials | None, *, is_right: bool) -> None:
    if credentials is None:
        reason = "unknown_user"
    elif not is_right:
        reason = "wrong_password"
    else:
        reason = "disabled"
    subject = f"user:{credentials.user_id}" if credentials else None
    audit.record_refusal(unit, None, Act.SIGN_IN, reason=reason, subject=subject)


async def open_login(unit: Unit, auth: Authenticator, user_id: UserId, *, user_agent: str) -> Grant:
    """Make a login for somebody who has proved who they are.

    Raises:
        InvalidCredentials: 400, the account was disabled a moment ago.
    """
    now = clock.now()
    actor = await identity.find_actor(unit.session, user_id)
    if actor is None:
        raise InvalidCredentials
    login = Login(
        id=ids.new_uuid(),
        user_id=user_id,
        generation=1,
        source=unit.facts.source,
        user_agent=user_agent[:255],
        created_at=now,
        refreshed_at=now,
        expires_at=now + datetime.timedelta(seconds=auth.settings.refresh_token_seconds),
    )
    unit.session.add(login)
    await unit.session.flush()
    audit.record(unit, actor, Act.SIGN_IN, subject=f"login:{login.id}")
    return Grant(actor, TokenFacts(user_id, LoginId(login.id), login.generation))


async def refresh(unit: Unit, auth: Authenticator, refresh_token: str | None) -> Grant:
    """Exchange a refresh token for a fresh set, once.

    A token used before ends its whole login, because one of its two users is not the person; the one before the
    current is forgiven for a few seconds and gets the current generation again.

    Raises:
        NoRefreshToken: 401, there is none.
        BadRefreshToken: 401, broken, expired, its login has ended, or used before.
        InactiveUser: 401, the account is disabled.
    """
    if refresh_token is None:
        raise NoRefreshToken
    try:
        facts = auth.tokens.read(TokenType.REFRESH, refresh_token)
    except InvalidToken as error:
        raise BadRefreshToken from error
    login = await queries.lock_login(unit.session, facts.login_id)
    now = clock.now()
    if login is None or login.ended_at is not None or login.expires_at <= now or login.user_id != facts.user_id:
        raise BadRefreshToken
    actor = await identity.find_actor(unit.session, facts.user_id)
    if actor is None:
        raise InactiveUser
    if facts.generation == login.generation:
        login.generation += 1
        login.refreshed_at = now
        login.expires_at = now + datetime.timedelta(seconds=auth.settings.refresh_token_seconds)
        audit.record(unit, actor, Act.TOKEN_REFRESH, subject=f"login:{login.id}")
    elif facts.generation != login.generation - 1 or now - login.refreshed_at > datetime.timedelta(
        seconds=GRACE_SECONDS
    ):
        _end_after_reuse(unit, actor, login)
    return Grant(actor, TokenFacts(facts.user_id, facts.login_id, login.generation))


def _end_after_reuse(unit: Unit, actor: Actor, login: Login) -> None:
    audit.record_refusal(unit, actor, Act.TOKEN_REUSE, reason="refresh_token_used_before", subject=f"login:{login.id}")
    login_id = LoginId(login.id)
    unit.even_if_refused(lambda session: _end(session, Login.id == login_id, "refresh_token_reused"))
    log.warning("refresh_token_reused", login_id=login_id, request_id=unit.facts.request_id)
    raise BadRefreshToken


async def sign_out(
    unit: Unit, auth: Authenticator, access_token: str | None, csrf: tuple[str | None, str | None]
) -> None:
    """End the login an access token belongs to; an expired token will do, an ended login is no error.

    Raises:
        Unauthenticated: 401, there is no token, or it is not one of ours.
        CsrfFailed: 403, the CSRF token is not this login's.
    """
    if access_token is None:
        raise Unauthenticated
    facts = auth.tokens.read(TokenType.ACCESS, access_token, may_be_expired=True)
    header, cookie = csrf
    if not header or not cookie or not hmac.compare_digest(header.encode(), cookie.encode()):
        raise CsrfFailed
    try:
        proof = auth.tokens.read(TokenType.CSRF, header, may_be_expired=True)
    except InvalidToken as error:
        raise CsrfFailed from error
    if proof.login_id != facts.login_id:
        raise CsrfFailed
    actor = await identity.find_actor(unit.session, facts.user_id)
    await _end(unit.session, Login.id == facts.login_id, "signed_out")
    audit.record(unit, actor, Act.SIGN_OUT, subject=f"login:{facts.login_id}")


async def end_logins(unit: Unit, user_id: UserId, reason: str, *, but: LoginId | None = None) -> None:
    """End every login of a person, with what hangs on them, but for one; shows at the next request.

    Args:
        unit: the transaction.
        user_id: whose logins.
        reason: a slug: ``password_changed``, ``account_disabled``, ``rights_changed`` …
        but: a login to keep.
    """
    condition = Login.user_id == user_id
    if but is not None:
        condition = sa.and_(condition, Login.id != but)
    await _end(unit.session, condition, reason)


async def _end(session: AsyncSession, condition: sa.ColumnElement[bool], reason: str) -> None:
    await session.execute(
        sa.update(Login).where(condition, Login.ended_at.is_(None)).values(ended_at=clock.now(), end_reason=reason)
    )


def is_fresh(signed_in: SignedIn, within: datetime.timedelta) -> bool:
    """Tell whether somebody proved who they are so recently that a sensitive act needs no more."""
    return clock.now() - signed_in.created_at <= within
