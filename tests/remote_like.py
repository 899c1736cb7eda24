"""Clinical stores that are elsewhere: the embedded ones behind a line that a test can cut.

What makes a store remote is that it stands by itself: its writes are durable before ours are, and its answers get lost.
Here each call has a transaction of its own, none shares the unit's, and a call that changes something while the
unit holds a transaction open fails the test, because that would hold the database up for as long as a store takes; so
does a question.
"""

import datetime
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.adapters.openehr.embedded import EmbeddedOpenEhrStore
from quill.intents import service as intents
from quill.intents.models import Intent
from quill.kit import clock
from quill.kit.database import Database
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid
from quill.ports.fhir import ChangePage, FhirStore, ResourcePage, ResourceType, SearchQuery, StoredResource
from quill.ports.openehr import CompositionPage, EhrPage, EhrRef, OpenEhrStore, StoredComposition
from quill.unit import Services

Store = TypeVar("Store")
Answer = TypeVar("Answer")
Happening = Callable[[], Awaitable[None]]


class Line:
    """The line to a store, for a test to cut; ``calls`` are the names of the methods called so far."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.serves_a_job = False
        """Jobs of the command line may read a store with a transaction open: nobody waits for them."""
        self._trouble: BaseException | type[BaseException] | None = None
        self._before: dict[str, list[Happening]] = {}
        self._after: dict[str, list[Happening]] = {}

    def cut(self, trouble: BaseException | type[BaseException]) -> None:
        """Raise this at every call from now on; nothing reaches the store."""
        self._trouble = trouble

    def mend(self) -> None:
        """Let calls through again, and forget what was to happen at the next ones."""
        self._trouble = None
        self._before.clear()
        self._after.clear()

    def refuse_next(self, method: str, trouble: BaseException | type[BaseException]) -> None:
        """Raise this at the next call of a method instead of reaching the store."""
        self.before_next(method, _raising(trouble))

    def lose_next(self, method: str, trouble: BaseException | type[BaseException]) -> None:
        """Let the next call of a method through and raise this instead of its answer: it landed, nobody knows."""
        self.after_next(method, _raising(trouble))

    def before_next(self, method: str, happening: Happening) -> None:
        """Let something happen just before the next call of a method reaches the store."""
        self._before.setdefault(method, []).append(happening)

    def after_next(self, method: str, happening: Happening) -> None:
        """Let something happen once the next call of a method is durable at the store, before its answer is back."""
        self._after.setdefault(method, []).append(happening)

    def count(self, method: str) -> int:
        """Return how often a method was called."""
        return self.calls.count(method)

    async def carry(self, method: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Make one call over the line."""
        self.calls.append(method)
        if self._trouble is not None:
            raise self._trouble
        await _happen(self._before, method)
        answer = await call()
        await _happen(self._after, method)
        return answer


async def _happen(waiting: dict[str, list[Happening]], method: str) -> None:
    if waiting.get(method):
        await waiting[method].pop(0)()


def _raising(trouble: BaseException | type[BaseException]) -> Happening:
    async def happening() -> None:
        raise trouble

    return happening


class _RemoteLike(Generic[Store]):
    """What both kinds of store share: how a call travels."""

    joins_transaction = False

    def __init__(
        self, database: Database, line: Line, store_for: Callable[[AsyncSession], Store], unit_session: AsyncSession
    ) -> None:
        self._database = database
        self._line = line
        self._store_for = store_for
        self._unit_session = unit_session

    async def _ask(self, method: str, call: Callable[[Store], Awaitable[Answer]]) -> Answer:
        session = self._unit_session
        is_clear = self._line.serves_a_job or self._database.is_reader(session) or not session.in_transaction()
        assert is_clear, f"{method} was asked with a transaction open"
        return await self._travel(method, call, self._database.reading)

    async def _tell(self, method: str, call: Callable[[Store], Awaitable[Answer]]) -> Answer:
        assert not self._unit_session.in_transaction(), f"{method} was called with a transaction open"
        return await self._travel(method, call, self._database.writing)

    async def _travel(
        self,
        method: str,
        call: Callable[[Store], Awaitable[Answer]],
        open_session: Callable[[], AbstractAsyncContextManager[AsyncSession]],
    ) -> Answer:
        async def there() -> Answer:
            async with open_session() as session:
                return await call(self._store_for(session))

        return await self._line.carry(method, there)


