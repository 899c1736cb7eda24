"""Tokens: JWTs that point at a login. Rights are never in them; those are read on every request.

Claims (RFC 7519): ``sub`` user id, ``sid`` login id, ``gen`` the login's generation, ``typ`` what the token is for,
``jti``, ``iss``, ``aud``, ``iat``, ``exp``. The header's ``kid`` names the key, so that a key can be rotated.
"""

import datetime
import functools
import hashlib
from dataclasses import dataclass
from enum import StrEnum

import jwt

from quill.errors import InvalidToken
from quill.kit import clock, ids
from quill.kit.ids import LoginId, UserId
from quill.settings import Settings

ALGORITHM = "HS256"
ISSUER = "quill"
AUDIENCE = "quill-api"
REMEMBERED = 2048
"""Tokens of which a process remembers that it signed them: some megabyte."""


class TokenType(StrEnum):
    """What a token is for; one kind is never accepted as another."""

    ACCESS = "access"
    REFRESH = "refresh"
    CSRF = "csrf"


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a valid token says."""

    user_id: UserId
    login_id: LoginId
    generation: int


@dataclass(frozen=True, slots=True)
class _Claims:
    kind: str
    expires_at: int
    facts: TokenFacts


class Tokens:
    """Signs and reads tokens with the current key; reads those of the previous key too."""

    def __init__(self, settings: Settings) -> None:
        keys = settings.accepted_keys()
        self._key = keys[0]
        self._kid = _key_id(keys[0])
        self._keys = {_key_id(key): key for key in keys}
        self.lifetimes = {
            TokenType.ACCESS: settings.access_token_seconds,
            TokenType.CSRF: settings.access_token_seconds,
            TokenType.REFRESH: settings.refresh_token_seconds,
        }
        # A client sends the same token with every request for some minutes. A signature that was right stays right, and
        # a wrong one is never kept, since it raises; whether the login still holds is asked of the database each time.
        self._signed = functools.lru_cache(maxsize=REMEMBERED)(self._verify)

    def sign(self, kind: TokenType, facts: TokenFacts) -> str:
        """Return a fresh token of a kind for a login's generation."""
        now = clock.now()
        claims = {
            "sub": str(facts.user_id),
            "sid": facts.login_id,
            "gen": facts.generation,
            "typ": kind.value,
            "jti": ids.new_uuid(),
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + datetime.timedelta(seconds=self.lifetimes[kind]),
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})

    def read(self, kind: TokenType, token: str, *, may_be_expired: bool = False) -> TokenFacts:
        """Return what a token says.

        Args:
            kind: the only kind accepted.
            token: the compact JWT.
            may_be_expired: accept one past its time, for signing out.

        Raises:
            InvalidToken: 401, broken, expired, foreign or of another kind.
        """
        claims = self._signed(token)
        if claims.kind != kind.value:
            raise InvalidToken
        if not may_be_expired and claims.expires_at <= clock.now().timestamp():
            raise InvalidToken
        return claims.facts

    def _verify(self, token: str) -> _Claims:
        """Return what we once signed; nothing here depends on when it is asked."""
        try:
            claims = jwt.decode(
                token,
                self._key_for(token),
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # Expiry is compared with our own clock, each time.
                options={
                    "require": ["sub", "sid", "gen", "typ", "jti", "exp", "iat"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            return _Claims(
                str(claims["typ"]),
                int(claims["exp"]),
                TokenFacts(UserId(int(claims["sub"])), LoginId(str(claims["sid"])), int(claims["gen"])),
            )
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, UnicodeError) as error:
            raise InvalidToken from error

    def _key_for(self, token: str) -> str:
        if len(self._keys) == 1:
            # No need to take the token apart twice.
            return self._key
        return self._keys.get(jwt.get_unverified_header(token).get("kid", ""), self._key)


def _key_id(key: str) -> str:
    return hashlib.sha256(b"quill key id:" + key.encode()).hexdigest()[:16]
