"""The second factor: time-based codes, the single-use codes that stand in for them, turning it on and off.

Source: RFC 6238 (TOTP) over RFC 4226 (HOTP), with the parameters every authenticator app assumes.
"""

import base64
import hmac
import secrets
from urllib.parse import quote, urlencode

import structlog
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import new_passwords, recovery, service
from quill.auth.service import Authenticator, SignedIn
from quill.auth.throttle import CODES_PER_ACCOUNT, WRONG_CODES_PER_PASSWORD
from quill.errors import (
    InactiveUser,
    InvalidTotp,
    NoTotpSecret,
    ReauthenticationRequired,
    SecondFactorUnreadable,
    TotpAlreadyEnabled,
    TwoFactorRequired,
)
from quill.identity import credentials as credentials_of
from quill.identity.credentials import Credentials
from quill.kit import clock
from quill.kit.crypto import CannotUnseal, Resealed
from quill.kit.ids import UserId
from quill.unit import Unit

ISSUER = "Quill"
DIGITS = 6
STEP_SECONDS = 30
DRIFT_STEPS = 1
SECRET_BYTES = 20
"""32 characters of base32; RFC 4226, section 4 recommends 160 bits."""

log = structlog.get_logger()


def provision_uri(username: str, secret: str) -> str:
    """Return the ``otpauth://`` address an authenticator app reads from a QR code."""
    return f"otpauth://totp/{ISSUER}:{quote(username, safe='')}?{urlencode({'secret': secret, 'issuer': ISSUER})}"


def matching_step(secret: str, code: str, step: int) -> int | None:
    """Return the newest step around ``step`` that a code belongs to, or ``None`` for a wrong code.

    Args:
        secret: base32.
        code: what the person typed, spaces removed.
        step: the current step: Unix time in units of 30 seconds.
    """
    if not (len(code) == DIGITS and code.isascii() and code.isdecimal()):
        return None
    generator = HOTP(base64.b32decode(secret), DIGITS, SHA1())  # noqa: S303 - RFC 6238; apps know no other
    candidates = range(step - DRIFT_STEPS, step + DRIFT_STEPS + 1)
    matches = [one for one in candidates if hmac.compare_digest(generator.generate(one), code.encode())]
    return max(matches, default=None)


def current_step() -> int:
    """Return the step of this moment."""
    return int(clock.now().timestamp()) // STEP_SECONDS


async def set_up(unit: Unit, auth: Authenticator, actor: Actor) -> str:
    """Return the address for an authenticator app; until a code is verified, sign-in asks for none.

    Asked again, it returns the same secret, so that a page loaded twice does not spoil what was scanned.

    Raises:
        TotpAlreadyEnabled: 409, it is on, and a secret in use is never shown again.
    """
    account = await _locked(unit, actor.person_id)
    if account.is_totp_enabled:
        audit.record_refusal(unit, actor, Act.TWO_FACTOR_SET_UP, reason=TotpAlreadyEnabled.code)
        raise TotpAlreadyEnabled
    secret = _pending_secret(auth, account)
    if secret is None:
        secret = base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode()
        await _keep_secret(unit, auth, account.user_id, secret)
        audit.record(unit, actor, Act.TWO_FACTOR_SET_UP, subject=f"user:{account.user_id}")
    return provision_uri(account.username, secret)


def _pending_secret(auth: Authenticator, account: Credentials) -> str | None:
    if account.totp_secret is None:
        return None
    try:
        return auth.sealer.unseal(account.totp_secret, _owner(account.user_id)).text
    except CannotUnseal:
        # Nobody signs in with it yet, so a new one does no harm.
        return None


async def verify(unit: Unit, auth: Authenticator, actor: Actor, code: str) -> list[str]:
    """Turn the second factor on once its secret has arrived; a valid code given again changes nothing.

    Returns:
        Ten recovery codes, shown this once; none when it was on already.

    Raises:
        NoTotpSecret: 400, it was not set up.
        InvalidTotp: 400, the code is wrong or was used.
        TooManyRequests: 429, too many wrong codes.
    """
    await auth.throttle.count(CODES_PER_ACCOUNT, str(actor.person_id))
    account = await _locked(unit, actor.person_id)
    if account.totp_secret is None:
        raise NoTotpSecret
    if not await _take(unit, auth, account, _compact(code)):
        audit.record_refusal(unit, actor, Act.TWO_FACTOR_ENABLE, reason=InvalidTotp.code)
        raise InvalidTotp("Invalid code")
    await auth.throttle.give_back(CODES_PER_ACCOUNT, str(actor.person_id))
    if account.is_totp_enabled:
        return []
    await credentials_of.enable_totp(unit, account.user_id)
    audit.record(unit, actor, Act.TWO_FACTOR_ENABLE, subject=f"user:{account.user_id}")
    return await recovery.issue(unit, account.user_id)


