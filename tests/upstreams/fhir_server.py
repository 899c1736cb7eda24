"""A FHIR R4 server of our own over real HTTP, with the ways of HAPI FHIR 8 that a client must know.

Behind it is the embedded store on a database of its own. What HAPI FHIR does and this does too, each observed there:

- a stale ``If-Match`` is 409; one on what never was is no condition at all, and ``If-None-Match`` never is
- ids of digits only are refused; elements it does not know are dropped; XHTML is written anew
- ``meta.source`` gets the id of the request as its fragment; labels of the version before stay unless told otherwise
- a search may be answered from one up to a minute old; ``next`` links are opaque, expire, and name the server as it
  calls itself; ``name:contains`` is switched off
- a history does not say when a deletion was, only the words of the 410 do; how long it is may be known from earlier,
  unless a time is given from which on
- of writers at the same moment one is let through, the others hear 409
"""

import asyncio
import datetime
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast
from urllib.parse import parse_qsl

import httpx2
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.adapters.fhir.models import FhirResource, FhirResourceVersion
from quill.errors import InvalidRecord, StaleEdit
from quill.kit.database import Database
from quill.kit.documents import Document, dumps, loads
from quill.ports.fhir import ResourceType, SearchQuery, StoredResource
from tests.upstreams.serving import serving

OWN_NAME = "http://fhir.internal:8080/fhir"
LARGEST_PAGE = 50
_TYPES = ("Patient", "Communication", "MedicationRequest")


