"""The two sides of a copy: stores to read from, and what takes versions in."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.adapters.fhir.remote import RemoteFhirStore
from quill.adapters.openehr.remote import RemoteOpenEhrStore
from quill.adapters.openehr.taking_in import TakingInOpenEhrStore
from quill.adapters.upstream import Upstream
from quill.kit.database import Database
from quill.kit.ids import CompositionUid
from quill.ports.fhir import FhirStore, StoredResource
from quill.ports.openehr import OpenEhrStore, StoredComposition

StoreT = TypeVar("StoreT")


class OtherNumber(Exception):
    """The target gave a version another number than the source has."""


class FhirSide(Protocol):
    """A FHIR store on one side of a copy.

    Attributes:
        numbers_itself: whether the store numbers versions 1, 2, 3 … as they come.
    """

    numbers_itself: bool

    def reading(self) -> AbstractAsyncContextManager[FhirStore]:
        """Open the store to read from."""
        ...

    async def add(self, versions: Sequence[StoredResource], *, follows_deletion: bool) -> None:
        """Add the versions of one resource that follow those it has.

        Args:
            versions: as the other side has them, oldest first.
            follows_deletion: whether the newest version here is a deletion.

        Raises:
            StaleEdit: 412, the resource is not in the state they follow.
            OtherNumber: one of them got another number.
            QuillError: the store does not take one of them.
        """
        ...


class OpenEhrSide(Protocol):
    """An openEHR store on one side of a copy.

    Attributes:
        numbers_itself: whether the store numbers versions 1, 2, 3 … as they come.
    """

    numbers_itself: bool

    def reading(self) -> AbstractAsyncContextManager[OpenEhrStore]:
        """Open the store to read from."""
        ...

    def writing(self) -> AbstractAsyncContextManager[OpenEhrStore]:
        """Open the store to make EHRs and templates in; kept when the block ends well."""
        ...

    async def add(self, ehr_id: str, versions: Sequence[StoredComposition], last: CompositionUid | None) -> None:
        """Add the versions of one composition that follow those it has, oldest first.

        Args:
            ehr_id: its EHR on this side.
            versions: as the other side has them.
            last: the uid of the newest version on this side, ``None`` when there is none.

        Raises:
            StaleEdit: 412, the composition is not in the state they follow.
            OtherNumber: one of them got another number.
            QuillError: the store does not take one of them.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of a copy; a kind of store that is not copied is missing."""

    fhir: tuple[FhirSide, FhirSide] | None
    openehr: tuple[OpenEhrSide, OpenEhrSide] | None


class _Embedded:
    """Stores in this database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def _opened(
        self, open_session: Callable[[], AbstractAsyncContextManager[AsyncSession]], store_for: Callable[..., StoreT]
    ) -> AsyncIterator[StoreT]:
        async with open_session() as session:
            yield store_for(session)


class EmbeddedFhirSide(_Embedded):
    """The FHIR store in this database; takes versions in as they are."""

    numbers_itself = False

    def reading(self) -> AbstractAsyncContextManager[FhirStore]:
        """Open the store to read from."""
        return self._opened(self._database.reading, EmbeddedFhirStore)

    async def add(
        self,
        versions: Sequence[StoredResource],
        *,
        follows_deletion: bool,  # noqa: ARG002 - what is there is looked up in the same transaction
    ) -> None:
        """Add versions of one resource, times and all."""
        async with self._database.writing() as session:
            await EmbeddedFhirStore(session).import_versions(versions)


class RemoteFhirSide:
    """A FHIR server elsewhere, which numbers and times what it is given by itself."""

    numbers_itself = True

    def __init__(self, upstream: Upstream) -> None:
        self._store = RemoteFhirStore(upstream)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[FhirStore]:
        """Open the store to read from."""
        yield self._store

    async def add(self, versions: Sequence[StoredResource], *, follows_deletion: bool) -> None:
        """Write the versions one after the other, each on top of the one before."""
        for version in versions:
            if version.is_deleted:
                await self._store.delete(version.resource_type, version.id)
            else:
                # On top of a deletion a resource must not exist yet, either.
                before = 0 if follows_deletion else version.version - 1
                stored = await self._store.write(version.document, if_match=before)
                if stored.version != version.version:
                    raise OtherNumber
            follows_deletion = version.is_deleted


class EmbeddedOpenEhrSide(_Embedded):
    """The openEHR store in this database; takes versions in as they are."""

    numbers_itself = False

    def reading(self) -> AbstractAsyncContextManager[OpenEhrStore]:
        """Open the store to read from."""
        return self._opened(self._database.reading, TakingInOpenEhrStore)

    def writing(self) -> AbstractAsyncContextManager[OpenEhrStore]:
        """Open the store to make EHRs and templates in; kept when the block ends well."""
        return self._opened(self._database.writing, TakingInOpenEhrStore)

    async def add(
        self,
        ehr_id: str,
        versions: Sequence[StoredComposition],
        last: CompositionUid | None,  # noqa: ARG002 - what is there is looked up in the same transaction
    ) -> None:
        """Add versions of one composition, uids, times and all."""
        async with self._database.writing() as session:
            await TakingInOpenEhrStore(session).import_versions(ehr_id, versions)


class RemoteOpenEhrSide:
    """An openEHR server elsewhere, which names and times versions by itself; object ids and numbers are kept."""

    numbers_itself = True

    def __init__(self, upstream: Upstream) -> None:
        self._store = RemoteOpenEhrStore(upstream)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[OpenEhrStore]:
        """Open the store to read from."""
        yield self._store

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[OpenEhrStore]:
        """Open the store to make EHRs and templates in."""
        yield self._store

    async def add(self, ehr_id: str, versions: Sequence[StoredComposition], last: CompositionUid | None) -> None:
        """Write the versions one after the other, each on top of the one before."""
        for version in versions:
            stored = await self._store.write(ehr_id, version.document, replacing=last)
            if stored.version != version.version:
                raise OtherNumber
            last = stored.uid
