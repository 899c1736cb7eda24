"""A FHIR R4 server elsewhere behind ``quill.ports.fhir``; written for HAPI FHIR 8 and whatever conforms to R4.

What the server is believed to say is in ``remote_answers``; how documents travel is in ``remote_documents``.
"""

import asyncio
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from quill.adapters.fhir.remote_answers import Deletion, ServerPage, deleted, wrong
from quill.adapters.fhir.remote_calls import BundleKind, ConditionNotMet, FhirCalls
from quill.adapters.fhir.remote_documents import other_id, outward
from quill.adapters.fhir.remote_search import Reading, form_of, instant_text, match_url, place_in_search
from quill.adapters.fhir.search_keys import may_match, meets
from quill.adapters.upstream import Upstream
from quill.errors import FhirUnavailable, InvalidCursor, InvalidRecord, StaleEdit
from quill.kit.documents import Document
from quill.kit.ids import is_fhir_id
from quill.kit.paging import cursor_of
from quill.ports.fhir import ChangePage, ResourcePage, ResourceType, SearchQuery, StoredResource
from quill.ports.fhir_content import same_content
from quill.ports.fhir_json import is_storable
from quill.ports.fhir_resources import check_defined, check_resource

TURNS = 10
"""How often a write without a condition gives way to another writer before it is given up."""
TURN_SECONDS = 0.02

_SMALLEST_STEP = datetime.timedelta(milliseconds=1)
_NEVER_WAS = 'W/"0"'


async def nothing() -> None:
    """Do nothing."""


