"""Signing in, staying signed in, signing out."""

import dataclasses
import datetime
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import queries, service, totp
from quill.auth.models import Login
from quill.auth.service import Authenticator
from quill.auth.throttle import (
    FAILURES_PER_ACCOUNT_AND_SOURCE,
    FAILURES_PER_SOURCE,
    REFRESHES_PER_LOGIN,
    network_of,
)
from quill.auth.tokens import TokenFacts, TokenType
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
from quill.identity import credentials as credentials_of
from quill.identity import service as identity
from quill.identity.credentials import Credentials
from quill.kit import clock, ids
from quill.kit.ids import LoginId, UserId
from quill.unit import Unit

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What somebody signs in with."""

    username: str
    password: str
    code: str | None
    user_agent: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What a successful sign-in or refresh hands out: the person, and what the new tokens say."""

    actor: Actor
    facts: TokenFacts


async def sign_in(unit: Unit, auth: Authenticator, attempt: Attempt) -> Grant:
    """Sign a person in: check everything, then make a login.

    Every failure before the second factor takes the time of one hash and says the same; which it was stands in the
    audit trail alone. What a throttle turns away leaves no row there, so that a flood costs no writes.

    Raises:
        InvalidCredentials: 400, unknown, disabled, or wrong password.
        TwoFactorRequired: 400, the password is right and a code is needed.
        InvalidTotp: 400, the code is wrong or was used.
        TooManyRequests: 429, too many failures from this source or of this second factor.
        Overloaded: 503, too many people sign in at this moment.
    """
    source = network_of(unit.facts.source)
    pair = (identity.folded(attempt.username), source)
    # The pair first: whoever hammers at one account must not use up what everybody behind the address shares.
    await auth.throttle.count(FAILURES_PER_ACCOUNT_AND_SOURCE, *pair)
    await auth.throttle.count(FAILURES_PER_SOURCE, source)
    async with (
        auth.throttle.sparing(FAILURES_PER_ACCOUNT_AND_SOURCE, *pair),
        auth.throttle.sparing(FAILURES_PER_SOURCE, source),
    ):
        return await _sign_in(unit, auth, attempt)


async def _sign_in(unit: Unit, auth: Authenticator, attempt: Attempt) -> Grant:
    async with unit.reading() as session:
        found = await credentials_of.find_by_username(session, attempt.username)
    is_right = await auth.passwords.matches(attempt.password, found.password_hash if found else None)
    if found is None or not is_right or not found.is_active:
        _record_failure(unit, found, is_right=is_right)
        raise InvalidCredentials
    if found.is_totp_enabled and attempt.code is None:
        await _give_back(unit, auth, attempt)
        audit.record_refusal(unit, None, Act.SIGN_IN, reason="code_missing", subject=f"user:{found.user_id}")
        raise TwoFactorRequired
    if found.is_totp_enabled:
        await totp.count_attempt(auth, found)
    renewed = None
    if auth.passwords.needs_rehash(found.password_hash):
        renewed = await auth.passwords.hash(attempt.password)
    # No transaction was open while hashing. From here on the account is held, so that a password changed meanwhile, or
    # a code that somebody else uses at this moment, is seen.
    held = await credentials_of.lock(unit, found.user_id)
    if held is None or not held.is_active or not await _is_still_right(auth, attempt, found, held):
        audit.record_refusal(unit, None, Act.SIGN_IN, reason="changed_meanwhile", subject=f"user:{found.user_id}")
        raise InvalidCredentials
    if held.is_totp_enabled:
        await totp.check_code(unit, auth, held, attempt.code)
    if renewed is not None and held.password_hash == found.password_hash:
        await credentials_of.set_password_hash(unit, held.user_id, renewed)
    await _give_back(unit, auth, attempt)
    return await open_login(unit, auth, held.user_id, user_agent=attempt.user_agent)


async def _is_still_right(auth: Authenticator, attempt: Attempt, found: Credentials, held: Credentials) -> bool:
    # A hash that changed since was renewed by another sign-in, which is no harm, or belongs to a new password.
    return held.password_hash == found.password_hash or await auth.passwords.matches(
        attempt.password, held.password_hash
    )


async def _give_back(unit: Unit, auth: Authenticator, attempt: Attempt) -> None:
    source = network_of(unit.facts.source)
    await auth.throttle.give_back(FAILURES_PER_ACCOUNT_AND_SOURCE, identity.folded(attempt.username), source)
    await auth.throttle.give_back(FAILURES_PER_SOURCE, source)


def _record_failure(unit: Unit, found: Credentials | None, *, is_right: bool) -> None:
    if found is None:
        reason = "unknown_user"
    elif not is_right:
        reason = "wrong_password"
    else:
        reason = "disabled"
    subject = f"user:{found.user_id}" if found else None
    audit.record_refusal(unit, None, Act.SIGN_IN, reason=reason, subject=subject)


