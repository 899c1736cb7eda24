"""Reading what a FHIR server answered, believing nothing: what is not the answer to the question is a wrong answer."""

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from quill.adapters.fhir.remote_documents import inward, other_id
from quill.errors import FhirRefused, InvalidRecord
from quill.kit import clock
from quill.kit.documents import Document, in_order
from quill.kit.ids import is_fhir_id
from quill.ports.fhir import FIRST_MEMBERS, ResourceType, StoredResource

_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_ETAG = re.compile(r'(?:W/)?"?(?P<version>[1-9][0-9]{0,17})"?')
_PLACE = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+(?:\[[0-9]+\])?)+")
_MISSING_AT = re.compile(r"specified in path: ((?:Patient|Communication|MedicationRequest)(?:\.[A-Za-z]+)+)$")
_STEP = re.compile(r"[A-Za-z]+|[0-9]+")
_INTERACTION = re.compile(
    r"/(?:Patient|Communication|MedicationRequest)(?:/[A-Za-z0-9\-.]{1,64})?(?:/_search|/_history)?"
)
_LINK = re.compile(r"(?:/[A-Za-z0-9$_~.-]+)*/?\?[^\s#]+")
_DELETED_AT = re.compile(r"deleted at ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9]{2}:[0-9]{2}))")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deletion:
    """A version that is a deletion, as a history tells it; not every server tells when it was."""

    resource_id: str
    version: int
    at: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class ServerPage:
    """One Bundle of a search or a history.

    Attributes:
        entries: in the server's order.
        next_link: the next page's address below the server's base, from its ``/`` or ``?`` on; ``None`` at the end.
        at: when the server put it together, by its own clock, where it says so.
    """

    entries: list[StoredResource | Deletion]
    next_link: str | None
    at: datetime.datetime | None

    @property
    def resources(self) -> list[StoredResource]:
        """Return the entries of a search."""
        return [entry for entry in self.entries if isinstance(entry, StoredResource)]


def wrong(reason: str) -> FhirRefused:
    """Return the error for an answer that is not one, noted in the log without a word of it."""
    log.warning("upstream_wrong_answer", upstream="fhir", reason=reason)
    return FhirRefused()


def stored_of(document: object, resource_type: ResourceType, resource_id: str | None = None) -> StoredResource:
    """Return the resource a server answered; any id of the type when none is given.

    Raises:
        FhirRefused: 502, it is another resource, or lacks a version or a time.
    """
    if not isinstance(document, dict) or document.get("resourceType") != resource_type:
        raise wrong("resource_type")
    its_id, meta = document.get("id"), document.get("meta")
    if not isinstance(its_id, str) or not is_fhir_id(its_id) or not isinstance(meta, dict):
        raise wrong("resource_id")
    found = inward(document)
    if resource_id is not None and found["id"] != resource_id:
        raise wrong("resource_id")
    version, last_updated = meta.get("versionId"), instant_of(meta.get("lastUpdated"))
    if not isinstance(version, str) or not _VERSION.fullmatch(version) or last_updated is None:
        raise wrong("resource_version")
    found["meta"] = {**found["meta"], "lastUpdated": clock.rfc3339(last_updated)}
    found = in_order(found, FIRST_MEMBERS)
    return StoredResource(resource_type, found["id"], int(version), last_updated, found)


def deleted(resource_type: ResourceType, deletion: Deletion, at: datetime.datetime) -> StoredResource:
    """Return the version a deletion is."""
    meta = {"versionId": str(deletion.version), "lastUpdated": clock.rfc3339(at)}
    document: Document = {"resourceType": resource_type, "id": deletion.resource_id, "meta": meta}
    return StoredResource(resource_type, deletion.resource_id, deletion.version, at, document, is_deleted=True)


def page_of(
    document: Document, kind: Literal["searchset", "history"], resource_type: ResourceType, base_url: str
) -> ServerPage:
    """Return a Bundle of one type's resources.

    Raises:
        FhirRefused: 502, it is something else.
    """
    if document.get("resourceType") != "Bundle" or document.get("type") != kind:
        raise wrong("bundle")
    entries = document.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise wrong("bundle")
    read = _history_entry if kind == "history" else _search_entry
    found = [entry for entry in (read(entry, resource_type) for entry in entries) if entry is not None]
    meta = document.get("meta")
    at = instant_of(meta.get("lastUpdated")) if isinstance(meta, dict) else None
    return ServerPage(found, _next_link(document, base_url), at)


