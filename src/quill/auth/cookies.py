"""The three cookies of a login, and nothing else a browser keeps.

Source: RFC 6265bis; lifetimes and paths as the wire contract gives them.
"""

from fastapi import Request, Response

from quill.auth.tokens import TokenFacts, Tokens, TokenType
from quill.settings import Settings

ACCESS_COOKIE = "access_token"
REFRESH_COOKIE = "refresh_token"
CSRF_COOKIE = "XSRF-TOKEN"
CSRF_HEADER = "X-CSRF-Token"
REFRESH_PATH = "/api/auth/refresh"

_PLACES = {
    TokenType.ACCESS: (ACCESS_COOKIE, "/", True),
    TokenType.REFRESH: (REFRESH_COOKIE, REFRESH_PATH, True),
    TokenType.CSRF: (CSRF_COOKIE, "/", False),
}


def set_login(response: Response, settings: Settings, tokens: Tokens, facts: TokenFacts) -> None:
    """Put fresh tokens of a login's generation into the answer's cookies."""
    for kind, (name, path, is_http_only) in _PLACES.items():
        response.set_cookie(
            name,
            tokens.sign(kind, facts),
            max_age=tokens.lifetimes[kind],
            path=path,
            domain=settings.cookie_domain,
            secure=settings.has_secure_cookies,
            httponly=is_http_only,
            samesite="lax",
        )


def clear_login(response: Response, settings: Settings) -> None:
    """Remove a login's cookies from the browser."""
    for name, path, is_http_only in _PLACES.values():
        response.delete_cookie(
            name,
            path=path,
            domain=settings.cookie_domain,
            secure=settings.has_secure_cookies,
            httponly=is_http_only,
            samesite="lax",
        )


def access_token_of(request: Request) -> str | None:
    """Return the access token the request carries, if any."""
    return request.cookies.get(ACCESS_COOKIE)


def refresh_token_of(request: Request) -> str | None:
    """Return the refresh token the request carries, if any."""
    return request.cookies.get(REFRESH_COOKIE)


def csrf_tokens_of(request: Request) -> tuple[str | None, str | None]:
    """Return the CSRF token of the header and the one of the cookie; they must be the same."""
    return request.headers.get(CSRF_HEADER), request.cookies.get(CSRF_COOKIE)
