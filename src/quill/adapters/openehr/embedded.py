"""An openEHR store in the application database: EHRs, templates and versioned compositions.

Writes belong to the session's own transaction, so a letter and what the rest of the program notes about it are kept or
lost together.

Source: openEHR REST API 1.0.2, EHR and Definition; openEHR Reference Model 1.0.4, *change_control*.
"""

import hashlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.openehr import queries
from quill.adapters.openehr.models import Composition, Ehr, OperationalTemplate
from quill.adapters.openehr.queries import Row, Select
from quill.adapters.openehr.template import check_against, read_template
from quill.adapters.openehr.uids import (
    Uid,
    cursor_after,
    ehr_position,
    given_uid,
    page_of_ehrs,
    parse_uid,
    position,
    template_id_of,
    unknown_template,
    version_uid,
    wrong_uid,
)
from quill.errors import InvalidRecord, LetterNotFound, OpenEhrRefused, OpenEhrUnavailable, StaleEdit
from quill.kit import clock, paging
from quill.kit.database import Base
from quill.kit.documents import Document, NotADocument, dumps, in_order, loads
from quill.kit.ids import CompositionUid, new_uuid
from quill.ports.openehr import (
    FIRST_MEMBERS,
    CompositionPage,
    CompositionSummary,
    EhrPage,
    EhrRef,
    StoredComposition,
    Subject,
)
from quill.ports.openehr_composition import check_composition, parse_date_time

_NO_SYNC = {"synchronize_session": False}
OWN_SYSTEM = "quill.local"
"""What the store calls itself in version uids."""
_hash_encoder = msgspec.json.Encoder(decimal_format="number", order="deterministic")


