"""The calls a FHIR server understands, one method each; what comes back has been looked at.

Source: FHIR R4, ``http.html``.
"""

import datetime
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal

from quill.adapters.fhir.remote_answers import (
    ServerPage,
    check_outcome,
    deletion_instant,
    invalid_record,
    page_of,
    stored_of,
    wrong,
)
from quill.adapters.fhir.remote_documents import other_id
from quill.adapters.upstream import Answer, Request, Upstream
from quill.errors import InvalidCursor
from quill.kit.documents import Document, dumps
from quill.ports.fhir import ResourceType, StoredResource
from quill.ports.fhir_content import says_the_same

_JSON = "application/fhir+json"
_READ = {"Accept": _JSON, "Cache-Control": "no-cache"}
"""HAPI FHIR answers a search from one that is up to a minute old unless it is told not to."""
_CHANGE = {
    **_READ,
    "Content-Type": _JSON,
    "Prefer": "return=representation",
    # HAPI FHIR keeps the labels of the version before otherwise, so that none could ever be taken away.
    "X-Meta-Snapshot-Mode": "TAG,PROFILE,SECURITY_LABEL",
}
_CHEAP_READ = {"Accept": _JSON, "Cache-Control": "no-store, max-results=1"}
"""HAPI FHIR keeps no trace of such a search."""
HISTORY_COUNT = 200
ALWAYS = "1900-01-01T00:00:00Z"
"""Told a time from which on, HAPI FHIR does not rely on a count of versions that is up to a minute old."""

BundleKind = Literal["searchset", "history"]


