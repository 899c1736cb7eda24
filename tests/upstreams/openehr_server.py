"""An openEHR server for tests: the openEHR REST API 1.0.x as EHRbase 2.x was seen to speak it, quirks included.

It keeps its records in an embedded store of its own. The quirks:

- changes answer without a body, as ``Prefer: return=minimal`` asks;
- ``If-Match`` is not quoted; a stale one, and an object id used before, are 412, a second EHR for a subject is 409;
- a first version must come with a version uid that names this server, or without any;
- errors are ``{"error", "message"}`` and their messages quote what they are about; an address nobody serves looks the
  same, an absent template is told in XML, and an update of what is not there has no body at all;
- a version is found whatever system its uid names, and of an object nobody knows it is 500; a deleted one is a version
  without data;
- the revision history is a bare list; ``_type`` is left out where the type is clear;
- AQL compares and orders date-times by whole seconds, and what is within one second comes in any order.
"""

import asyncio
import base64
import datetime
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quill.adapters.openehr.embedded import EmbeddedOpenEhrStore
from quill.adapters.openehr.models import Composition, Ehr, OperationalTemplate
from quill.adapters.openehr.template import read_template
from quill.errors import InvalidRecord, LetterNotFound, OpenEhrRefused, QuillError, StaleEdit
from quill.kit import clock
from quill.kit.database import Base, Database
from quill.kit.documents import Document, NotADocument, dumps, loads
from quill.kit.ids import CompositionUid, new_uuid
from quill.ports.openehr import StoredComposition
from tests.upstreams.serving import serving

ROOT = "/ehrbase"
BASE = f"{ROOT}/rest/openehr/v1"
SYSTEM_ID = "ehrbase.test"
USER, PASSWORD = "quill", "a pass word: é"
QUOTED = "Qwertzquoted"
"""Stands in every message of an error, as patients' data does in the real ones."""

_REASONS = {
    400: "Bad Request",
    404: "Not Found",
    409: "Conflict",
    412: "Precondition Failed",
    500: "Internal Server Error",
}
_UNTYPED = {"ARCHETYPED", "ARCHETYPE_ID", "TEMPLATE_ID"}
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
Happening: TypeAlias = Callable[[], Awaitable[None]]