class RemoteLikeFhirStore(_RemoteLike[FhirStore]):
    """A FHIR store that stands by itself; see ``quill.ports.fhir.FhirStore`` for what it promises."""

    async def find(self, resource_type: ResourceType, resource_id: str) -> StoredResource | None:
        return await self._ask("find", lambda store: store.find(resource_type, resource_id))

    async def write(self, document: Document, *, if_match: int | None = None) -> StoredResource:
        return await self._tell("write", lambda store: store.write(document, if_match=if_match))

    async def write_new(self, documents: Sequence[Document]) -> list[StoredResource]:
        return await self._tell("write_new", lambda store: store.write_new(documents))

    async def create_unless(self, document: Document, *, identifier: str) -> tuple[StoredResource, bool]:
        return await self._tell("create_unless", lambda store: store.create_unless(document, identifier=identifier))

    async def search(
        self, resource_type: ResourceType, query: SearchQuery, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        return await self._ask("search", lambda store: store.search(resource_type, query, limit=limit, cursor=cursor))

    async def history(self, resource_type: ResourceType, resource_id: str) -> list[StoredResource]:
        return await self._ask("history", lambda store: store.history(resource_type, resource_id))

    async def all_versions(
        self, resource_type: ResourceType, *, limit: int = 100, cursor: str | None = None
    ) -> ResourcePage:
        return await self._ask(
            "all_versions", lambda store: store.all_versions(resource_type, limit=limit, cursor=cursor)
        )

    async def delete(self, resource_type: ResourceType, resource_id: str) -> None:
        return await self._tell("delete", lambda store: store.delete(resource_type, resource_id))

    async def changes(self, resource_type: ResourceType, since: str | None = None, *, limit: int = 100) -> ChangePage:
        return await self._ask("changes", lambda store: store.changes(resource_type, since, limit=limit))

    async def ping(self) -> None:
        return await self._ask("ping", lambda store: store.ping())


class RemoteLikeOpenEhrStore(_RemoteLike[OpenEhrStore]):
    """An openEHR store that stands by itself; see ``quill.ports.openehr.OpenEhrStore`` for what it promises."""

    async def find_ehr(self, subject_id: str) -> str | None:
        return await self._ask("find_ehr", lambda store: store.find_ehr(subject_id))

    async def ensure_ehr(self, subject_id: str, ehr_id: str | None = None) -> str:
        return await self._tell("ensure_ehr", lambda store: store.ensure_ehr(subject_id, ehr_id))

    async def list_ehrs(self, *, limit: int = 100, cursor: str | None = None) -> EhrPage:
        return await self._ask("list_ehrs", lambda store: store.list_ehrs(limit=limit, cursor=cursor))

    async def list_objects(self, ehr_id: str) -> list[str]:
        return await self._ask("list_objects", lambda store: store.list_objects(ehr_id))

    async def system_id(self, ehr_id: str) -> str:
        return await self._ask("system_id", lambda store: store.system_id(ehr_id))

    async def find_template(self, template_id: str) -> str | None:
        return await self._ask("find_template", lambda store: store.find_template(template_id))

    async def ensure_template(self, template_id: str, operational_template: str) -> None:
        return await self._tell("ensure_template", lambda s: s.ensure_template(template_id, operational_template))

    async def list_templates(self) -> list[str]:
        return await self._ask("list_templates", lambda store: store.list_templates())

    async def write(
        self, ehr_id: str, document: Document, *, replacing: CompositionUid | None = None
    ) -> StoredComposition:
        return await self._tell("write", lambda store: store.write(ehr_id, document, replacing=replacing))

    async def find(self, ehr: EhrRef, uid: CompositionUid) -> StoredComposition | None:
        return await self._ask("find", lambda store: store.find(ehr, uid))

    async def versions(self, ehr: EhrRef, uid: CompositionUid) -> list[StoredComposition]:
        return await self._ask("versions", lambda store: store.versions(ehr, uid))

    async def list_compositions(
        self, ehr: EhrRef, template_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> CompositionPage:
        return await self._ask(
            "list_compositions",
            lambda store: store.list_compositions(ehr, template_id, limit=limit, cursor=cursor),
        )

    async def ping(self) -> None:
        return await self._ask("ping", lambda store: store.ping())


def with_remote_fhir(services: Services, line: Line) -> Services:
    """Return the services with a FHIR store at the other end of a line; put them into ``app.state.services``."""

    def fhir_for(session: AsyncSession) -> FhirStore:
        return RemoteLikeFhirStore(services.database, line, EmbeddedFhirStore, session)

    return replace(services, fhir_for=fhir_for)


def with_remote_openehr(services: Services, line: Line) -> Services:
    """Return the services with an openEHR store at the other end of a line; put them into ``app.state.services``."""

    def openehr_for(session: AsyncSession) -> OpenEhrStore:
        return RemoteLikeOpenEhrStore(services.database, line, EmbeddedOpenEhrStore, session)

    return replace(services, openehr_for=openehr_for)


async def sweep_after_leases_ran_out(services: Services, kinds: Mapping[str, intents.Kind]) -> int:
    """Sweep as it would be done later, when whoever began the open intents is surely gone."""
    async with services.database.writing() as session:
        long_ago = clock.now() - datetime.timedelta(seconds=1)
        await session.execute(sa.update(Intent).where(Intent.state == "pending").values(lease_until=long_ago))
    return await intents.sweep(services, kinds)
