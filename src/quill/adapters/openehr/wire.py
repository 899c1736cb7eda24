"""How the remote openEHR store is asked: requests, what its answers may be, and what is trouble.

An answer is taken for absence only when the server itself says so. A page of a proxy, an address that leads beside the
API and half an answer have the same status and are ``OpenEhrRefused``.

Source: openEHR REST API 1.0.2, *Requests and responses*, *HTTP status codes*; what EHRbase 2.x answers where the
specification leaves it open.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

import structlog

from quill.adapters.upstream import Answer, Request, Upstream
from quill.errors import OpenEhrRefused
from quill.kit.documents import Document, dumps

REST_PATH = "rest/openehr/v1"
JSON = "application/json"
XML = "application/xml"

_NO_SUCH_ADDRESS = "No resource found"
"""How EHRbase begins the message when the address, and not the record, is what it does not know."""

log = structlog.get_logger()


def rest_base(url: str) -> str:
    """Return the base address of the REST API of an EHRbase.

    Args:
        url: its root, such as ``https://host/ehrbase``, or the base address of the REST API itself.
    """
    root = url.rstrip("/")
    return root if root.endswith(f"/{REST_PATH}") else f"{root}/{REST_PATH}"


def address(*parts: str) -> str:
    """Return a path below the base address, each part percent-encoded."""
    return "/".join(quote(part, safe="") for part in parts)


def refused(reason: str) -> OpenEhrRefused:
    """Return the error for an answer that cannot be right, and note why; the reason is ours, never the server's."""
    log.warning("upstream_wrong_answer", upstream="openehr", reason=reason)
    return OpenEhrRefused()


class Wire:
    """The line to the openEHR server.

    Args:
        upstream: its base address is what ``rest_base`` returns.
        let_go: awaited before each call, so that nothing else is held while the server thinks.
    """

    def __init__(self, upstream: Upstream, let_go: Callable[[], Awaitable[None]]) -> None:
        self._upstream = upstream
        self._let_go = let_go
        self._letting_go = asyncio.Lock()

    async def read(self, path: str, params: Mapping[str, str] | None = None) -> Document | None:
        """Return the JSON object at an address; ``None`` when the server says that there is none.

        Raises:
            OpenEhrUnavailable: 503, it did not answer.
            OpenEhrRefused: 502, it answered something else.
        """
        answer = await self._send(
            Request("GET", path, params or {}, {"Accept": JSON}, expected=(200, 404), is_repeatable=True)
        )
        if answer.status == 404:
            self._check_absence(answer)
            return None
        return self._upstream.document_of(answer)

    async def read_text(self, path: str) -> str | None:
        """Return the XML at an address; ``None`` when the answer is 404, whoever says it: the caller finds out."""
        request = Request("GET", path, headers={"Accept": XML}, expected=(200, 404), is_repeatable=True)
        answer = await self._send(request)
        if answer.status == 404:
            return None
        if "xml" not in answer.headers.get("content-type", ""):
            raise refused("content_type")
        try:
            return answer.body.decode()
        except UnicodeDecodeError as error:
            raise refused("not_text") from error

    async def entries(self, path: str) -> list[Any] | None:
        """Return the JSON array at an address; ``None`` when the server says that there is none.

        Raises:
            OpenEhrUnavailable: 503, it did not answer.
            OpenEhrRefused: 502, it answered something else.
        """
        request = Request("GET", path, headers={"Accept": JSON}, expected=(200, 404), is_repeatable=True)
        answer = await self._send(request)
        if answer.status == 404:
            self._check_absence(answer)
            return None
        return self._entries_of(answer)

    async def probe(self, path: str) -> None:
        """Return when there is a JSON array at an address; asked once, even when the server is known to be down."""
        await self._let_go_of_all()
        self._entries_of(await self._upstream.probe(Request("GET", path, headers={"Accept": JSON})))

    async def query(self, aql: str, parameters: Mapping[str, str], *, fetch: int, offset: int = 0) -> list[Any]:
        """Return the rows of a query; its parameters travel beside it and are never part of its text."""
        body = {"q": aql, "query_parameters": dict(parameters), "offset": offset, "fetch": fetch}
        headers = {"Accept": JSON, "Content-Type": JSON}
        request = Request("POST", "query/aql", headers=headers, content=dumps(body).encode(), is_repeatable=True)
        rows = self._upstream.document_of(await self._send(request)).get("rows")
        if not isinstance(rows, list):
            raise refused("no_rows")
        return rows

    async def put_ehr(self, ehr_id: str, status: Document) -> int:
        """Make an EHR; returns the status. Sent again when its answer is lost: the second one is refused, not done."""
        headers = {"Accept": JSON, "Content-Type": JSON, "Prefer": "return=minimal"}
        content = dumps(status).encode()
        request = Request("PUT", address("ehr", ehr_id), {}, headers, content, (200, 201, 204, 409, 500), True)
        return (await self._send(request)).status

    async def change(
        self,
        method: str,
        path: str,
        content: bytes,
        *,
        expected: Collection[int],
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Send a change once, whatever becomes of it; returns the status, which is one of those expected."""
        sent = {"Accept": JSON, "Content-Type": JSON, "Prefer": "return=minimal"} | dict(headers or {})
        answer = await self._send(Request(method, path, headers=sent, content=content, expected=expected))
        return answer.status

    async def _send(self, request: Request) -> Answer:
        await self._let_go_of_all()
        return await self._upstream.send(request)

    async def _let_go_of_all(self) -> None:
        # Some calls are made side by side, and what is let go of is rarely made for that.
        async with self._letting_go:
            await self._let_go()

    def _entries_of(self, answer: Answer) -> list[Any]:
        # Wrapped, because a document is an object: so the same checks of type and text are made.
        wrapped = Answer(answer.status, answer.headers, b'{"entries":' + answer.body + b"}")
        entries = self._upstream.document_of(wrapped).get("entries")
        if isinstance(entries, dict):
            # The specification has an object around some lists where EHRbase has none.
            entries = entries.get("items")
        if not isinstance(entries, list):
            raise refused("no_list")
        return entries

    def _check_absence(self, answer: Answer) -> None:
        """Return when the server itself says that what was asked for is not there.

        Raises:
            OpenEhrRefused: 502, somebody else says it, or it is the address that is not there.
        """
        told = self._upstream.document_of(answer)
        message = told.get("message")
        if set(told) != {"error", "message"} or not isinstance(message, str) or message.startswith(_NO_SUCH_ADDRESS):
            raise refused("404_of_another")