class RemoteFhirStore:
    """A FHIR R4 server elsewhere; keeps the promises of ``quill.ports.fhir.FhirStore``.

    Versions are counted from 1, as HAPI FHIR does; a server that names them otherwise is a wrong answer (502). A record
    of which the server keeps less than it was sent is one too, and is never acknowledged.

    Args:
        upstream: the server, its base address being the one ``/metadata`` is below.
        let_go: awaited before each call to the server, to give back what must not be held while it is waited for.
    """

    def __init__(self, upstream: Upstream, *, let_go: Callable[[], Awaitable[None]] = nothing) -> None:
        self._calls = FhirCalls(upstream, let_go)

    @property
    def joins_transaction(self) -> bool:
        """Writes stand by themselves."""
        return False

    async def find(self, resource_type: ResourceType, resource_id: str) -> StoredResource | None:
        """Return the current version, or ``None`` when the server itself says that it never was or is deleted."""
        if not _can_be_held(resource_id):
            return None
        found, _ = await self._calls.read(resource_type, resource_id)
        return found

    async def write(self, document: Document, *, if_match: int | None = None) -> StoredResource:
        """Write a resource under the id it carries.

        HAPI FHIR makes no version of content it has already; another server may make one when ``if_match`` is left
        out. Only such a write is sent again when its answer is lost: of one with ``if_match`` the caller finds out by
        reading.

        ``if_match=0`` is one request on HAPI FHIR, which lets exactly one of several creators through, also where a
        deleted resource comes back. A server that takes no condition on what does not exist is asked first and then
        written to; of two creators at the same moment the second may then replace the first, and only the second
        hears of it. The claims of ``quill.intents`` keep two of Quill's own from being there at once.

        Raises:
            StaleEdit: 412, the current version is not ``if_match``.
            InvalidRecord: 422, the resource breaks its specification, holds what it does not define, or the server does
                not take it.
        """
        check_resource(document)
        check_defined(document)
        sent = outward(document)
        if if_match is None:
            return await self._write_in_turn(document, sent)
        if if_match == 0:
            return await self._create(document, sent)
        return await self._replace(document, sent, if_match)

    async def write_new(self, documents: Sequence[Document]) -> list[StoredResource]:
        """Write many resources that must not exist yet, one after the other.

        Raises:
            StaleEdit: 412, one of them exists; those before it are kept.
            InvalidRecord: 422, as for ``write``; those before it are kept.
        """
        return [await self.write(document, if_match=0) for document in documents]

    async def create_unless(self, document: Document, *, identifier: str) -> tuple[StoredResource, bool]:
        """Write a resource unless exactly one of its type holds the identifier (``system|value``) already.

        Raises:
            StaleEdit: 412, several resources hold the identifier, or another resource has the document's id.
            InvalidRecord: 422, as for ``write``.
        """
        check_resource(document)
        check_defined(document)
        if not is_storable(identifier):
            raise InvalidRecord("The identifier is not a text that can be stored")
        sent, resource_type = outward(document), document["resourceType"]
        holder = await self._holder(resource_type, identifier)
        if holder is not None:
            return holder, False
        # The identifier is searched for and the id is not: a resource of that id is another one's.
        if await self.find(resource_type, document["id"]) is not None:
            raise StaleEdit
        try:
            return await self._calls.put_unless(document, sent, match_url(resource_type, identifier))
        except (ConditionNotMet, InvalidRecord) as error:
            # Somebody else was first by a moment; HAPI FHIR says so in several ways.
            holder = await self._holder(resource_type, identifier)
            if holder is not None:
                return holder, False
            raise (error if isinstance(error, InvalidRecord) else StaleEdit()) from error

    async def search(
        self, resource_type: ResourceType, query: SearchQuery, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        """Return one page of current resources that meet the query, by last update and id.

        The server's own cursor is wrapped, so this one lasts as long (on HAPI FHIR an hour). A name is looked for here,
        in all that meets the rest of the query.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's, or the server has forgotten it.
        """
        link, skip = place_in_search(cursor)
        if not may_match(query):
            return ResourcePage()
        if link:
            page = await self._calls.page(link, "searchset", resource_type)
        else:
            page = await self._calls.search(resource_type, form_of(query, limit))
        found: list[StoredResource] = []
        while True:
            # The first page has no address to come back to; a server that gives more than asked for is taken at that.
            taken, left_at = _matching(page, query, skip, limit - len(found) if link else len(page.resources))
            found += taken
            if left_at is not None:
                return ResourcePage(found, cursor_of(link, left_at))
            if page.next_link is None:
                return ResourcePage(found)
            link, skip = page.next_link, 0
            if len(found) >= limit:
                return ResourcePage(found, cursor_of(link, skip))
            page = await self._next(link, "searchset", resource_type)

    async def history(self, resource_type: ResourceType, resource_id: str) -> list[StoredResource]:
        """Return every version, newest first; a deletion is one, and holds no elements but id and meta."""
        if not _can_be_held(resource_id):
            return []
        first = await self._calls.history(resource_type, resource_id)
        versions: dict[int, StoredResource | Deletion] = {}
        async for page in self._pages(first, "history", resource_type):
            for entry in page.entries:
                if _id_of(entry) != resource_id:
                    raise wrong("resource_id")
                versions[entry.version] = entry
        found: list[StoredResource] = []
        for version in sorted(versions):
            entry = versions[version]
            if isinstance(entry, Deletion):
                after = found[-1].last_updated + _SMALLEST_STEP if found else None
                entry = await self._deleted(resource_type, entry, after)
            found.append(entry)
        return found[::-1]

    async def all_versions(
        self, resource_type: ResourceType, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        """Return one page of the history of a whole type, newest first; the server decides how long a page is.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        link, _ = place_in_search(cursor)
        if link:
            page = await self._calls.page(link, "history", resource_type)
        else:
            page = await self._calls.history(resource_type, count=limit) or ServerPage([], None, None)
        found = [
            entry if isinstance(entry, StoredResource) else await self._deleted(resource_type, entry, page.at)
            for entry in page.entries
        ]
        return ResourcePage(found, cursor_of(page.next_link, 0) if page.next_link else None)

    async def delete(self, resource_type: ResourceType, resource_id: str) -> None:
        """Delete logically. Harmless when nothing is there."""
        if _can_be_held(resource_id):
            await self._calls.delete(resource_type, resource_id)

    async def changes(self, resource_type: ResourceType, since: str | None = None, *, limit: int = 100) -> ChangePage:
        """Return what was written or deleted since a position; from the beginning, what is there now.

        What is there comes first, by last update; the deletions follow with the last page.

        Raises:
            InvalidCursor: 422, the position is not one of this store's.
        """
        reading = Reading.at(since)
        page = await self._page_of_changes(resource_type, reading, limit)
        if not reading.link:
            seen = [resource.last_updated for resource in page.resources]
            reading.end = page.at or max([reading.begin, *seen])
        if page.next_link is not None:
            return ChangePage(page.resources, reading.going_on(page.next_link), has_more=True)
        deletions = [] if reading.is_first else await self._deletions_since(resource_type, reading)
        return ChangePage([*page.resources, *deletions], reading.finished(), has_more=False)

    async def ping(self) -> None:
        """Return when the server answers a search."""
        await self._calls.probe()

    async def _write_in_turn(self, document: Document, sent: Document) -> StoredResource:
        """Write without a condition; a server that lets only one of several writers through is asked again."""
        for turn in range(TURNS):
            try:
                return await self._calls.put(document, sent, {}, is_repeatable=True)
            except ConditionNotMet:
                await asyncio.sleep(TURN_SECONDS * (turn + 1))
        raise FhirUnavailable

    async def _create(self, document: Document, sent: Document) -> StoredResource:
        """Write what must not exist yet."""
        try:
            # No version is 0: HAPI FHIR refuses this for whatever exists and takes it for what never was.
            stored = await self._calls.put(document, sent, {"If-Match": _NEVER_WAS})
        except ConditionNotMet as error:
            return await self._create_over(document, sent, is_condition_known=error.status == 409)
        if stored.version != 1:
            raise wrong("condition_ignored")
        return stored

    async def _create_over(self, document: Document, sent: Document, *, is_condition_known: bool) -> StoredResource:
        """Write what is deleted; or what never was, on a server that takes no condition on that."""
        resource_type = document["resourceType"]
        found, is_deleted = await self._calls.read(resource_type, document["id"])
        if found is not None:
            raise StaleEdit
        if is_deleted:
            newest = (await self.history(resource_type, document["id"]))[:1]
            if not newest or not newest[0].is_deleted:
                raise StaleEdit
            return await self._put_if(document, sent, {"If-Match": f'W/"{newest[0].version}"'})
        if is_condition_known:
            # Another creator is just being let through.
            raise StaleEdit
        stored = await self._put_if(document, sent, {"If-None-Match": "*"})
        if stored.version != 1:
            raise StaleEdit
        return stored

    async def _put_if(self, document: Document, sent: Document, condition: dict[str, str]) -> StoredResource:
        try:
            return await self._calls.put(document, sent, condition)
        except ConditionNotMet as error:
            raise StaleEdit from error

    async def _replace(self, document: Document, sent: Document, if_match: int) -> StoredResource:
        """Write the version after another one.

        HAPI FHIR takes a version asked for as met by what does not exist, so that is looked at first; what was there
        once can be deleted but is never again as if it had not been.
        """
        now = await self.find(document["resourceType"], document["id"])
        if now is None or now.version != if_match:
            raise StaleEdit
        if same_content(now.document, document):
            return now
        stored = await self._put_if(document, sent, {"If-Match": f'W/"{if_match}"'})
        if stored.version <= if_match:
            raise wrong("resource_version")
        return stored

    async def _holder(self, resource_type: ResourceType, identifier: str) -> StoredResource | None:
        holders = (await self.search(resource_type, SearchQuery(identifier=identifier), limit=2)).resources
        if len(holders) > 1:
            raise StaleEdit("More than one record holds this identifier")
        return holders[0] if holders else None

    async def _page_of_changes(self, resource_type: ResourceType, reading: Reading, limit: int) -> ServerPage:
        if reading.link:
            try:
                return await self._calls.page(reading.link, "searchset", resource_type)
            except InvalidCursor:
                # The server has forgotten where we were. Telling all of it again is harmless.
                reading.link = ""
        query = SearchQuery(last_updated_from=None if reading.is_first else reading.begin)
        return await self._calls.search(resource_type, form_of(query, limit))

    async def _deletions_since(self, resource_type: ResourceType, reading: Reading) -> list[StoredResource]:
        """Return what is deleted now and was not when the reading began, oldest first."""
        first = await self._calls.history(resource_type, since=instant_text(reading.begin))
        newest: dict[str, StoredResource | Deletion] = {}
        async for page in self._pages(first, "history", resource_type):
            for entry in page.entries:
                known = newest.get(_id_of(entry))
                if known is None or known.version < entry.version:
                    newest[_id_of(entry)] = entry
        gone = [entry for entry in newest.values() if isinstance(entry, Deletion)]
        found = [await self._deleted(resource_type, deletion, reading.end) for deletion in gone]
        return sorted(found, key=lambda deletion: (deletion.last_updated, deletion.id))

    async def _deleted(
        self, resource_type: ResourceType, deletion: Deletion, otherwise: datetime.datetime | None
    ) -> StoredResource:
        """Return the version a deletion is; where no server tells its time, the one given."""
        at = deletion.at or await self._calls.deleted_at(resource_type, deletion.resource_id, deletion.version)
        at = at or otherwise
        if at is None:
            raise wrong("deletion")
        return deleted(resource_type, deletion, at)

    async def _pages(
        self, page: ServerPage | None, kind: BundleKind, resource_type: ResourceType
    ) -> AsyncIterator[ServerPage]:
        """Yield a page and those after it."""
        seen: set[str] = set()
        while page is not None:
            yield page
            link = page.next_link
            if link is None:
                return
            if link in seen:
                raise wrong("next_link")
            seen.add(link)
            page = await self._next(link, kind, resource_type)

    async def _next(self, link: str, kind: BundleKind, resource_type: ResourceType) -> ServerPage:
        try:
            return await self._calls.page(link, kind, resource_type)
        except InvalidCursor as error:
            raise wrong("next_link") from error


def _matching(page: ServerPage, query: SearchQuery, skip: int, room: int) -> tuple[list[StoredResource], int | None]:
    """Return what meets a query from an entry of a page on, and the entry that there was no room for, if any."""
    found: list[StoredResource] = []
    for place, resource in enumerate(page.resources):
        if place >= skip and meets(resource, query):
            if len(found) == room:
                return found, place
            found.append(resource)
    return found, None


def _id_of(entry: StoredResource | Deletion) -> str:
    return entry.id if isinstance(entry, StoredResource) else entry.resource_id


def _can_be_held(resource_id: str) -> bool:
    """Tell whether a text is an id that has a name over there, too."""
    return is_fhir_id(resource_id) and is_fhir_id(other_id(resource_id))