class ConditionNotMet(Exception):
    """The server wrote nothing: 409, another writer has been or is there; 412 or 404, it takes no such condition."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class FhirCalls:
    """A FHIR server behind an upstream.

    Args:
        upstream: the server.
        let_go: awaited before each call, to give back what must not be held while a server is waited for.
    """

    def __init__(self, upstream: Upstream, let_go: Callable[[], Awaitable[None]]) -> None:
        self._upstream = upstream
        self._let_go = let_go

    async def read(self, resource_type: ResourceType, resource_id: str) -> tuple[StoredResource | None, bool]:
        """Return the current version, or ``None`` and whether one was there and is deleted."""
        answer = await self._send(_get(_path(resource_type, resource_id), expected=(200, 404, 410)))
        document = self._upstream.document_of(answer)
        if answer.status == 200:
            return stored_of(document, resource_type, resource_id), False
        check_outcome(document)
        return None, answer.status == 410

    async def deleted_at(self, resource_type: ResourceType, resource_id: str, version: int) -> datetime.datetime | None:
        """Return when a version that is a deletion was made, if the server says so."""
        path = f"{_path(resource_type, resource_id)}/_history/{version}"
        answer = await self._send(_get(path, expected=(200, 404, 410)))
        return deletion_instant(self._upstream.document_of(answer)) if answer.status == 410 else None

    async def put(
        self, document: Document, sent: Document, condition: Mapping[str, str], *, is_repeatable: bool = False
    ) -> StoredResource:
        """Write a resource.

        Args:
            document: the resource as it is written.
            sent: the same as the server is to have it.
            condition: the headers under which it may be written.
            is_repeatable: whether writing it twice does what writing it once does.

        Raises:
            ConditionNotMet: the condition is not met, or another writer is at it.
            InvalidRecord: 422, the server does not take it.
        """
        resource_type: ResourceType = sent["resourceType"]
        request = Request(
            "PUT",
            f"{resource_type}/{sent['id']}",
            headers={**_CHANGE, **condition},
            content=dumps(sent).encode(),
            expected=(200, 201, 400, 404, 409, 412, 422) if condition else (200, 201, 400, 409, 412, 422),
            is_repeatable=is_repeatable,
        )
        answer = await self._send(request)
        return self._written(document, self._upstream.document_of(answer), answer.status)

    async def put_unless(self, document: Document, sent: Document, match: str) -> tuple[StoredResource, bool]:
        """Write a resource unless another one is found; returns it, and whether it is new.

        It travels in a transaction of one, for two reasons: the search is in the body and in no access log; and HAPI
        FHIR takes a conditional update that comes by itself for one of whatever it finds, and heeds no id of ours.

        Args:
            document: the resource as it is written.
            sent: the same as the server is to have it.
            match: the search for the other one.

        Raises:
            ConditionNotMet: another one is found, or more.
            InvalidRecord: 422, the server does not take it.
        """
        entry = {"resource": sent, "request": {"method": "PUT", "url": match}}
        body: Document = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        answer = await self._send(
            Request(
                "POST",
                self._upstream.base_url,
                headers=_CHANGE,
                content=dumps(body).encode(),
                expected=(200, 400, 409, 412, 422),
            )
        )
        found = self._upstream.document_of(answer)
        if answer.status != 200:
            return self._written(document, found, answer.status), False
        entries = found.get("entry")
        only = entries[0] if isinstance(entries, list) and len(entries) == 1 else None
        response = only.get("response") if isinstance(only, dict) else None
        if not isinstance(only, dict) or not isinstance(response, dict):
            raise wrong("transaction")
        is_new = str(response.get("status", "")).startswith("201")
        return self._written(document, only.get("resource"), 200), is_new

    async def search(self, resource_type: ResourceType, form: bytes) -> ServerPage:
        """Return the first page of a search; its words are in the body and in no access log."""
        request = Request(
            "POST",
            f"{resource_type}/_search",
            headers={**_READ, "Content-Type": "application/x-www-form-urlencoded"},
            content=form,
            is_repeatable=True,
        )
        return self._page(await self._send(request), "searchset", resource_type)

    async def history(
        self,
        resource_type: ResourceType,
        resource_id: str | None = None,
        *,
        since: str = ALWAYS,
        count: int = HISTORY_COUNT,
    ) -> ServerPage | None:
        """Return the first page of the history of a resource, or of all of a type; ``None`` when it never was."""
        path = f"{resource_type if resource_id is None else _path(resource_type, resource_id)}/_history"
        params = {"_count": str(count), "_since": since}
        answer = await self._send(_get(path, params=params, expected=(200,) if resource_id is None else (200, 404)))
        if answer.status == 404:
            check_outcome(self._upstream.document_of(answer))
            return None
        return self._page(answer, "history", resource_type)

    async def page(self, link: str, kind: BundleKind, resource_type: ResourceType) -> ServerPage:
        """Return another page of a search or a history.

        Raises:
            InvalidCursor: 422, the server does not know it, or not any more.
        """
        answer = await self._send(_get(self._upstream.base_url + link, expected=(200, 400, 404, 410)))
        if answer.status != 200:
            check_outcome(self._upstream.document_of(answer))
            raise InvalidCursor
        return self._page(answer, kind, resource_type)

    async def delete(self, resource_type: ResourceType, resource_id: str) -> None:
        """Delete a resource, if it is there."""
        request = Request(
            "DELETE",
            _path(resource_type, resource_id),
            headers=_READ,
            expected=(200, 202, 204, 404, 410),
            is_repeatable=True,
        )
        answer = await self._send(request)
        if answer.body or answer.status in {404, 410}:
            check_outcome(self._upstream.document_of(answer))

    async def probe(self) -> None:
        """Return when the server answers a search."""
        await self._let_go()
        request = _get("Patient", params={"_count": "1", "_elements": "id"}, expected=(200,), headers=_CHEAP_READ)
        document = self._upstream.document_of(await self._upstream.probe(request))
        if document.get("resourceType") != "Bundle":
            raise wrong("bundle")

    async def _send(self, request: Request) -> Answer:
        await self._let_go()
        return await self._upstream.send(request)

    def _page(self, answer: Answer, kind: BundleKind, resource_type: ResourceType) -> ServerPage:
        return page_of(self._upstream.document_of(answer), kind, resource_type, self._upstream.base_url)

    def _written(self, document: Document, found: object, status: int) -> StoredResource:
        """Return what was written, or raise for what the server says instead."""
        if status in {200, 201}:
            stored = stored_of(found, document["resourceType"], document["id"])
            if not says_the_same(document, stored.document):
                raise wrong("not_kept")
            return stored
        outcome = found if isinstance(found, dict) else {}
        check_outcome(outcome)
        raise invalid_record(outcome) if status in {400, 422} else ConditionNotMet(status)


def _path(resource_type: ResourceType, resource_id: str) -> str:
    """Return the path of a resource; an id holds nothing that an address would have to escape."""
    return f"{resource_type}/{other_id(resource_id)}"


def _get(
    path: str,
    *,
    expected: Collection[int],
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] = _READ,
) -> Request:
    return Request("GET", path, params=params or {}, headers=headers, expected=expected, is_repeatable=True)