class EmbeddedOpenEhrStore:
    """The openEHR port on the application database.

    Args:
        session: the unit's session; its owner commits.
        system_id: the middle part of the version uids minted from now on.
        former_systems: other system ids under which records here are known, from before they moved.
    """

    def __init__(
        self, session: AsyncSession, system_id: str = OWN_SYSTEM, *, former_systems: Collection[str] = ()
    ) -> None:
        self._session = session
        self._system_id = system_id
        self._former_systems = former_systems

    @property
    def joins_transaction(self) -> bool:
        """Writes belong to the unit's own transaction."""
        return True

    async def find_ehr(self, subject_id: str) -> str | None:
        """Return the id of the patient's EHR, or ``None``."""
        async with _store_trouble():
            return await self._session.scalar(queries.EHR_OF_SUBJECT, {"of_subject": subject_id})

    async def ensure_ehr(self, subject_id: str, ehr_id: str | None = None) -> str:
        """Return the id of the patient's EHR, making it, under the id given, when there is none.

        Raises:
            OpenEhrRefused: 502, another patient's EHR has that id.
        """
        found = await self.find_ehr(subject_id)
        if found is not None:
            return found
        await self._add(Ehr, {"ehr_id": ehr_id or new_uuid(), "subject_id": subject_id, "created_at": clock.now()})
        made = await self.find_ehr(subject_id)
        if made is None:
            raise OpenEhrRefused
        return made

    async def list_ehrs(self, *, limit: int = 100, cursor: str | None = None) -> EhrPage:
        """Return one page of every EHR, by EHR id.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        after = ehr_position(cursor)
        query = sa.select(Ehr.ehr_id, Ehr.subject_id).order_by(Ehr.ehr_id).limit(limit + 1)
        rows = await self._rows(query if after is None else query.where(Ehr.ehr_id > after))
        return page_of_ehrs([(row.ehr_id, row.subject_id) for row in rows], limit)

    async def system_id(self, ehr_id: str) -> str:
        """Return the middle part of the version uids minted from now on.

        Raises:
            OpenEhrRefused: 502, there is no such EHR.
        """
        await self._check_ehr(ehr_id)
        return self._system_id

    async def ensure_template(self, template_id: str, operational_template: str) -> None:
        """Make sure the template is known; the one already known under this id stays as it is.

        Raises:
            InvalidRecord: 422, the text is no operational template, or that of another id.
        """
        if read_template(operational_template).template_id != template_id:
            raise InvalidRecord("The template carries another id.")
        async with _store_trouble():
            known = sa.select(OperationalTemplate.template_id).where(OperationalTemplate.template_id == template_id)
            is_known = await self._session.scalar(known) is not None
        if not is_known:
            row = {"template_id": template_id, "content": operational_template, "created_at": clock.now()}
            await self._add(OperationalTemplate, row)

    async def list_templates(self) -> list[str]:
        """Return the ids of the known templates, sorted."""
        async with _store_trouble():
            # Sorted here: databases differ in how they collate text.
            return sorted(await self._session.scalars(sa.select(OperationalTemplate.template_id)))

    async def find_template(self, template_id: str) -> str | None:
        """Return a template as it was given, or ``None``."""
        query = sa.select(OperationalTemplate.content).where(OperationalTemplate.template_id == template_id)
        async with _store_trouble():
            return await self._session.scalar(query)

    async def write(
        self, ehr_id: str, document: Document, *, replacing: CompositionUid | None = None
    ) -> StoredComposition:
        """Commit the first or the next version of a composition; see the port for the promises.

        Raises:
            StaleEdit: 412, ``replacing`` is not the newest version, or the object id is taken by other content.
            InvalidRecord: 422, the document breaks the specification or its template, or the template is unknown.
            LetterNotFound: 404, ``replacing`` is no composition of this EHR.
            OpenEhrRefused: 502, there is no such EHR.
        """
        check_composition(document)
        given = given_uid(document)
        await self._check_template(document)
        if replacing is None:
            return await self._write_first(ehr_id, document, given.object_id if given else new_uuid())
        replaced = parse_uid(replacing)
        if replaced is None:
            raise LetterNotFound
        if given is not None and given.object_id != replaced.object_id:
            raise wrong_uid("It is not the composition that is replaced.")
        return await self._write_next(ehr_id, document, replaced)

    async def find(self, ehr: EhrRef, uid: CompositionUid) -> StoredComposition | None:
        """Return a version by version uid, or the newest by object id; ``None`` when this EHR has no such one."""
        wanted = parse_uid(uid)
        if wanted is None:
            return None
        if wanted.version is None:
            query = queries.NEWEST_VERSION
        elif wanted.system_id in {self._system_id, *self._former_systems}:
            query = queries.ONE_VERSION
        else:
            query = queries.ONE_VERSION_OF_SYSTEM
        rows = await self._rows(
            query,
            **_meant(ehr),
            of_object=wanted.object_id,
            the_version=wanted.version,
            of_system=wanted.system_id,
        )
        return _stored(rows[0]) if rows else None

    async def versions(self, ehr: EhrRef, uid: CompositionUid) -> list[StoredComposition]:
        """Return every version of the composition, newest first; empty when this EHR has no such one."""
        wanted = parse_uid(uid)
        if wanted is None:
            return []
        rows = await self._rows(queries.VERSIONS, **_meant(ehr), of_object=wanted.object_id)
        return [_stored(row) for row in rows]

    async def list_objects(self, ehr_id: str) -> list[str]:
        """Return the object ids of every composition of the EHR, sorted."""
        query = sa.select(Composition.object_id).where(Composition.ehr_id == ehr_id, Composition.is_latest)
        return sorted(row.object_id for row in await self._rows(query))

    async def list_compositions(
        self, ehr: EhrRef, template_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> CompositionPage:
        """Return one page of newest versions, newest ``started_at`` first; one without context sorts by its commit.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        limit = max(1, min(limit, paging.MAXIMUM_ROWS))
        values: dict[str, Any] = {**_meant(ehr), "of_template": template_id, "most": limit + 1}
        after = position(cursor)
        if after is None:
            rows = await self._rows(queries.FIRST_PAGE, **values)
        else:
            rows = await self._rows(queries.NEXT_PAGE, **values, before=after[0], before_object=after[1])
        shown = rows[:limit]
        summaries = [
            CompositionSummary(version_uid(object_id, system_id, version), version, *rest)
            for object_id, system_id, version, *rest in shown
        ]
        if len(rows) == len(shown):
            return CompositionPage(summaries)
        last = shown[-1]
        return CompositionPage(summaries, cursor_after(last.started_at, last.object_id))

    async def ping(self) -> None:
        """Return when the store answers a data read."""
        await self._rows(sa.select(Ehr.ehr_id).limit(1))

    async def _check_template(self, document: Document) -> None:
        content = await self.find_template(template_id_of(document))
        if content is None:
            raise unknown_template()
        check_against(read_template(content), document)

    async def _write_first(self, ehr_id: str, document: Document, object_id: str) -> StoredComposition:
        await self._check_ehr(ehr_id)
        row = self._row(ehr_id, document, object_id, version=1)
        if await self._add(Composition, row):
            return _stored_of(row)
        # The id is taken: a repeat of what was committed under it, or somebody else's.
        for first in await self._rows(queries.ONE_VERSION, **_meant(ehr_id), of_object=object_id, the_version=1):
            if first.content_hash == row["content_hash"]:
                return _stored(first)
        raise StaleEdit

    async def _write_next(self, ehr_id: str, document: Document, replaced: Uid) -> StoredComposition:
        """Commit the version after the replaced one, or return it when it is there already with this content."""
        if not await self._lock_composition(ehr_id, replaced.object_id):
            raise LetterNotFound
        if replaced.version is None:
            raise StaleEdit
        row = self._row(ehr_id, document, replaced.object_id, version=replaced.version + 1)
        place = _meant(ehr_id) | {"of_object": replaced.object_id}
        pair = [replaced.version, replaced.version + 1]
        rows = await self._rows(queries.SOME_VERSIONS, **place, the_versions=pair)
        held = {each.version: each for each in rows}
        previous, following = held.get(replaced.version), held.get(replaced.version + 1)
        if previous is None or previous.system_id != replaced.system_id:
            raise StaleEdit
        if following is not None:
            if following.content_hash != row["content_hash"]:
                raise StaleEdit
            return _stored(following)
        await self._outdate(replaced.object_id)
        if not await self._add(Composition, row):
            raise StaleEdit
        return _stored_of(row)

    async def _check_ehr(self, ehr_id: str) -> None:
        if not await self._rows(sa.select(Ehr.ehr_id).where(Ehr.ehr_id == ehr_id)):
            raise OpenEhrRefused("The letter store does not know the health record any more")

    async def _outdate(self, object_id: str) -> None:
        """Make room for a newest version."""
        was_latest = sa.update(Composition).where(Composition.object_id == object_id, Composition.is_latest)
        async with _store_trouble():
            await self._session.execute(was_latest.values(is_latest=False), execution_options=_NO_SYNC)

    async def _lock_composition(self, ehr_id: str, object_id: str) -> bool:
        """Serialise writers of one composition; tell whether this EHR has it.

        The row of version 1 is locked, because it never changes: a writer who waited for the newest one would find it
        no longer the newest and so not find it at all. SQLite needs no row locks, it has one writer at a time.
        """
        first = sa.select(Composition.object_id).where(
            Composition.ehr_id == ehr_id, Composition.object_id == object_id, Composition.version == 1
        )
        return bool(await self._rows(first.with_for_update()))

    def _row(self, ehr_id: str, document: Document, object_id: str, version: int) -> dict[str, Any]:
        committed_at = clock.now()
        uid = version_uid(object_id, self._system_id, version)
        content = {name: value for name, value in document.items() if name != "uid"}
        context = document.get("context")
        started_at = parse_date_time(context["start_time"]["value"]) if context else None
        return {
            "object_id": object_id,
            "version": version,
            "system_id": self._system_id,
            "ehr_id": ehr_id,
            "is_latest": True,
            "template_id": template_id_of(document),
            "title": document["name"]["value"],
            "started_at": started_at or committed_at,
            "composer_name": document["composer"].get("name") or "",
            "committed_at": committed_at,
            "content_hash": hashlib.sha256(_hash_encoder.encode(content)).hexdigest(),
            "document": dumps(
                in_order(document | {"uid": {"_type": "OBJECT_VERSION_ID", "value": uid}}, FIRST_MEMBERS)
            ),
        }

    async def _add(self, table: type[Base], row: dict[str, Any]) -> bool:
        """Insert a row unless a unique value of it is taken; tell whether it was inserted."""
        dialect = self._session.get_bind().dialect.name
        insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        key = sa.inspect(table).primary_key[0]
        statement = insert(table).values(**row).on_conflict_do_nothing().returning(key)
        async with _store_trouble():
            return await self._session.scalar(statement) is not None

    async def _rows(self, query: Select, **values: object) -> Sequence[Row]:
        async with _store_trouble():
            return (await self._session.execute(query, values)).all()


@asynccontextmanager
async def _store_trouble() -> AsyncIterator[None]:
    """Turn what the database driver raises into the port's own error, so that trouble is never taken for absence."""
    try:
        yield
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError) as error:
        raise OpenEhrUnavailable from error


def _meant(ehr: EhrRef) -> dict[str, str | None]:
    """Return the values by which a statement knows an EHR."""
    if isinstance(ehr, Subject):
        return {"in_ehr": None, "of_subject": ehr.subject_id}
    return {"in_ehr": ehr, "of_subject": None}


def _stored(row: Row) -> StoredComposition:
    try:
        document = loads(row.document)
    except NotADocument as error:
        raise OpenEhrRefused from error
    return StoredComposition(_version_uid(row), row.version, row.ehr_id, row.committed_at, document)


def _stored_of(row: dict[str, Any]) -> StoredComposition:
    """Return what was just inserted, decoded from the stored text: what a later reader will get."""
    document = loads(row["document"])
    uid = CompositionUid(document["uid"]["value"])
    return StoredComposition(uid, row["version"], row["ehr_id"], row["committed_at"], document)


def _version_uid(row: Row) -> CompositionUid:
    return version_uid(row.object_id, row.system_id, row.version)
