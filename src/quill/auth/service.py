"""Who is signed in: the login behind a request, the CSRF token of a change, and ending logins.

Signing in and out is ``sign_in``, seeing and ending single logins ``logins``, the second factor ``totp``, passwords
that are proved, changed and reset ``new_passwords``.
"""

import datetime
import hmac
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.auth import queries
from quill.auth.models import Login
from quill.auth.passwords import Passwords
from quill.auth.throttle import Throttle
from quill.auth.tokens import TokenFacts, Tokens, TokenType
from quill.errors import CsrfFailed, InactiveUser, InvalidToken, Unauthenticated
from quill.identity import service as identity
from quill.identity.registration import Registration
from quill.kit import clock
from quill.kit.crypto import Sealer
from quill.kit.ids import LoginId, PatientId, UserId
from quill.settings import Settings
from quill.unit import Unit

GRACE_SECONDS = 10
"""Two tabs of one browser may refresh with the same token this far apart (decisions, rule 8)."""

FRESH_SECONDS = 15 * 60
"""A sign-in this young is proof enough for a sensitive act (decisions, rule 10)."""

Params = ParamSpec("Params")
Found = TypeVar("Found")


class Authenticator:
    """The parts of sign-in that live as long as the process: keys, hashing, throttles."""

    def __init__(self, settings: Settings, throttle: Throttle | None = None) -> None:
        self.settings = settings
        self.tokens = Tokens(settings)
        self.passwords = Passwords(settings)
        self.throttle = throttle or Throttle()
        self.sealer = Sealer(settings.accepted_keys(), "totp-secret")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person and the login a request came with; and the ties to the patient whom the request is about."""

    actor: Actor
    full_name: str | None
    registrations: Sequence[Registration]
    is_totp_enabled: bool
    generation: int
    refreshed_at: datetime.datetime
    created_at: datetime.datetime
    ties: identity.Ties | None = None

    @property
    def is_fresh(self) -> bool:
        """Tell whether the person signed in so recently that a sensitive act needs no more proof."""
        return clock.now() - self.created_at < datetime.timedelta(seconds=FRESH_SECONDS)


async def authenticate(
    session: AsyncSession, auth: Authenticator, access_token: str | None, about: PatientId | None = None
) -> SignedIn:
    """Return who is signed in, with the rights held at this moment.

    Args:
        session: where to look; one statement.
        auth: what reads the token.
        access_token: what the request came with.
        about: a patient to whom the person's ties are looked up as well.

    Raises:
        Unauthenticated: 401 ``Not authenticated``, there is no token.
        InvalidToken: 401, it is broken, expired or from before a refresh, or its login has ended.
        InactiveUser: 401, the account is disabled.
    """
    facts = _read_access(auth, access_token)
    return _signed_in(auth, facts, await queries.login_with_person(session, facts.login_id, about), about)


async def authenticate_all(
    session: AsyncSession, auth: Authenticator, access_tokens: Collection[str | None]
) -> dict[str | None, SignedIn | Unauthenticated]:
    """Return for each of some tokens what ``authenticate`` returns or raises; one statement for all of them."""
    facts = {token: _attempt(_read_access, auth, token) for token in access_tokens}
    login_ids = {found.login_id for found in facts.values() if isinstance(found, TokenFacts)}
    rows = {row.login_id: row for row in await queries.logins_with_people(session, login_ids)}
    return {
        token: _attempt(_signed_in, auth, found, rows.get(found.login_id)) if isinstance(found, TokenFacts) else found
        for token, found in facts.items()
    }


def _attempt(act: Callable[Params, Found], *args: Params.args, **kwargs: Params.kwargs) -> Found | Unauthenticated:
    try:
        return act(*args, **kwargs)
    except Unauthenticated as error:
        return error


def _read_access(auth: Authenticator, access_token: str | None) -> TokenFacts:
    if access_token is None:
        raise Unauthenticated
    return auth.tokens.read(TokenType.ACCESS, access_token)


def _signed_in(
    auth: Authenticator, facts: TokenFacts, row: sa.Row[Any] | None, about: PatientId | None = None
) -> SignedIn:
    """Return who is signed in by a token, going by the login and the person as they are now."""
    if row is None or row.id != facts.user_id:
        raise InvalidToken
    if not row.is_active:
        raise InactiveUser
    if row.ended_at is not None or row.expires_at <= clock.now():
        raise InvalidToken
    # Requests of other tabs are under way while one of them refreshes.
    if facts.generation != row.generation and not is_within_grace(facts, row.generation, row.refreshed_at):
        raise InvalidToken
    actor = identity.actor_from(row, auth.settings, facts.login_id)
    return SignedIn(
        actor=actor,
        full_name=row.full_name,
        registrations=identity.registrations_from(row),
        is_totp_enabled=row.is_totp_enabled,
        generation=row.generation,
        refreshed_at=row.refreshed_at,
        created_at=row.login_created_at,
        ties=identity.ties_from(row, actor, about) if about is not None else None,
    )


def is_within_grace(facts: TokenFacts, generation: int, refreshed_at: datetime.datetime) -> bool:
    """Tell whether a token is of the generation before the current one, which began a few seconds ago."""
    age = clock.now() - refreshed_at
    return facts.generation == generation - 1 and age <= datetime.timedelta(seconds=GRACE_SECONDS)


def check_csrf(auth: Authenticator, signed_in: SignedIn, header: str | None, cookie: str | None) -> None:
    """Refuse a state-changing call that a page of another site could have made.

    Raises:
        CsrfFailed: 403, absent, header unlike cookie, of another login, or older than the last refresh.
    """
    facts = read_csrf(auth, header, cookie)
    if facts.login_id != signed_in.actor.login_id or facts.user_id != signed_in.actor.user_id:
        raise CsrfFailed
    if facts.generation != signed_in.generation:
        raise CsrfFailed


def read_csrf(
    auth: Authenticator, header: str | None, cookie: str | None, *, may_be_expired: bool = False
) -> TokenFacts:
    """Return what a CSRF token says that came in the header and in the cookie alike.

    Raises:
        CsrfFailed: 403, absent, header unlike cookie, broken or expired.
    """
    if not header or not cookie or not hmac.compare_digest(header.encode(), cookie.encode()):
        raise CsrfFailed
    try:
        return auth.tokens.read(TokenType.CSRF, header, may_be_expired=may_be_expired)
    except InvalidToken as error:
        raise CsrfFailed from error


async def end_logins(unit: Unit, user_id: UserId, reason: str, *, but: LoginId | None = None) -> None:
    """End every login of a person but for one; shows at the next request, for access and refresh tokens.

    Args:
        unit: the transaction.
        user_id: whose logins.
        reason: a slug: ``password_changed``, ``account_disabled``, ``rights_changed`` …
        but: a login to keep.
    """
    condition = Login.user_id == user_id
    if but is not None:
        condition = sa.and_(condition, Login.id != but)
    await end_where(unit.session, condition, reason)


async def end_where(session: AsyncSession, condition: sa.ColumnElement[bool], reason: str) -> bool:
    """End the live logins that meet a condition; for ``auth`` alone.

    Returns:
        Whether there were any.
    """
    now = clock.now()
    ended = await session.scalars(
        sa.update(Login)
        .where(condition, queries.is_live(now))
        .values(ended_at=now, end_reason=reason)
        .returning(Login.id)
    )
    return bool(ended.all())
