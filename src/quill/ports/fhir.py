"""The FHIR R4 store as Quill needs it.

Source: FHIR R4 (4.0.1), RESTful API (``http.html``), and search (``search.html``).
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quill.kit.documents import Document

ResourceType = Literal["Patient", "Communication", "MedicationRequest"]

FIRST_MEMBERS = ("resourceType", "id", "meta")
"""What every document begins with; its other members, and those inside it, come by name, whichever store it is in."""


@dataclass(frozen=True, slots=True)
class StoredResource:
    """One version of a resource as the store holds it.

    Attributes:
        resource_type: for example ``Patient``.
        id: the logical id.
        version: ``meta.versionId`` as an integer, 1 for the first.
        last_updated: ``meta.lastUpdated``, aware UTC.
        document: the whole resource with ``id`` and ``meta``; every element it came with, in one order.
        is_deleted: whether this version marks a deletion (history only).
    """

    resource_type: ResourceType
    id: str
    version: int
    last_updated: datetime.datetime
    document: Document
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search; criteria given are all met (FHIR R4, search, AND).

    Attributes:
        identifier: ``system|value``, or ``value`` in any system; compared exactly.
        name: a part of any name, case and accents ignored, matched anywhere (``name:contains``).
        birth_date: ``YYYY-MM-DD``.
        last_updated_from: ``_lastUpdated=ge…``, inclusive, aware UTC.
        part_of: the id of the Communication replied under (``part-of``).
        subject: a patient id (``subject=Patient/…``).
    """

    identifier: str | None = None
    name: str | None = None
    birth_date: datetime.date | None = None
    last_updated_from: datetime.datetime | None = None
    part_of: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class ResourcePage:
    """Resources ordered by ``_lastUpdated`` then id, and the opaque cursor of the next page when there is one."""

    resources: list[StoredResource] = field(default_factory=list)
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ChangePage:
    """What changed in a store since a position, oldest first.

    Attributes:
        resources: each as it is now, a deleted one with ``is_deleted`` and no elements but id and meta.
        position: what to ask from next time; opaque, and good for as long as the store keeps its records.
        has_more: whether there is more to read at once.
    """

    resources: list[StoredResource]
    position: str
    has_more: bool


OVERLAP = datetime.timedelta(seconds=30)
"""How far ``changes`` looks back behind what it has told: a writer may commit that long after it read the clock."""


class FhirStore(Protocol):
    """A FHIR R4 server, embedded or remote.

    Ids are the caller's own: what is written as ``Patient/123`` is found and referred to as that, whatever name a store
    that refuses such ids has for it. An element that FHIR R4 does not define is kept, or the whole record is refused;
    nothing is dropped in silence.

    Every method may raise ``FhirUnavailable`` (503: unreachable, too slow, known to be down) or ``FhirRefused`` (502: a
    wrong answer). Absence is ``None`` or an empty page, and means that the store itself said so.
    """

    @property
    def joins_transaction(self) -> bool:
        """Tell whether writes belong to the unit's own transaction (embedded) or stand by themselves (remote)."""
        ...

    async def find(self, resource_type: ResourceType, resource_id: str) -> StoredResource | None:
        """Return the current version, or ``None`` when it never was or is deleted (404, 410)."""
        ...

    async def write(self, document: Document, *, if_match: int | None = None) -> StoredResource:
        """Write a resource under the id it carries; creates it or makes the next version (update as create).

        Writing what is there already makes no new version, so repeating a write is harmless.

        Args:
            document: a resource with ``resourceType`` and ``id``; ``meta.versionId`` and ``lastUpdated`` are the
                store's to set, other elements are kept untouched.
            if_match: the version this replaces; 0 means "must not exist yet".

        Raises:
            StaleEdit: 412, the current version is another one.
            InvalidRecord: 422, the resource breaks its specification; says where, not with what value.
        """
        ...

    async def write_new(self, documents: Sequence[Document]) -> list[StoredResource]:
        """Write many resources that must not exist yet; where writes join the transaction, by a few statements for all.

        After a refusal a store that joins the transaction wants it rolled back, and another has kept those before it.

        Args:
            documents: resources with ``resourceType`` and ``id``.

        Returns:
            The resources as stored, in the same order.

        Raises:
            StaleEdit: 412, one of them exists.
            InvalidRecord: 422, one of them breaks its specification.
        """
        ...

    async def create_unless(self, document: Document, *, identifier: str) -> tuple[StoredResource, bool]:
        """Conditional create: write unless exactly one resource of the type holds the identifier already.

        Args:
            document: a resource with ``resourceType`` and ``id``.
            identifier: ``system|value`` (``If-None-Exist: identifier=…``).

        Returns:
            The resource that now holds the identifier, and whether it was created by this call.

        Raises:
            StaleEdit: 412, more than one resource holds the identifier.
            InvalidRecord: 422, the resource breaks its specification.
        """
        ...

    async def search(
        self, resource_type: ResourceType, query: SearchQuery, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        """Return one page of current resources that meet the query; follow ``next_cursor`` for the rest.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        ...

    async def history(self, resource_type: ResourceType, resource_id: str) -> list[StoredResource]:
        """Return every version, newest first; empty when the resource never was."""
        ...

    async def all_versions(
        self, resource_type: ResourceType, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        """Return one page of every version of every resource of a type, deletions too; follow ``next_cursor``.

        For copying and comparing whole stores. The order is the store's own. What was there at the first page is told,
        some of it perhaps twice; what is written meanwhile may be missing.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        ...

    async def delete(self, resource_type: ResourceType, resource_id: str) -> None:
        """Delete logically: history stays, ``find`` answers ``None``. Deleting what is not there is harmless."""
        ...

    async def changes(self, resource_type: ResourceType, since: str | None = None, *, limit: int = 100) -> ChangePage:
        """Return what was written or deleted since a position, whoever did it.

        Nothing is missed, so something may be told twice: everything younger than ``OVERLAP`` is told again each time.
        A caller passes over what it has in that version already.

        Args:
            resource_type: what to look at.
            since: the ``position`` of the page before; ``None`` for all there is, where deletions may be left out.
            limit: how many to return; the last page may hold more by the deletions.

        Raises:
            InvalidCursor: 422, the position is not one of this store's.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers a data read; raises ``FhirUnavailable`` when it does not."""
        ...