class FhirServer:
    """The server; ``address`` is its base once it is served.

    Attributes:
        requests: method, path with query, and body of each request so far.
        kept_searches: the result of each search that can still be paged through.
        largest_page: how many entries a page may have.
        is_strict: whether it takes a condition as RFC 9110 has it, and not as HAPI FHIR does.
        checks_references: whether it refuses references to what is not there, as HAPI FHIR does, and to delete what is
            referred to.
    """

    def __init__(self, database_url: str) -> None:
        self.address = ""
        self.requests: list[tuple[str, str, bytes]] = []
        self.kept_searches: dict[str, list[StoredResource]] = {}
        self.largest_page = LARGEST_PAGE
        self.is_strict = False
        self.checks_references = False
        self._recent: dict[tuple[str, bytes], str] = {}
        self._busy: set[str] = set()
        self._counted: dict[str, int] = {}
        self._database = Database(database_url)
        self.app = Starlette(
            routes=[
                Route("/fhir", self._root, methods=["GET", "POST"]),
                Route("/fhir/{type}", self._search, methods=["GET"]),
                Route("/fhir/{type}/_search", self._search, methods=["POST"]),
                Route("/fhir/{type}/_history", self._type_history),
                Route("/fhir/{type}/{id}", self._resource, methods=["GET", "PUT", "DELETE"]),
                Route("/fhir/{type}/{id}/_history", self._history),
                Route("/fhir/{type}/{id}/_history/{version}", self._version),
                Route("/stop", self._stop, methods=["POST"]),
            ]
        )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[EmbeddedFhirStore]:
        async with self._database.writing() as session:
            yield EmbeddedFhirStore(session)

    async def _stop(self, _: Request) -> Response:
        await self._database.dispose()
        return Response(status_code=204)

    async def _noted(self, asked: Request) -> bytes:
        body = await asked.body()
        query = f"?{asked.url.query}" if asked.url.query else ""
        self.requests.append((asked.method, asked.url.path + query, body))
        return body

    async def _resource(self, asked: Request) -> Response:
        body = await self._noted(asked)
        resource_type, resource_id = _named(asked)
        if asked.method == "PUT":
            return await self._put(asked, loads(body))
        async with self._opened() as store:
            if asked.method == "DELETE" and await self._is_referred_to(f"{resource_type}/{resource_id}"):
                return _outcome(409, "HAPI-0550: HAPI-0515: Unable to delete because another resource refers to it")
            if asked.method == "DELETE":
                await store.delete(resource_type, resource_id)
                return _outcome(200, "Successfully deleted 1 resource(s).")
            found = await store.find(resource_type, resource_id)
            versions = await store.history(resource_type, resource_id) if found is None else []
        if found is not None:
            return _answer(200, _shown(found))
        if versions:
            return _outcome(410, f"Resource was deleted at {versions[0].last_updated.isoformat()}")
        return _outcome(404, f"HAPI-2001: Resource {resource_type}/{resource_id} is not known")

    async def _put(self, asked: Request, document: Document) -> Response:
        resource_type, resource_id = _named(asked)
        if document.get("id") != resource_id:
            return _outcome(400, "HAPI-0420: the id in the body is another one")
        place = f"{resource_type}/{resource_id}"
        if place in self._busy:
            return _outcome(409, "HAPI-0823: two clients were trying to update the same resource")
        self._busy.add(place)
        try:
            # Room for others to come at the same moment.
            await asyncio.sleep(0.002)
            return await self._write(asked, document)
        except InvalidRecord:
            return _outcome(400, f"HAPI-0450: Failed to parse {dumps(document)}")
        finally:
            self._busy.discard(place)

    async def _write(self, asked: Request, document: Document) -> Response:
        resource_type, resource_id = _named(asked)
        async with self._opened() as store:
            versions = await store.history(resource_type, resource_id)
            if not versions and resource_id.isdecimal():
                return _outcome(400, f"HAPI-0960: Can not create resource with ID[{resource_id}]")
            if not self._meets(asked.headers.get("if-match"), versions):
                return _outcome(412 if self.is_strict else 409, "HAPI-0989: this is not the current version")
            before = versions[0].document if versions else {}
            for reference in references_in(document) if self.checks_references else ():
                its_type, _, its_id = reference.partition("/")
                if await store.find(cast("ResourceType", its_type), its_id) is None:
                    return _outcome(400, f"HAPI-1094: Resource {reference} not found")
            stored = await store.write(_taken_in(document, before, asked))
        is_new = not versions or versions[0].is_deleted
        return _answer(201 if is_new else 200, _shown(stored))

    async def _is_referred_to(self, name: str) -> bool:
        if not self.checks_references:
            return False
        query = sa.select(FhirResource.document).where(FhirResource.is_deleted.is_(False))
        async with self._database.reading() as session:
            return any(name in references_in(loads(text)) for text in await session.scalars(query))

    def _meets(self, condition: str | None, versions: list[StoredResource]) -> bool:
        if condition is None:
            return True
        return condition == f'W/"{versions[0].version}"' if versions else not self.is_strict

    async def _root(self, asked: Request) -> Response:
        body = await self._noted(asked)
        if asked.method == "POST":
            return await self._transaction(asked, loads(body))
        search_id = asked.query_params.get("_getpages", "")
        if search_id not in self.kept_searches:
            return _outcome(410, f'HAPI-0417: Search ID "{search_id}" does not exist and may have expired')
        start, count = int(asked.query_params["_getpagesoffset"]), int(asked.query_params["_count"])
        return _answer(200, self._page(search_id, start, count))

    async def _transaction(self, asked: Request, bundle: Document) -> Response:
        (entry,) = bundle["entry"]
        document = entry["resource"]
        resource_type, _, criteria = entry["request"]["url"].partition("?")
        async with self._opened() as store:
            holders = (await store.search(resource_type, _query_of(dict(parse_qsl(criteria))))).resources
            if len(holders) > 1:
                return _outcome(412, "HAPI-2207: Multiple resources match this search")
            if holders and holders[0].id != document["id"]:
                return _outcome(400, "HAPI-2279: the matching resource does not match the provided ID")
            try:
                stored = await store.write(_taken_in(document, {}, asked), if_match=None if holders else 0)
            except StaleEdit:
                return _outcome(409, "HAPI-0825: client-assigned ID constraint failure")
        response = {"status": "200 OK" if holders else "201 Created", "etag": str(stored.version)}
        return _answer(200, _bundle("transaction-response", [{"resource": _shown(stored), "response": response}]))

    async def _search(self, asked: Request) -> Response:
        body = await self._noted(asked)
        resource_type = cast("ResourceType", asked.path_params["type"])
        if resource_type not in _TYPES:
            return _outcome(404, f"HAPI-0302: Unknown resource type '{resource_type}'")
        params = dict(parse_qsl(body.decode()) if asked.method == "POST" else asked.query_params.multi_items())
        if any(":contains" in name for name in params):
            return _outcome(405, "HAPI-1258: :contains modifier is disabled on this server")
        count = min(int(params.get("_count", 10)), self.largest_page)
        question = (str(asked.url), body)
        search_id = self._recent.get(question) if "no-cache" not in asked.headers.get("cache-control", "") else None
        if search_id is None:
            search_id = self._recent[question] = secrets.token_hex(8)
            self.kept_searches[search_id] = await self._found(resource_type, _query_of(params))
        return _answer(200, self._page(search_id, 0, count))

    async def _found(self, resource_type: ResourceType, query: SearchQuery) -> list[StoredResource]:
        found: list[StoredResource] = []
        cursor: str | None = None
        async with self._opened() as store:
            while True:
                page = await store.search(resource_type, query, limit=500, cursor=cursor)
                found += page.resources
                cursor = page.next_cursor
                if cursor is None:
                    return found

    def _page(self, search_id: str, start: int, count: int) -> Document:
        found = self.kept_searches[search_id]
        entries = [{"resource": _shown(each), "search": {"mode": "match"}} for each in found[start : start + count]]
        if start + count >= len(found):
            return _bundle("searchset", entries)
        following = f"_getpages={search_id}&_getpagesoffset={start + count}&_count={count}&_bundletype=searchset"
        return _bundle("searchset", entries, f"{OWN_NAME}?{following}")

    async def _history(self, asked: Request) -> Response:
        await self._noted(asked)
        resource_type, resource_id = _named(asked)
        async with self._opened() as store:
            versions = await store.history(resource_type, resource_id)
        if not versions:
            return _outcome(404, f"HAPI-2001: Resource {resource_type}/{resource_id} is not known")
        path = f"{resource_type}/{resource_id}/_history"
        if "_since" not in asked.query_params:
            versions = versions[: self._counted.setdefault(path, len(versions))]
        return _answer(200, self._history_page(asked, path, versions))

    async def _type_history(self, asked: Request) -> Response:
        await self._noted(asked)
        resource_type = cast("ResourceType", asked.path_params["type"])
        since = datetime.datetime.fromisoformat(asked.query_params["_since"])
        table = FhirResourceVersion
        statement = sa.select(table).where(table.resource_type == resource_type, table.last_updated >= since)
        async with self._database.reading() as session:
            versions = [_version_of(row) for row in (await session.scalars(statement)).all()]
        versions.sort(key=lambda version: version.last_updated, reverse=True)
        return _answer(200, self._history_page(asked, f"{resource_type}/_history", versions))

    def _history_page(self, asked: Request, path: str, versions: list[StoredResource]) -> Document:
        count, start = int(asked.query_params.get("_count", 10)), int(asked.query_params.get("_offset", 0))
        count = min(count, self.largest_page)
        entries = [_history_entry(version) for version in versions[start : start + count]]
        if start + count >= len(versions):
            return _bundle("history", entries)
        others = "".join(f"&{name}={asked.query_params[name]}" for name in ("_since",) if name in asked.query_params)
        return _bundle("history", entries, f"{OWN_NAME}/{path}?_count={count}&_offset={start + count}{others}")

    async def _version(self, asked: Request) -> Response:
        await self._noted(asked)
        resource_type, resource_id = _named(asked)
        async with self._opened() as store:
            versions = await store.history(resource_type, resource_id)
        for version in versions:
            if str(version.version) == asked.path_params["version"]:
                if version.is_deleted:
                    return _outcome(410, f"Resource was deleted at {version.last_updated.isoformat()}")
                return _answer(200, _shown(version))
        return _outcome(404, "HAPI-0979: Version is not valid for resource")


