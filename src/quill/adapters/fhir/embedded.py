"""The embedded FHIR store: versioned resources in tables of the application database.

Every write belongs to the transaction of the session it is given; committing is the business of whoever opened it.
"""

import datetime
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir import queries
from quill.adapters.fhir.embedded_creating import INSERT_SEARCH_KEY, INSERT_VERSION, RESOURCE, SEARCH_KEY, create
from quill.adapters.fhir.embedded_rows import (
    EPOCH,
    SMALLEST_STEP,
    current_row,
    instant_of,
    key_rows,
    microseconds,
    search_columns,
    stored_of,
    version_row,
)
from quill.adapters.fhir.search_keys import NOTHING, SearchKeys, may_match, search_keys_of
from quill.errors import FhirUnavailable, InvalidCursor, InvalidRecord, StaleEdit
from quill.kit import clock
from quill.kit.documents import Document, in_order, loads
from quill.kit.ids import is_fhir_id
from quill.kit.paging import BadCursor, PageRequest, cursor_of
from quill.ports.fhir import FIRST_MEMBERS, OVERLAP, ChangePage, ResourcePage, ResourceType, SearchQuery, StoredResource
from quill.ports.fhir_content import same_content
from quill.ports.fhir_json import is_storable
from quill.ports.fhir_resources import check_resource

BLOCK_ROWS = 1000
"""Rows sent to the database at once."""