def check_outcome(document: Document) -> None:
    """Return when a refusal is FHIR's own and not, say, that of a proxy or of a wrong base address.

    Raises:
        FhirRefused: 502, it is not.
    """
    if document.get("resourceType") != "OperationOutcome":
        raise wrong("not_an_outcome")


def invalid_record(outcome: Document) -> InvalidRecord:
    """Return the error for a record the server refuses: where the mistakes are, not the server's words."""
    message = "The patient record store does not take this"
    places = [_STEP.findall(place)[1:] for place in _places(outcome)]
    errors = [
        {"loc": [int(part) if part.isdigit() else part for part in place], "msg": message, "type": "fhir_refused"}
        for place in places or [[]]
    ]
    return InvalidRecord(errors=errors)


def deletion_instant(outcome: Document) -> datetime.datetime | None:
    """Return when HAPI FHIR says that a resource was deleted: it tells nowhere but in these words."""
    for issue in _issues(outcome):
        match = _DELETED_AT.search(str(issue.get("diagnostics", "")))
        if match is not None:
            return instant_of(match[1])
    return None


def instant_of(value: object) -> datetime.datetime | None:
    """Return a FHIR ``instant`` as aware UTC, or ``None`` when it is none."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.astimezone(datetime.UTC) if found.tzinfo is not None else None


def is_link(link: str) -> bool:
    """Tell whether a text is an address below the server's base, with a query and without steps upwards."""
    steps = link.partition("?")[0].split("/")
    return _LINK.fullmatch(link) is not None and not {".", ".."} & set(steps)


def _search_entry(entry: Document, resource_type: ResourceType) -> StoredResource | None:
    search = entry.get("search")
    if isinstance(search, dict) and search.get("mode", "match") != "match":
        return None
    return stored_of(entry.get("resource"), resource_type)


def _history_entry(entry: Document, resource_type: ResourceType) -> StoredResource | Deletion:
    request = entry.get("request")
    if not isinstance(request, dict) or request.get("method") != "DELETE":
        return stored_of(entry.get("resource"), resource_type)
    address = request.get("url")
    steps = urlsplit(address).path.split("/") if isinstance(address, str) else []
    response = entry.get("response")
    etag = response.get("etag") if isinstance(response, dict) else None
    if "_history" in steps:
        place = steps.index("_history")
        etag = "".join(steps[place + 1 : place + 2])
        steps = steps[:place]
    version = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    if version is None or steps[-2:-1] != [resource_type] or not is_fhir_id(steps[-1]):
        raise wrong("deletion")
    at = instant_of(response.get("lastModified")) if isinstance(response, dict) else None
    return Deletion(other_id(steps[-1]), int(version["version"]), at)


def _next_link(document: Document, base_url: str) -> str | None:
    """Return the next page's address below our base: a server behind a proxy may call itself by another name."""
    links = document.get("link", [])
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next":
            found = _below_base(str(link.get("url", "")), base_url)
            if not is_link(found):
                raise wrong("next_link")
            return found
    return None


def _below_base(url: str, base_url: str) -> str:
    if url.startswith((f"{base_url}/", f"{base_url}?")):
        return url.removeprefix(base_url)
    parts = urlsplit(url)
    path = "/" + parts.path.lstrip("/")
    steps = path.split("/")
    for start in range(1, len(steps)):
        tail = "/" + "/".join(steps[start:])
        if _INTERACTION.fullmatch(tail):
            return f"{tail}?{parts.query}"
    return f"?{parts.query}"


def _places(outcome: Document) -> Iterator[str]:
    for issue in _issues(outcome):
        found = issue.get("expression", [])
        yield from (place for place in found if isinstance(place, str) and _PLACE.fullmatch(place))
        # HAPI FHIR names the element that refers to what it does not have in its words alone.
        missing = _MISSING_AT.search(str(issue.get("diagnostics", "")))
        if missing is not None:
            yield missing[1]


def _issues(outcome: Document) -> Iterator[dict[str, Any]]:
    issues = outcome.get("issue", [])
    return (issue for issue in issues if isinstance(issue, dict)) if isinstance(issues, list) else iter(())
