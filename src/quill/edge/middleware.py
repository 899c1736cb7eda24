"""What every request passes first and every answer last.

Gives the request its id, works out where it came from, refuses pages of other sites, sets the security headers, writes
one log line with the route's template (never its path, which names patients), and answers what nobody foresaw.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import structlog
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quill.edge.problems import problem_response
from quill.errors import BodyTooLarge, ForeignOrigin, QuillError, Unprocessable
from quill.kit import clock, correlation, ids
from quill.kit.logs import where
from quill.kit.observing import RequestBegan, RequestEnded, tell

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110, section 9.2.1."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""OWASP HTTP Headers Cheat Sheet; the API serves data, so its content policy allows nothing."""

STRICT_TRANSPORT = "max-age=63072000; includeSubDomains"

_GIVEN_REQUEST_ID = re.compile(r"[A-Za-z0-9\-]{8,64}")

log = structlog.get_logger()


class Edge:
    """The outermost layer of the application.

    Args:
        app: what is inside.
        public_url: where people reach Quill; its origin is ours.
        allowed_origins: other origins whose pages may call.
        trusted_proxies: addresses or networks whose ``X-Forwarded-For`` is believed.
        max_body_bytes: a body announced as larger is refused before it is read.
        is_stopping: tells whether this process is about to stop; answers then close their connection, so that the
            next request opens one to a process that stays (RFC 9112, section 9.6).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        public_url: str,
        allowed_origins: Sequence[str],
        trusted_proxies: Sequence[str],
        max_body_bytes: int,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.is_stopping = is_stopping
        self.is_https = urlsplit(public_url).scheme == "https"
        parts = urlsplit(public_url)
        self.allowed_origins = {f"{parts.scheme}://{parts.netloc}", *allowed_origins}
        always = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
        if self.is_https:
            always["Strict-Transport-Security"] = STRICT_TRANSPORT
        # As they go over the wire, because every answer has them.
        self.always = [(name.lower().encode(), value.encode()) for name, value in always.items()]
        self.trusted_proxies = [ipaddress.ip_network(entry, strict=False) for entry in trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request in and its answer out."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = _Headers(scope)
        given = headers.text(b"x-request-id")
        request_id = given if given and _GIVEN_REQUEST_ID.fullmatch(given) else ids.new_uuid()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["source"] = self._source(scope, headers)
        with correlation.belonging_to(request_id):
            await self._answer(scope, receive, send, request_id, headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str, headers: "_Headers") -> None:
        tell(RequestBegan())
        started = clock.monotonic_seconds()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._set_headers(message, request_id)
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await problem_response(refusal, request_id)(scope, receive, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - the last net: whatever it is, the caller gets an answer and the log the place
            log.error("unforeseen", cause=where(error))
            if status == 0:
                await problem_response(QuillError(), request_id)(scope, receive, send_with_headers)
            else:
                # The answer is half sent: breaking the connection tells the caller that it is not whole.
                raise ConnectionResetError("The answer could not be finished.") from None
        finally:
            method, route, seconds = scope["method"], _template(scope), clock.monotonic_seconds() - started
            tell(RequestEnded(method, route, status, seconds))
            log.info("request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 1))

    def _refusal(self, scope: Scope, headers: "_Headers") -> QuillError | None:
        if "\x00" in scope["path"] or b"%00" in scope.get("query_string", b""):
            return Unprocessable("The address holds a NUL character")
        announced = headers.text(b"content-length")
        if announced.isascii() and announced.isdecimal() and int(announced[:18]) > self.max_body_bytes:
            return BodyTooLarge()
        if scope["method"] in SAFE_METHODS:
            return None
        if b"origin" in headers:
            return None if self._is_ours(headers.text(b"origin"), headers) else ForeignOrigin()
        if headers.text(b"sec-fetch-site", "none") not in {"same-origin", "none"}:
            return ForeignOrigin()
        return None

    def _is_ours(self, origin: str, headers: "_Headers") -> bool:
        if origin in self.allowed_origins:
            return True
        # A page served from the very host that is asked is ours, whatever name the host goes by in development.
        return not self.is_https and urlsplit(origin).netloc == headers.text(b"host")

    def _set_headers(self, start: Message, request_id: str) -> None:
        """Complete an answer's headers; what a route has set itself stays."""
        given = list(start.get("headers", ()))
        own = {name.lower() for name, _ in given}
        given += [header for header in self.always if header[0] not in own]
        given.append((b"x-request-id", request_id.encode()))
        if self.is_stopping():
            given.append((b"connection", b"close"))
        start["headers"] = given

    def _source(self, scope: Scope, headers: "_Headers") -> str:
        """Return the nearest address in the forwarding chain that is not one of our own proxies."""
        client = scope.get("client")
        source = str(client[0]) if client else "unknown"
        if b"x-forwarded-for" not in headers:
            return source[:64]
        chain = [hop.strip() for hop in headers.text(b"x-forwarded-for").split(",") if hop.strip()]
        while chain and self._is_proxy(source):
            source = chain.pop()
        return source[:64]

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.trusted_proxies)


class _Headers(dict[bytes, bytes]):
    """A request's headers by their names in small letters; of one that is repeated the first, as Starlette has it."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(reversed(scope["headers"]))

    def text(self, name: bytes, absent: str = "") -> str:
        """Return what a header holds."""
        value = self.get(name)
        return absent if value is None else value.decode("latin-1")


class BodyLimit(RequestBodyLimitMiddleware):
    """Refuses bodies that turn out to be too large, for those methods whose bodies somebody reads.

    One whose length is announced need not be counted: servers take no more than that (RFC 9112, section 6.3).
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; its body breaks off where it becomes too large."""
        if scope["type"] == "http" and (scope["method"] in SAFE_METHODS or not _comes_in_chunks(scope)):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _comes_in_chunks(scope: Scope) -> bool:
    return any(name == b"transfer-encoding" for name, _ in scope["headers"])


def _template(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