class EmbeddedFhirStore:
    """A FHIR R4 store in the application database; keeps the promises of ``quill.ports.fhir.FhirStore``.

    Args:
        session: the unit's session; reads see what it wrote, writes are kept when it commits.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    @property
    def joins_transaction(self) -> bool:
        """Writes belong to the session's own transaction."""
        return True

    async def find(self, resource_type: ResourceType, resource_id: str) -> StoredResource | None:
        """Return the current version, or ``None`` when it never was or is deleted."""
        if not is_fhir_id(resource_id):
            return None
        row = await self._first(queries.CURRENT, resource_type, resource_id)
        return None if row is None or row.is_deleted else stored_of(resource_type, row)

    async def write(self, document: Document, *, if_match: int | None = None) -> StoredResource:
        """Write a resource under the id it carries; the same content again makes no new version.

        A resource that does not exist is written with three statements, on PostgreSQL with one; a change with four,
        two more when what the resource is found by changes.

        Raises:
            StaleEdit: 412, the current version is not ``if_match``.
            InvalidRecord: 422, the resource breaks its specification.
        """
        check_resource(document)
        if not if_match:
            created = await self._insert(document)
            if created is not None:
                return created
        resource_type, resource_id = document["resourceType"], document["id"]
        row = await self._first(queries.LOCK_CURRENT, resource_type, resource_id)
        if row is None:
            raise StaleEdit
        _check_version(row, if_match)
        if not row.is_deleted:
            before = loads(row.document)
            if same_content(before, document):
                return stored_of(resource_type, row)
            keys_before = search_keys_of(before)
        else:
            keys_before = NOTHING
        stored = _next_version(document, row)
        await self._replace(stored, keys_before, search_keys_of(document))
        return stored

    async def write_new(self, documents: Sequence[Document]) -> list[StoredResource]:
        """Write many resources that must not exist yet; three statements for every thousand of them.

        Raises:
            StaleEdit: 412, one of them exists; the transaction must be rolled back.
            InvalidRecord: 422, one of them breaks its specification; nothing was written.
        """
        for document in documents:
            check_resource(document)
        written = [_first_version(document) for document in documents]
        try:
            for start in range(0, len(written), BLOCK_ROWS):
                await self._insert_all(written[start : start + BLOCK_ROWS])
        except IntegrityError as error:
            raise StaleEdit from error
        return written

    async def create_unless(self, document: Document, *, identifier: str) -> tuple[StoredResource, bool]:
        """Write a resource unless exactly one of its type holds the identifier (``system|value``) already.

        Raises:
            StaleEdit: 412, several resources hold the identifier, or another resource has the document's id.
            InvalidRecord: 422, the resource breaks its specification.
        """
        check_resource(document)
        resource_type = document["resourceType"]
        if not is_storable(identifier):
            raise InvalidRecord("The identifier is not a text that can be stored")
        await self._serialise_creation(f"{resource_type}?{identifier}")
        holders = await self._all(queries.matching(resource_type, SearchQuery(identifier=identifier)).limit(2))
        if len(holders) > 1:
            raise StaleEdit("More than one record holds this identifier")
        if holders:
            return stored_of(resource_type, holders[0]), False
        return await self.write(document, if_match=0), True

    async def search(
        self, resource_type: ResourceType, query: SearchQuery, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        """Return one page of current resources that meet the query, by last update and id.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        after = _position(cursor)
        if not may_match(query):
            return ResourcePage()
        rows = await self._all(queries.page(queries.matching(resource_type, query), after, limit))
        resources = [stored_of(resource_type, row) for row in rows[:limit]]
        more = len(rows) > limit
        return ResourcePage(resources, _cursor_after(resources[-1]) if more else None)

    async def history(self, resource_type: ResourceType, resource_id: str) -> list[StoredResource]:
        """Return every version, newest first; a deletion is one, and holds no elements but id and meta."""
        if not is_fhir_id(resource_id):
            return []
        rows = await self._all(queries.versions(resource_type, resource_id))
        return [stored_of(resource_type, row) for row in rows]

    async def all_versions(
        self, resource_type: ResourceType, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        """Return one page of every version of every resource of a type, by id and version.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        try:
            after = cast("tuple[str, int] | None", PageRequest(cursor=cursor).after(str, int))
        except BadCursor as error:
            raise InvalidCursor from error
        rows = await self._all(queries.all_versions(resource_type, after, limit))
        resources = [stored_of(resource_type, row) for row in rows[:limit]]
        last = resources[-1] if len(rows) > limit else None
        return ResourcePage(resources, cursor_of(last.id, last.version) if last else None)

    async def import_versions(self, versions: Sequence[StoredResource]) -> None:
        """Take in further versions of one resource as they are: versions, times and deletions are kept.

        Args:
            versions: oldest first, all later than what is here of the resource.

        Raises:
            StaleEdit: 412, they do not follow what is here.
        """
        newest = versions[-1]
        row = await self._first(queries.LOCK_CURRENT, newest.resource_type, newest.id)
        numbers = [row.version if row is not None else 0, *(version.version for version in versions)]
        if any(following <= number for number, following in itertools.pairwise(numbers)):
            raise StaleEdit
        after = NOTHING if newest.is_deleted else search_keys_of(newest.document)
        if row is None:
            await self._add(newest, after, versions)
        else:
            before = NOTHING if row.is_deleted else search_keys_of(loads(row.document))
            await self._replace(newest, before, after, versions)

    async def delete(self, resource_type: ResourceType, resource_id: str) -> None:
        """Delete logically; the deletion is a version of its own. Harmless when nothing is there."""
        if not is_fhir_id(resource_id):
            return
        row = await self._first(queries.LOCK_CURRENT, resource_type, resource_id)
        if row is None or row.is_deleted:
            return
        bare: Document = {"resourceType": resource_type, "id": resource_id}
        await self._replace(_next_version(bare, row, is_deleted=True), search_keys_of(loads(row.document)), NOTHING)

    async def changes(self, resource_type: ResourceType, since: str | None = None, *, limit: int = 100) -> ChangePage:
        """Return what was written or deleted since a position, by last update and id; from the beginning, everything.

        Raises:
            InvalidCursor: 422, the position is not one of this store's.
        """
        begin, end, after = _reading_of(since)
        end = end or clock.now()
        rows = await self._all(queries.page(queries.changed(resource_type, begin), after, limit))
        resources = [stored_of(resource_type, row) for row in rows[:limit]]
        if len(rows) > limit:
            last = resources[-1]
            position = cursor_of(microseconds(begin), microseconds(end), microseconds(last.last_updated), last.id)
            return ChangePage(resources, position, has_more=True)
        return ChangePage(resources, cursor_of(max(microseconds(end - OVERLAP), 0), 0, 0, ""), has_more=False)

    async def ping(self) -> None:
        """Return when the tables can be read."""
        with _translated():
            await self._session.execute(queries.any_resource())

    async def _insert(self, document: Document) -> StoredResource | None:
        """Write the first version; ``None`` when the id is taken, by a deleted resource too."""
        stored = _first_version(document)
        return stored if await self._add(stored, search_keys_of(document), [stored]) else None

    async def _add(self, stored: StoredResource, keys: SearchKeys, versions: Sequence[StoredResource]) -> bool:
        """Write a new resource, its current version and all of them; tell whether its id was free."""
        with _translated():
            if not await create(self._session, stored, keys):
                return False
            if earlier := [version_row(version) for version in versions if version is not stored]:
                await self._session.execute(INSERT_VERSION, earlier)
        return True

    async def _insert_all(self, block: Sequence[StoredResource]) -> None:
        keys = [search_keys_of(stored.document) for stored in block]
        versions = [version_row(stored) for stored in block]
        current = [row | search_columns(its) for row, its in zip(versions, keys, strict=True)]
        many = [row for stored, its in zip(block, keys, strict=True) for row in key_rows(stored, its)]
        with _translated(but=IntegrityError):
            await self._session.execute(sa.insert(RESOURCE), current)
            await self._session.execute(INSERT_VERSION, versions)
            if many:
                await self._session.execute(INSERT_SEARCH_KEY, many)

    async def _replace(
        self,
        stored: StoredResource,
        before: SearchKeys,
        after: SearchKeys,
        versions: Sequence[StoredResource] | None = None,
    ) -> None:
        """Write the next version of a resource whose row is locked, or several of which the last is the current one."""
        rows = [version_row(version) for version in versions or [stored]]
        with _translated():
            this_one = (RESOURCE.c.resource_type == stored.resource_type) & (RESOURCE.c.id == stored.id)
            await self._session.execute(sa.update(RESOURCE).where(this_one).values(current_row(stored, after)))
            await self._session.execute(INSERT_VERSION, rows)
            if after.many == before.many:
                return
            its_keys = (SEARCH_KEY.c.resource_type == stored.resource_type) & (SEARCH_KEY.c.id == stored.id)
            await self._session.execute(sa.delete(SEARCH_KEY).where(its_keys))
            if after.many:
                await self._session.execute(INSERT_SEARCH_KEY, key_rows(stored, after))

    async def _serialise_creation(self, name: str) -> None:
        """Let conditional creations of one identifier pass one at a time until the transaction ends.

        No row exists yet that could be locked. SQLite has one writer at a time anyway.
        """
        with _translated():
            if self._session.get_bind().dialect.name == "postgresql":
                await self._session.execute(queries.lock_name(name))

    async def _first(self, statement: queries.Rows, resource_type: str, resource_id: str) -> queries.ResourceRow | None:
        with _translated():
            return (await self._session.execute(statement, {"of_type": resource_type, "of_id": resource_id})).first()

    async def _all(self, statement: queries.Rows) -> Sequence[queries.ResourceRow]:
        with _translated():
            return (await self._session.execute(statement)).all()


@contextmanager
def _translated(but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn trouble with the database into ``FhirUnavailable``, so that it never reads as absence.

    Args:
        but: what is let through, because it means something else there.
    """
    try:
        yield
    except but:
        raise
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, TimeoutError, OSError) as error:
        raise FhirUnavailable from error


def _check_version(row: queries.ResourceRow, if_match: int | None) -> None:
    """Raise ``StaleEdit`` when the current version is not the one the caller replaces.

    Args:
        row: the current version.
        if_match: the version asked for; 0 means that nothing may be there but a deletion.
    """
    may_replace = if_match is None or if_match == row.version or (if_match == 0 and row.is_deleted)
    if not may_replace:
        raise StaleEdit


def _first_version(document: Document) -> StoredResource:
    return _version(document, 1, clock.now(), is_deleted=False)


def _next_version(document: Document, row: queries.ResourceRow, *, is_deleted: bool = False) -> StoredResource:
    """Return the version after a row, later than it even when the clock stood still or went back."""
    return _version(
        document, row.version + 1, max(clock.now(), row.last_updated + SMALLEST_STEP), is_deleted=is_deleted
    )


def _version(document: Document, version: int, instant: datetime.datetime, *, is_deleted: bool) -> StoredResource:
    own = {"versionId": str(version), "lastUpdated": clock.rfc3339(instant)}
    whole = in_order({**document, "meta": {**document.get("meta", {}), **own}}, FIRST_MEMBERS)
    return StoredResource(document["resourceType"], document["id"], version, instant, whole, is_deleted)


def _cursor_after(stored: StoredResource) -> str:
    return cursor_of(microseconds(stored.last_updated), stored.id)


def _position(cursor: str | None) -> queries.Position | None:
    """Return the row a cursor continues after."""
    try:
        key = PageRequest(cursor=cursor).after(int, str)
        if key is None:
            return None
        at, resource_id = cast("tuple[int, str]", key)
        return queries.Position(instant_of(at), resource_id)
    except (BadCursor, OverflowError) as error:
        raise InvalidCursor from error


def _reading_of(
    since: str | None,
) -> tuple[datetime.datetime, datetime.datetime | None, queries.Position | None]:
    """Return from when changes are read; until when that reading is complete, if it goes on; and the row it is at."""
    try:
        key = PageRequest(cursor=since).after(int, int, int, str)
        if key is None:
            return EPOCH, None, None
        begin, end, at, resource_id = cast("tuple[int, int, int, str]", key)
        after = queries.Position(instant_of(at), resource_id) if resource_id else None
        return instant_of(begin), instant_of(end) if end else None, after
    except (BadCursor, OverflowError) as error:
        raise InvalidCursor from error
