"""Proving the password one has, changing it, and resetting one that was forgotten by a link sent by mail."""

import datetime
import hashlib
import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import queries, service
from quill.auth.models import PasswordReset
from quill.auth.service import Authenticator
from quill.auth.throttle import PROOFS_PER_ACCOUNT, RESETS_PER_SOURCE, network_of, reset_mails_per_address
from quill.errors import CurrentPasswordWrong, InvalidResetToken
from quill.identity import credentials as credentials_of
from quill.identity import service as identity
from quill.identity.credentials import Credentials
from quill.kit import clock, ids
from quill.kit.ids import LoginId, UserId
from quill.unit import Unit

TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class IssuedReset:
    """A fresh reset token and the address it may be sent to; the token is kept nowhere."""

    address: str
    token: str


async def prove(unit: Unit, auth: Authenticator, user_id: UserId, password: str) -> Credentials | None:
    """Return the credentials of somebody signed in whose password this is, or ``None`` when it is not.

    Call it before the unit has written anything: hashing takes long, and nobody should wait for it.

    Raises:
        TooManyRequests: 429, too many wrong passwords.
        Overloaded: 503.
    """
    await auth.throttle.count(PROOFS_PER_ACCOUNT, str(user_id))
    async with unit.reading() as session:
        account = await credentials_of.find_by_id(session, user_id)
    if account is None or not await auth.passwords.matches(password, account.password_hash):
        return None
    await auth.throttle.give_back(PROOFS_PER_ACCOUNT, str(user_id))
    return account


async def change(unit: Unit, auth: Authenticator, actor: Actor, *, current: str, new: str) -> str:
    """Replace one's own password; ends every other login and every reset link.

    Returns:
        The address to tell.

    Raises:
        CurrentPasswordWrong: 400.
        PasswordTooShort: 400.
        PasswordTooCommon: 400.
        TooManyRequests: 429, too many wrong passwords.
    """
    account = await prove(unit, auth, actor.person_id, current)
    if account is None:
        audit.record_refusal(unit, actor, Act.PASSWORD_CHANGE, reason=CurrentPasswordWrong.code)
        raise CurrentPasswordWrong
    check_new(auth, new)
    password_hash = await auth.passwords.hash(new)
    held = await credentials_of.lock(unit, account.user_id)
    if held is None or held.password_hash != account.password_hash:
        # Another change was faster, so the password proved is no longer the current one.
        raise CurrentPasswordWrong
    await replace(unit, account.user_id, password_hash, reason="password_changed", but=actor.login_id)
    audit.record(unit, actor, Act.PASSWORD_CHANGE, subject=f"user:{account.user_id}")
    return held.email


def check_new(auth: Authenticator, password: str) -> None:
    """Refuse a new password that is too short or too common, in the words the wire wants.

    Raises:
        PasswordTooShort: 400.
        PasswordTooCommon: 400.
    """
    minimum = auth.passwords.minimum()
    auth.passwords.check_acceptable(password, sentence=f"New password must be at least {minimum} characters")


async def replace(unit: Unit, user_id: UserId, password_hash: str, *, reason: str, but: LoginId | None = None) -> None:
    """Give an account a new password: every reset link dies with the old one, and so does every login but one.

    The one way to set a *new* password, for admins too; whether the actor may is the caller's decision.

    Args:
        unit: the transaction.
        user_id: whose.
        password_hash: the new hash.
        reason: why logins end, a slug.
        but: a login to keep.
    """
    await credentials_of.lock(unit, user_id)
    await credentials_of.set_password_hash(unit, user_id, password_hash)
    await withdraw_resets(unit, user_id)
    await service.end_logins(unit, user_id, reason, but=but)


async def withdraw_resets(unit: Unit, user_id: UserId) -> None:
    """Make every reset link of a person worthless."""
    await unit.session.execute(
        sa.update(PasswordReset)
        .where(PasswordReset.user_id == user_id, PasswordReset.closed_at.is_(None))
        .values(closed_at=clock.now())
    )


async def issue_reset(unit: Unit, auth: Authenticator, email: str) -> IssuedReset | None:
    """Make a reset token for whoever has an address; earlier ones are withdrawn.

    Returns:
        The token and where to send it; ``None`` for an unknown address, a disabled account, or an address that was
        sent enough mails already. The caller must not let the difference show.
    """
    lifetime = auth.settings.password_reset_seconds
    # Counted for unknown addresses too, so that this takes the same path.
    may_send = await auth.throttle.has_room(reset_mails_per_address(lifetime), identity.folded(email))
    async with unit.reading() as session:
        account = await credentials_of.find_by_email(session, email)
    if account is None or not account.is_active or not may_send:
        audit.record_refusal(unit, None, Act.PASSWORD_RESET_REQUEST, reason=_why_not(account, may_send=may_send))
        return None
    # Held so that a password changed at this moment cannot leave the new link alive.
    await credentials_of.lock(unit, account.user_id)
    await withdraw_resets(unit, account.user_id)
    now = clock.now()
    token = secrets.token_urlsafe(TOKEN_BYTES)
    unit.session.add(
        PasswordReset(
            id=ids.new_uuid(),
            user_id=account.user_id,
            token_digest=_digest(token),
            email=account.email,
            created_at=now,
            expires_at=now + datetime.timedelta(seconds=lifetime),
        )
    )
    await unit.session.flush()
    audit.record(unit, None, Act.PASSWORD_RESET_REQUEST, subject=f"user:{account.user_id}")
    return IssuedReset(account.email, token)


def _why_not(account: Credentials | None, *, may_send: bool) -> str:
    if not may_send:
        return "too_many_mails"
    return "unknown_address" if account is None else "disabled"


async def reset(unit: Unit, auth: Authenticator, *, token: str, new: str) -> str:
    """Replace a forgotten password by the token of a link; ends every login, and leaves the second factor alone.

    Returns:
        The address to tell.

    Raises:
        InvalidResetToken: 400, wrong, used, withdrawn, too old, or the account is disabled or has another address.
        PasswordTooShort: 400; the token can be used again.
        PasswordTooCommon: 400; the token can be used again.
        TooManyRequests: 429.
    """
    await auth.throttle.count(RESETS_PER_SOURCE, network_of(unit.facts.source))
    digest = _digest(token)
    async with unit.reading() as session:
        found = await _find_redeemable(session, digest)
    if found is None:
        audit.record_refusal(unit, None, Act.PASSWORD_RESET, reason=InvalidResetToken.code)
        raise InvalidResetToken
    check_new(auth, new)
    password_hash = await auth.passwords.hash(new)
    await credentials_of.lock(unit, found.user_id)
    # Looked at once more with the account held: of two who redeem one link at the same moment, the second finds none.
    if await _find_redeemable(unit.session, digest) is None:
        raise InvalidResetToken
    await replace(unit, found.user_id, password_hash, reason="password_reset")
    actor = await identity.find_actor(unit.session, auth.settings, found.user_id)
    audit.record(unit, actor, Act.PASSWORD_RESET, subject=f"user:{found.user_id}")
    return found.email


async def _find_redeemable(session: AsyncSession, digest: str) -> Credentials | None:
    """Return whose open reset link this is, unless the account is disabled or has another address by now."""
    link = await queries.find_open_reset(session, digest, clock.now())
    account = await credentials_of.find_by_id(session, UserId(link.user_id)) if link is not None else None
    if link is None or account is None or not account.is_active:
        return None
    return account if identity.folded(account.email) == identity.folded(link.email) else None


def _digest(token: str) -> str:
    return hashlib.sha256(b"password reset:" + token.encode()).hexdigest()