async def open_login(unit: Unit, auth: Authenticator, user_id: UserId, *, user_agent: str) -> Grant:
    """Make a login for somebody who has proved who they are.

    Raises:
        InvalidCredentials: 400, the account was disabled a moment ago.
    """
    now = clock.now()
    actor = await identity.find_actor(unit.session, auth.settings, user_id)
    if actor is None:
        raise InvalidCredentials
    login = Login(
        id=ids.new_uuid(),
        user_id=user_id,
        generation=1,
        source=unit.facts.source,
        # A browser says what it likes; what is kept of it is shown to the person again.
        user_agent="".join(character for character in user_agent if character.isprintable())[:255],
        created_at=now,
        refreshed_at=now,
        expires_at=now + datetime.timedelta(seconds=auth.settings.refresh_token_seconds),
    )
    unit.session.add(login)
    await unit.session.flush()
    login_id = LoginId(login.id)
    actor = dataclasses.replace(actor, login_id=login_id)
    audit.record(unit, actor, Act.SIGN_IN, subject=f"login:{login_id}")
    return Grant(actor, TokenFacts(user_id, login_id, login.generation))


async def refresh(unit: Unit, auth: Authenticator, refresh_token: str | None) -> Grant:
    """Exchange a refresh token for a fresh set, once.

    A token used before ends its whole login, because one of its two users is not the person; the one before the
    current is forgiven for a few seconds and gets the current generation again.

    Raises:
        NoRefreshToken: 401, there is none.
        BadRefreshToken: 401, broken, expired, its login has ended, or used before.
        InactiveUser: 401, the account is disabled.
        TooManyRequests: 429, this login refreshes all the time.
    """
    if refresh_token is None:
        raise NoRefreshToken
    try:
        facts = auth.tokens.read(TokenType.REFRESH, refresh_token)
    except InvalidToken as error:
        raise BadRefreshToken from error
    await auth.throttle.count(REFRESHES_PER_LOGIN, facts.login_id)
    async with auth.throttle.sparing(REFRESHES_PER_LOGIN, facts.login_id):
        return await _refresh(unit, auth, facts)


async def _refresh(unit: Unit, auth: Authenticator, facts: TokenFacts) -> Grant:
    async with unit.reading() as session:
        row = await queries.login_with_person(session, facts.login_id)
    now = clock.now()
    if row is None or row.id != facts.user_id:
        raise BadRefreshToken
    if not row.is_active:
        raise InactiveUser
    if row.ended_at is not None or row.expires_at <= now:
        raise BadRefreshToken
    actor = identity.actor_from(row, auth.settings, facts.login_id)
    generation = row.generation
    if facts.generation == generation:
        audit.record(unit, actor, Act.TOKEN_REFRESH, subject=f"login:{facts.login_id}")
        ends_at = now + datetime.timedelta(seconds=auth.settings.refresh_token_seconds)
        values = {"the_login": facts.login_id, "from_generation": generation, "begins_at": now, "ends_at": ends_at}
        if not await unit.commit_with((queries.ADVANCE, values)):
            # Another call was faster: there is a newer generation now, or the login has ended. Neither is ever undone,
            # so the next look does not lead here again.
            return await _refresh(unit, auth, facts)
        generation += 1
    elif not service.is_within_grace(facts, generation, row.refreshed_at):
        _end_after_reuse(unit, actor, facts.login_id)
        raise BadRefreshToken
    return Grant(actor, TokenFacts(facts.user_id, facts.login_id, generation))


def _end_after_reuse(unit: Unit, actor: Actor, login_id: LoginId) -> None:
    async def end(session: AsyncSession) -> None:
        await service.end_where(session, Login.id == login_id, "refresh_token_reused")

    # The request is refused and its transaction undone; that the login ends must outlive it.
    unit.even_if_refused(end)
    audit.record_refusal(unit, actor, Act.TOKEN_REUSE, reason="refresh_token_used_before", subject=f"login:{login_id}")
    log.warning("refresh_token_reused", login_id=login_id)


async def sign_out(
    unit: Unit, auth: Authenticator, access_token: str | None, csrf: tuple[str | None, str | None]
) -> None:
    """End the login an access token belongs to; an expired token will do, an ended login is no error.

    Raises:
        Unauthenticated: 401, there is no token, or it is not one of ours.
        CsrfFailed: 403, the CSRF token is not this login's, or older than its last refresh.
    """
    if access_token is None:
        raise Unauthenticated
    facts = auth.tokens.read(TokenType.ACCESS, access_token, may_be_expired=True)
    proof = service.read_csrf(auth, *csrf, may_be_expired=True)
    if proof.login_id != facts.login_id or proof.user_id != facts.user_id:
        raise CsrfFailed
    async with unit.reading() as session:
        row = await queries.login_with_person(session, facts.login_id)
    if row is None:
        return
    if row.ended_at is None and proof.generation != row.generation:
        raise CsrfFailed
    if await service.end_where(unit.session, Login.id == facts.login_id, "signed_out"):
        actor = identity.actor_from(row, auth.settings, facts.login_id)
        audit.record(unit, actor, Act.SIGN_OUT, subject=f"login:{facts.login_id}")
