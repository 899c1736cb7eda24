"""One HTTP service elsewhere: a pool of connections, deadlines, retries where repeating is safe, a circuit breaker.

Whatever goes wrong becomes one of two errors that the caller names: the service did not answer (503), or it answered
what it should not (502). Neither carries a word of the service's answer, which may quote a patient.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Literal
from urllib.parse import urlsplit

import httpx2
import stamina
import stamina.instrumentation
import structlog

from quill.adapters.breaker import CircuitBreaker
from quill.errors import Unavailable
from quill.kit import clock
from quill.kit.correlation import outgoing_headers
from quill.kit.documents import Document, NotADocument, loads
from quill.kit.logs import where
from quill.kit.observing import UpstreamCalled, tell

CONNECT_SECONDS = 2.0
ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
LONGEST_RETRY_AFTER_SECONDS = 120
KEPT_SECONDS = 10.0
"""How long an idle connection is kept: less than the services keep theirs (20 s and more), so that none is used while
the other side is closing it."""
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
"""More than any page of records; a service gone wild must not fill our memory."""

_GATEWAY_STATUSES = frozenset({502, 503, 504})
"""What stands between us and the service says that the service does not answer (RFC 9110, 15.6)."""
_NEVER_ARRIVED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""Nothing of the request was sent, so sending it again is safe whatever it is."""
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json\s*(?:;|$)", re.IGNORECASE)

log = structlog.get_logger()

# The library would log what it retries with the exception's text, which holds addresses with patients' ids.
stamina.instrumentation.set_on_retry_hooks([])