def references_in(value: Any, name: str = "") -> list[str]:
    """Return the references of a document to resources of the same server."""
    if isinstance(value, dict):
        return [found for its_name, part in value.items() for found in references_in(part, its_name)]
    if isinstance(value, list):
        return [found for part in value for found in references_in(part)]
    is_one = name == "reference" and isinstance(value, str) and value.partition("/")[0] in _TYPES
    return [value] if is_one else []


def _version_of(row: FhirResourceVersion) -> StoredResource:
    document, resource_type = loads(row.document), cast("ResourceType", row.resource_type)
    return StoredResource(resource_type, row.id, row.version, row.last_updated, document, row.is_deleted)


def _named(asked: Request) -> tuple[ResourceType, str]:
    return asked.path_params["type"], asked.path_params["id"]


def _query_of(params: Mapping[str, str]) -> SearchQuery:
    """Return the search asked for."""
    birth_date, since = params.get("birthdate"), params.get("_lastUpdated")
    part_of, subject = params.get("part-of"), params.get("subject")
    identifier = params.get("identifier")
    return SearchQuery(
        identifier=re.sub(r"\\(.)", r"\1", identifier) if identifier is not None else None,
        birth_date=datetime.date.fromisoformat(birth_date) if birth_date is not None else None,
        last_updated_from=datetime.datetime.fromisoformat(since.removeprefix("ge")) if since is not None else None,
        part_of=part_of.removeprefix("Communication/") if part_of is not None else None,
        subject=subject.removeprefix("Patient/") if subject is not None else None,
    )