async def count_attempt(auth: Authenticator, account: Credentials) -> None:
    """Count a code about to be tried at sign-in, from wherever.

    Only who has the password gets here, so no stranger can use the limit up; a new password begins a new count.

    Raises:
        TooManyRequests: 429.
    """
    await auth.throttle.count(WRONG_CODES_PER_PASSWORD, str(account.user_id), account.password_hash)


async def check_code(unit: Unit, auth: Authenticator, account: Credentials, code: str | None) -> None:
    """Refuse a sign-in without a right and unused code, be it of the app or a recovery code.

    Args:
        unit: the transaction that holds the account.
        auth: keys and throttles.
        account: as it is held.
        code: what the person typed.

    Raises:
        TwoFactorRequired: 400, there is none.
        InvalidTotp: 400, wrong or used.
        SecondFactorUnreadable: 503, the secret was sealed under a key that is gone.
    """
    if code is None:
        raise TwoFactorRequired
    compact = _compact(code)
    if len(compact) == DIGITS:
        is_right = await _take(unit, auth, account, compact)
    else:
        is_right = await recovery.use(unit, account.user_id, compact)
    if not is_right:
        subject = f"user:{account.user_id}"
        audit.record_refusal(unit, None, Act.SIGN_IN, reason=InvalidTotp.code, subject=subject)
        raise InvalidTotp
    await auth.throttle.give_back(WRONG_CODES_PER_PASSWORD, str(account.user_id), account.password_hash)


async def disable(unit: Unit, auth: Authenticator, signed_in: SignedIn, password: str | None) -> None:
    """Turn one's own second factor off and end one's other logins; harmless when it is off.

    Args:
        unit: the transaction.
        auth: keys and throttles.
        signed_in: who asks.
        password: proof, needed when the sign-in is older than 15 minutes.

    Raises:
        ReauthenticationRequired: 403, neither is the sign-in fresh nor the password right.
        TooManyRequests: 429, too many wrong passwords.
    """
    actor = signed_in.actor
    if not signed_in.is_fresh and (
        password is None or await new_passwords.prove(unit, auth, actor.person_id, password) is None
    ):
        audit.record_refusal(unit, actor, Act.TWO_FACTOR_DISABLE, reason=ReauthenticationRequired.code)
        raise ReauthenticationRequired
    await disable_for(unit, actor, actor.person_id)


async def disable_for(unit: Unit, actor: Actor, user_id: UserId) -> None:
    """Turn somebody's second factor off and end their logins but the one the request came with.

    Whether the actor may is the caller's decision: an admin does this for somebody who lost both phone and codes.

    Raises:
        InactiveUser: 401, there is no such account.
    """
    account = await _locked(unit, user_id)
    await credentials_of.clear_totp(unit, user_id)
    await recovery.withdraw(unit, user_id)
    if account.is_totp_enabled:
        await service.end_logins(unit, user_id, "two_factor_disabled", but=actor.login_id)
    audit.record(unit, actor, Act.TWO_FACTOR_DISABLE, subject=f"user:{user_id}")


async def reseal(unit: Unit, auth: Authenticator) -> Resealed:
    """Seal every secret under the current key that was sealed under the previous one."""
    count = unreadable = 0
    for user_id, sealed in (await credentials_of.lock_totp_secrets(unit)).items():
        try:
            unsealed = auth.sealer.unseal(sealed, _owner(user_id))
        except CannotUnseal:
            unreadable += 1
            continue
        if not unsealed.is_current:
            await _keep_secret(unit, auth, user_id, unsealed.text)
            count += 1
    return Resealed(count, unreadable)


async def _take(unit: Unit, auth: Authenticator, account: Credentials, code: str) -> bool:
    """Use up the step a code belongs to; seals the secret anew when its key was rotated."""
    if account.totp_secret is None:
        return False
    try:
        unsealed = auth.sealer.unseal(account.totp_secret, _owner(account.user_id))
    except CannotUnseal as error:
        log.error("totp_secret_unreadable", user_id=account.user_id, request_id=unit.facts.request_id)
        raise SecondFactorUnreadable from error
    step = matching_step(unsealed.text, code, current_step())
    if step is None or not await credentials_of.take_totp_step(unit, account.user_id, step):
        return False
    if not unsealed.is_current:
        await _keep_secret(unit, auth, account.user_id, unsealed.text)
    return True


async def _keep_secret(unit: Unit, auth: Authenticator, user_id: UserId, secret: str) -> None:
    await credentials_of.set_totp_secret(unit, user_id, auth.sealer.seal(secret, _owner(user_id)))


async def _locked(unit: Unit, user_id: UserId) -> Credentials:
    account = await credentials_of.lock(unit, user_id)
    if account is None:
        raise InactiveUser
    return account


def _owner(user_id: UserId) -> str:
    return f"user:{user_id}"


def _compact(code: str) -> str:
    """Return a code without the spaces and hyphens people and apps group it with."""
    return "".join(character for character in code if character not in " -\u00a0")