class Refusal(Exception):
    """What the server answers instead."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status)
        self.response = json_of(
            {"error": _REASONS.get(status, "Unprocessable Entity"), "message": f"{message} {QUOTED}".strip()}, status
        )


class OpenEhrServer:
    """The server behind an address.

    Attributes:
        calls: method and path of every call so far, newest last.
        before_next: by method, what happens before the next such call is carried out; may raise a ``Refusal``.
        after_next: the same, once it has been carried out and before it is answered.
        creation_status: of a new EHR; there is no body whatever it is.
    """

    def __init__(self, database_file: Path) -> None:
        self.calls: list[str] = []
        self.before_next: dict[str, Happening] = {}
        self.after_next: dict[str, Happening] = {}
        self.creation_status = 201
        self._database = Database(f"sqlite+aiosqlite:///{database_file}")
        self._has_tables = False
        self._deletions: dict[str, tuple[CompositionUid, datetime.datetime]] = {}
        self.app = Starlette(routes=[*self._routes(), Route("/{path:path}", self._nowhere)])

    async def close(self) -> None:
        """Close the database."""
        await self._database.dispose()

    def _routes(self) -> Iterator[Route]:
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/ehr", self._find_ehr),
            ("GET", "/ehr/{ehr_id}", self._read_ehr),
            ("PUT", "/ehr/{ehr_id}", self._make_ehr),
            ("GET", "/definition/template/adl1.4", self._list_templates),
            ("POST", "/definition/template/adl1.4", self._add_template),
            ("GET", "/definition/template/adl1.4/{template_id}", self._read_template),
            ("POST", "/ehr/{ehr_id}/composition", self._commit),
            ("PUT", "/ehr/{ehr_id}/composition/{object_id}", self._amend),
            ("DELETE", "/ehr/{ehr_id}/composition/{uid}", self._delete),
            ("GET", "/ehr/{ehr_id}/versioned_composition/{uid}/version", self._read_version),
            ("GET", "/ehr/{ehr_id}/versioned_composition/{object_id}/version/{uid}", self._read_version),
            ("GET", "/ehr/{ehr_id}/versioned_composition/{uid}/revision_history", self._history),
            ("POST", "/query/aql", self._query),
        ]
        for method, path, handler in table:
            yield Route(BASE + path, self._guarded(handler), methods=[method])

    def _guarded(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            self.calls.append(f"{request.method} {request.url.path.removeprefix(BASE)}")
            if request.headers.get("authorization") != "Basic " + _credentials():
                facts = {"status": 401, "error": "Unauthorized", "path": request.url.path}
                return json_of(facts, 401)
            await self._make_tables()
            try:
                await self.before_next.pop(request.method, _nothing)()
                response = await handler(request)
                await self.after_next.pop(request.method, _nothing)()
            except Refusal as refusal:
                return refusal.response
            return response

        return answer

    async def _make_tables(self) -> None:
        if self._has_tables:
            return
        tables = [Base.metadata.tables[each.__tablename__] for each in (Ehr, OperationalTemplate, Composition)]
        async with self._database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all, tables=tables)
        self._has_tables = True

    async def _nowhere(self, request: Request) -> Response:
        path = request.url.path.removeprefix(ROOT + "/")
        return json_of({"error": "Not Found", "message": f"No resource found at path: {path}"}, 404)

    async def _find_ehr(self, request: Request) -> Response:
        assert request.query_params["subject_namespace"] == "fhir"
        return await self._ehr(Ehr.subject_id == request.query_params["subject_id"])

    async def _read_ehr(self, request: Request) -> Response:
        return await self._ehr(Ehr.ehr_id == request.path_params["ehr_id"])

    async def _ehr(self, condition: sa.ColumnElement[bool]) -> Response:
        async with self._database.reading() as session:
            row = (await session.execute(sa.select(Ehr.ehr_id, Ehr.subject_id).where(condition))).first()
        if row is None:
            raise Refusal(404, "No EHR with supplied subject parameters found")
        reference = {"namespace": "fhir", "type": "PERSON", "id": {"_type": "GENERIC_ID", "value": row.subject_id}}
        ehr = {
            "system_id": {"value": SYSTEM_ID},
            "ehr_id": {"value": row.ehr_id},
            "ehr_status": {"_type": "EHR_STATUS", "subject": {"external_ref": reference}},
        }
        return json_of(ehr)

    async def _make_ehr(self, request: Request) -> Response:
        status = await _document(request)
        for required in ("archetype_node_id", "name", "is_modifiable", "is_queryable"):
            if not status.get(required):
                raise Refusal(400, f"{required} is missing")
        subject_id, ehr_id = status["subject"]["external_ref"]["id"]["value"], request.path_params["ehr_id"]
        row = {"ehr_id": ehr_id, "subject_id": subject_id, "created_at": clock.now()}
        try:
            async with self._database.writing() as session:
                await session.execute(sa.insert(Ehr).values(**row))
        except sa.exc.IntegrityError as error:
            raise Refusal(409, f"Supplied partyId[{subject_id}] is used by a different EHR") from error
        return Response(status_code=self.creation_status, headers={"ETag": f'"{ehr_id}"'})

    async def _list_templates(self, _request: Request) -> Response:
        async with self._database.reading() as session:
            names = await EmbeddedOpenEhrStore(session).list_templates()
        return json_of([{"template_id": name, "concept": name} for name in names])

    async def _add_template(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/xml"
        content = (await request.body()).decode()
        try:
            template_id = read_template(content).template_id
            async with self._database.writing() as session:
                store = EmbeddedOpenEhrStore(session)
                if template_id in await store.list_templates():
                    return _xml_error("Conflict", 409)
                await store.ensure_template(template_id, content)
        except InvalidRecord:
            return _xml_error("Bad Request", 400)
        return Response(status_code=201, headers={"ETag": f'"{template_id}"'}, media_type="application/xml")

    async def _read_template(self, request: Request) -> Response:
        column = OperationalTemplate.content
        query = sa.select(column).where(OperationalTemplate.template_id == request.path_params["template_id"])
        async with self._database.reading() as session:
            content = await session.scalar(query)
        return Response(content, media_type="application/xml") if content else _xml_error("Not Found", 404)

    async def _commit(self, request: Request) -> Response:
        document = await _document(request)
        uid = document.get("uid") or {"_type": "OBJECT_VERSION_ID", "value": f"{new_uuid()}::{SYSTEM_ID}::1"}
        object_id, _, rest = uid["value"].partition("::")
        if uid["_type"] != "OBJECT_VERSION_ID" or rest != f"{SYSTEM_ID}::1":
            raise Refusal(412, "Mismatch of creating_system_id")
        taken = sa.select(Composition.object_id).where(Composition.object_id == object_id)
        async with self._database.writing() as session:
            if await session.scalar(taken) is not None:
                raise Refusal(412, f"Provided Id {uid['value']} already exists")
            stored = await _told(self._store(session).write(request.path_params["ehr_id"], document))
        return Response(status_code=204, headers={"ETag": f'"{stored.uid}"'})

    async def _amend(self, request: Request) -> Response:
        replacing = CompositionUid(request.headers["if-match"])
        document = await _document(request)
        if not replacing.startswith(request.path_params["object_id"]):
            raise Refusal(400, "If-Match is not a version uid")
        ehr_id, object_id = request.path_params["ehr_id"], CompositionUid(request.path_params["object_id"])
        async with self._database.writing() as session:
            newest = await self._store(session).find(ehr_id, object_id)
            if newest is None:
                return Response(status_code=404)
            if newest.uid != replacing:
                raise Refusal(412, "If-Match version_uid does not match latest version")
            stored = await _told(self._store(session).write(ehr_id, document, replacing=replacing))
        return Response(status_code=204, headers={"ETag": f'"{stored.uid}"'})

    async def _delete(self, request: Request) -> Response:
        uid = request.path_params["uid"]
        object_id, system_id, version = uid.split("::")
        self._deletions[object_id] = (CompositionUid(f"{object_id}::{system_id}::{int(version) + 1}"), clock.now())
        return Response(status_code=204)

    async def _read_version(self, request: Request) -> Response:
        object_id, separator, rest = request.path_params["uid"].partition("::")
        deletion = self._deletions.get(object_id)
        versions = {each.version: each for each in await self._versions(request, object_id)}
        if separator and not versions:
            raise Refusal(500, "An internal error has occurred.")
        wanted = int(rest.rpartition("::")[2]) if separator else None
        if deletion is not None and wanted in {None, int(deletion[0].rpartition("::")[2])}:
            return json_of(_original_version(*deletion, None))
        stored = versions.get(wanted or max(versions, default=0))
        if stored is None:
            raise Refusal(404, "No VERSIONED_COMPOSITION with given id")
        return json_of(_original_version(stored.uid, stored.committed_at, _as_kept(stored.document)))

    async def _history(self, request: Request) -> Response:
        object_id = request.path_params["uid"]
        versions = await self._versions(request, object_id)
        if not versions:
            raise Refusal(404, "No composition with this ID can be found.")
        items = [_history_item(each.uid, each.committed_at, "249") for each in reversed(versions)]
        if object_id in self._deletions:
            items.append(_history_item(*self._deletions[object_id], "523"))
        return json_of(items)

    async def _query(self, request: Request) -> Response:
        asked = await _document(request)
        aql, parameters = asked["q"], asked["query_parameters"]
        start, end = asked["offset"], asked["offset"] + asked["fetch"]
        if "CONTAINS" not in aql:
            rows = await self._ehr_rows(aql, parameters)
            return json_of({"q": aql, "columns": [], "rows": rows[start:end]})
        if "ORDER BY c/uid/value" in aql:
            rows = await self._object_rows(parameters)
            return json_of({"q": aql, "columns": [], "rows": rows[start:end]})
        parts = ("c/archetype_details/template_id/value = $template_id", "ORDER BY c/context/start_time DESC")
        if not all(part in aql for part in parts):
            raise Refusal(400, "Could not parse AQL query")
        second = sa.func.strftime("%s", Composition.started_at)
        query = sa.select(Composition.document, Composition.ehr_id, Composition.object_id).where(
            Composition.is_latest,
            Composition.ehr_id == parameters["ehr_id"],
            Composition.template_id == parameters["template_id"],
        )
        if "c/context/start_time < $before" in aql:
            query = query.where(second < sa.func.strftime("%s", parameters["before"]))
        async with self._database.reading() as session:
            found = (await session.execute(query.order_by(second.desc(), sa.func.random()))).all()
        rows = [_row(each.ehr_id, loads(each.document)) for each in found if each.object_id not in self._deletions]
        return json_of({"q": aql, "columns": [], "rows": rows[start:end]})

    async def _ehr_rows(self, aql: str, parameters: Document) -> list[Any]:
        assert "external_ref/namespace = $namespace" in aql
        assert aql.endswith("ORDER BY e/ehr_id/value")
        query = sa.select(Ehr.ehr_id, Ehr.subject_id).order_by(Ehr.ehr_id)
        if "e/ehr_id/value > $after" in aql:
            query = query.where(Ehr.ehr_id > parameters["after"])
        async with self._database.reading() as session:
            return [list(row) for row in await session.execute(query)]

    async def _object_rows(self, parameters: Document) -> list[Any]:
        query = sa.select(Composition.object_id, Composition.version).where(
            Composition.is_latest, Composition.ehr_id == parameters["ehr_id"]
        )
        async with self._database.reading() as session:
            found = (await session.execute(query.order_by(Composition.object_id))).all()
        kept = [row for row in found if row.object_id not in self._deletions]
        return [[parameters["ehr_id"], f"{row.object_id}::{SYSTEM_ID}::{row.version}"] for row in kept]

    async def _versions(self, request: Request, object_id: str) -> list[StoredComposition]:
        async with self._database.reading() as session:
            return await self._store(session).versions(request.path_params["ehr_id"], CompositionUid(object_id))

    def _store(self, session: AsyncSession) -> EmbeddedOpenEhrStore:
        return EmbeddedOpenEhrStore(session, SYSTEM_ID)


async def _nothing() -> None:
    """Do nothing."""


async def _told(work: Awaitable[StoredComposition]) -> StoredComposition:
    try:
        return await work
    except (InvalidRecord, StaleEdit, LetterNotFound, OpenEhrRefused) as error:
        raise Refusal(404 if isinstance(error, OpenEhrRefused) else error.status, _words(error)) from error


def _words(error: QuillError) -> str:
    return f"/content[openEHR]: {type(error).__name__}"


async def _document(request: Request) -> Document:
    try:
        return loads(await request.body())
    except NotADocument as error:
        raise Refusal(400, "Cannot construct instance") from error


def _original_version(uid: str, committed_at: datetime.datetime, data: Document | None) -> Document:
    change_type = "523" if data is None else "249"
    version = {"_type": "ORIGINAL_VERSION", "uid": {"value": uid}, "commit_audit": _audit(committed_at, change_type)}
    return version if data is None else version | {"data": data}


def _history_item(uid: str, committed_at: datetime.datetime, change_type: str) -> Document:
    return {"version_id": {"value": uid}, "audits": [_audit(committed_at, change_type)]}


def _audit(committed_at: datetime.datetime, change_type: str) -> Document:
    return {
        "time_committed": {"_type": "DV_DATE_TIME", "value": clock.rfc3339(committed_at)},
        "change_type": {"_type": "DV_CODED_TEXT", "defining_code": {"code_string": change_type}},
    }


def _as_kept(value: Any) -> Any:
    """Return a document as EHRbase gives it back: names in another order, ``_type`` gone where the type is clear."""
    if isinstance(value, list):
        return [_as_kept(part) for part in value]
    if not isinstance(value, dict):
        return value
    names = random.sample(list(value), len(value))
    is_typed = value.get("_type") not in _UNTYPED
    return {name: _as_kept(value[name]) for name in names if is_typed or name != "_type"}


def _row(ehr_id: str, document: Document) -> list[Any]:
    started_at = document["context"]["start_time"]["value"]
    return [ehr_id, document["uid"]["value"], document["name"]["value"], started_at, document["composer"].get("name")]


def json_of(value: object, status: int = 200) -> Response:
    """Return an answer of JSON, numbers as they are."""
    return Response(dumps(value), status, media_type="application/json")


def _xml_error(error: str, status: int) -> Response:
    return Response(f"<HashMap><error>{error}</error></HashMap>", status, media_type="application/xml;charset=UTF-8")


def _credentials() -> str:
    return base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@contextmanager
def openehr_server(directory: Path) -> Iterator[tuple[OpenEhrServer, str]]:
    """Serve an empty openEHR server until the block ends.

    Yields:
        The server, and the address of its root as a deployment would name it.
    """
    server = OpenEhrServer(directory / "openehr.sqlite3")
    with serving(server.app) as address:
        yield server, address + ROOT
    asyncio.run(server.close())