def _taken_in(document: Document, before: Document, asked: Request) -> Document:
    """Return a document as HAPI FHIR keeps it."""
    meta = {name: value for name, value in document.get("meta", {}).items() if name != "source"}
    source = document.get("meta", {}).get("source", "").partition("#")[0]
    if "x-meta-snapshot-mode" not in asked.headers:
        for name in ("tag", "profile", "security"):
            kept = [label for label in before.get("meta", {}).get(name, []) if label not in meta.get(name, [])]
            if kept:
                meta[name] = [*meta.get(name, []), *kept]
    if source:
        meta["source"] = source
    taken = {name: value for name, value in document.items() if name not in {"meta", "somethingNew"}}
    if "text" in taken:
        taken["text"] = {**taken["text"], "div": taken["text"]["div"].replace("&nbsp;", "\xa0")}
    return {**taken, "meta": meta} if meta else taken


def _shown(stored: StoredResource) -> Document:
    """Return a version as HAPI FHIR shows it."""
    meta = dict(stored.document["meta"])
    meta["source"] = f"{meta.get('source', '')}#{secrets.token_hex(8)}"
    meta["lastUpdated"] = stored.last_updated.isoformat()
    return {**stored.document, "meta": meta}


def _history_entry(version: StoredResource) -> Document:
    name = f"{version.resource_type}/{version.id}"
    entry: Document = {
        "fullUrl": f"{OWN_NAME}/{name}",
        "request": {"method": "DELETE" if version.is_deleted else "PUT", "url": f"{name}/_history/{version.version}"},
        "response": {"status": "200 OK", "etag": f'W/"{version.version}"'},
    }
    return entry if version.is_deleted else {**entry, "resource": _shown(version)}


def _bundle(kind: str, entries: list[Document], following: str | None = None) -> Document:
    links = [{"relation": "self", "url": OWN_NAME}]
    if following is not None:
        links.append({"relation": "next", "url": following})
    at = datetime.datetime.now(datetime.UTC).isoformat()
    bundle: Document = {"resourceType": "Bundle", "type": kind, "meta": {"lastUpdated": at}, "link": links}
    return {**bundle, "entry": entries} if entries else bundle


def _outcome(status: int, words: str) -> Response:
    issue = {"severity": "error" if status >= 400 else "information", "code": "processing", "diagnostics": words}
    return _answer(status, {"resourceType": "OperationOutcome", "issue": [issue]})


def _answer(status: int, document: Document) -> Response:
    return Response(dumps(document), status, media_type="application/fhir+json;charset=UTF-8")


@contextmanager
def fhir_server(database_url: str) -> Iterator[FhirServer]:
    """Serve a FHIR server on a loopback port until the block ends."""
    server = FhirServer(database_url)
    with serving(server.app) as address:
        server.address = f"{address}/fhir"
        yield server
        httpx2.post(f"{address}/stop", trust_env=False)