@dataclass(frozen=True, slots=True)
class Request:
    """One call.

    Attributes:
        method: ``GET``, ``PUT`` …
        path: below the service's base address, percent-encoded already; or a whole address of the same service.
        params: the query.
        headers: beside those every call carries.
        content: the body.
        expected: statuses that are an answer; any other is trouble.
        is_repeatable: whether sending it twice does what sending it once does.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    expected: Collection[int] = (200,)
    is_repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Troubles:
    """Which errors trouble with a service becomes.

    Attributes:
        unavailable: 503, it does not answer.
        refused: 502, it answers what it should not.
    """

    unavailable: type[Unavailable]
    refused: type[Unavailable]


class _Retryable(Exception):
    """An attempt failed in a way another one may not; carries the error the caller gets when it was the last."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Upstream:
    """A service behind a base address.

    Args:
        name: for log lines and metrics, such as ``fhir``.
        base_url: with or without a slash at its end.
        troubles: the errors its callers know.
        headers: sent with each call.
        auth: user and password of basic authentication (RFC 7617).
        deadline_seconds: for one call with all its attempts.
        pool_size: connections at once; further calls wait for one within their deadline.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        troubles: Troubles,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        deadline_seconds: float = 8.0,
        pool_size: int = 20,
    ) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self.breaker = CircuitBreaker()
        self._troubles = troubles
        self._deadline_seconds = deadline_seconds
        self._make_client: Callable[[], httpx2.AsyncClient] = lambda: httpx2.AsyncClient(
            headers=dict(headers or {}),
            auth=auth,
            timeout=httpx2.Timeout(deadline_seconds, connect=min(CONNECT_SECONDS, deadline_seconds)),
            limits=httpx2.Limits(
                max_connections=pool_size, max_keepalive_connections=pool_size, keepalive_expiry=KEPT_SECONDS
            ),
            follow_redirects=False,
            # A proxy of the environment is for the world outside; records do not pass through it unasked.
            trust_env=False,
            verify=_trust(base_url),
        )
        self._client: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Close what is open; the next call opens anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def send(self, request: Request) -> Answer:
        """Make a call, again where that is safe and promises better.

        Raises:
            Unavailable: the error named for it: 503 with ``Retry-After`` when the service cannot be reached, does not
                answer in time, breaks off, or is known to be down; 502 when it answers what it should not.
        """
        if not self.breaker.allows():
            tell(UpstreamCalled(self.name, request.method, "not_asked", 0.0, self.breaker.is_tripped))
            raise self._troubles.unavailable(retry_after_seconds=self.breaker.retry_after_seconds)
        with self._observed(request):
            return await self._send_within_deadline(request)

    async def probe(self, request: Request) -> Answer:
        """Make a call once, known to be down or not; what comes of it tells the breaker how things are.

        Raises:
            Unavailable: as ``send`` does.
        """
        with self._observed(request):
            try:
                async with asyncio.timeout(self._deadline_seconds):
                    return await self._attempt(request)
            except _Retryable as error:
                raise error.error from error
            except TimeoutError as error:
                raise self._failed(error) from error

    @contextmanager
    def _observed(self, request: Request) -> Iterator[None]:
        began = clock.monotonic_seconds()
        outcome: Literal["answered", "unavailable", "refused", "abandoned"] = "abandoned"
        try:
            yield
            outcome = "answered"
        except Unavailable as error:
            outcome = "unavailable" if isinstance(error, self._troubles.unavailable) else "refused"
            raise
        finally:
            seconds = clock.monotonic_seconds() - began
            tell(UpstreamCalled(self.name, request.method, outcome, seconds, self.breaker.is_tripped))

    async def _send_within_deadline(self, request: Request) -> Answer:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                async for attempt in stamina.retry_context(
                    on=_Retryable,
                    attempts=ATTEMPTS,
                    timeout=self._deadline_seconds,
                    wait_initial=FIRST_PAUSE_SECONDS,
                    wait_max=LONGEST_PAUSE_SECONDS,
                    wait_jitter=FIRST_PAUSE_SECONDS,
                ):
                    with attempt:
                        return await self._attempt(request)
        except _Retryable as error:
            raise error.error from error
        except TimeoutError as error:
            raise self._failed(error) from error
        raise AssertionError("A retry loop ends with an answer or an error.")

    async def _attempt(self, request: Request) -> Answer:
        try:
            answer = await self._exchange(request)
        except (httpx2.TransportError, OSError) as error:
            trouble = self._failed(error)
            if request.is_repeatable or isinstance(error, _NEVER_ARRIVED):
                raise _Retryable(trouble) from error
            raise trouble from error
        except (httpx2.DecodingError, httpx2.InvalidURL) as error:
            raise self._wrong(request, "unreadable") from error
        self._judge(request, answer)
        return answer

    def _judge(self, request: Request, answer: Answer) -> None:
        """Raise unless the status is one the caller expects."""
        if answer.status in request.expected:
            self.breaker.succeeded()
            return
        if answer.status in _GATEWAY_STATUSES:
            self.breaker.failed()
        elif answer.status != 429:
            raise self._wrong(request, str(answer.status))
        log.warning("upstream_unavailable", upstream=self.name, method=request.method, status=answer.status)
        pause = _retry_after(answer.headers.get("retry-after", ""))
        error = self._troubles.unavailable(retry_after_seconds=pause)
        # Who asks for a pause longer than ours gets it: the caller is told, and nothing is sent meanwhile.
        if request.is_repeatable and (pause is None or pause <= LONGEST_PAUSE_SECONDS):
            raise _Retryable(error)
        raise error

    async def _exchange(self, request: Request) -> Answer:
        async with self._opened(request) as response:
            parts: list[bytes] = []
            size = 0
            async for part in response.aiter_bytes():
                size += len(part)
                if size > LARGEST_ANSWER_BYTES:
                    raise self._wrong(request, "too_large")
                parts.append(part)
            return Answer(response.status_code, response.headers, b"".join(parts))

    @asynccontextmanager
    async def _opened(self, request: Request) -> AsyncIterator[httpx2.Response]:
        if self._client is None:
            # Made when first needed, for it reads the machine's certificates.
            self._client = self._make_client()
        async with self._client.stream(
            request.method,
            self._address(request.path),
            params=dict(request.params) or None,
            headers={**outgoing_headers(), **request.headers},
            content=request.content,
        ) as response:
            yield response

    def _address(self, path: str) -> str:
        """Return the whole address; one that leads elsewhere is not followed, wherever it came from."""
        if path.startswith(("http://", "https://")):
            if urlsplit(path)[:2] != urlsplit(self.base_url)[:2]:
                raise self._troubles.refused
            return path
        return f"{self.base_url}/{path}"

    def _failed(self, error: BaseException) -> Unavailable:
        self.breaker.failed()
        log.warning("upstream_unavailable", upstream=self.name, cause=where(error))
        return self._troubles.unavailable()

    def _wrong(self, request: Request, reason: str) -> Unavailable:
        """Return the error for a wrong answer; that one came at all shows that the service is there."""
        self.breaker.succeeded()
        log.warning("upstream_wrong_answer", upstream=self.name, method=request.method, reason=reason)
        return self._troubles.refused()

    def document_of(self, answer: Answer) -> Document:
        """Return the JSON object in an answer's body.

        Raises:
            Unavailable: 502, it holds something else.
        """
        if not _JSON.match(answer.headers.get("content-type", "")):
            log.warning("upstream_wrong_answer", upstream=self.name, reason="content_type")
            raise self._troubles.refused
        try:
            return loads(answer.body)
        except NotADocument as error:
            log.warning("upstream_wrong_answer", upstream=self.name, reason="not_json")
            raise self._troubles.refused from error


def _trust(base_url: str) -> ssl.SSLContext:
    """Return whom to trust: the machine's certificates, or nobody where no certificate is shown."""
    return _certificates() if base_url.startswith("https://") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _certificates() -> ssl.SSLContext:
    """Return what other services are known by; read once, for it takes longer than all else at start-up.

    ``SSL_CERT_FILE`` names an authority of the operator's own.
    """
    return httpx2.create_ssl_context()


def _retry_after(text: str) -> int | None:
    """Return the seconds of a ``Retry-After`` given in seconds (RFC 9110, 10.2.3), bounded."""
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text[:9]), LONGEST_RETRY_AFTER_SECONDS)
