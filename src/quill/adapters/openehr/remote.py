"""An openEHR store on another machine, over the openEHR REST API as EHRbase 2.x speaks it.

A write stands by itself once the server has it. Its answer may be lost, so nothing is written blindly twice: the object
id of a composition is ours, the server refuses it a second time, and then what it holds is compared with what was sent.

Source: openEHR REST API 1.0.2, EHR, Query and Definition; openEHR Reference Model 1.0.4, *change_control* and
``EHR_STATUS``.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection

from quill.adapters.openehr.answers import SUBJECT_NAMESPACE, ehr_status, kept_versions, stored_version, uid_of
from quill.adapters.openehr.listing import list_ehrs, list_objects, list_page
from quill.adapters.openehr.sameness import is_same_content
from quill.adapters.openehr.template import Template, check_against, read_template
from quill.adapters.openehr.uids import (
    Uid,
    given_uid,
    is_uuid,
    parse_uid,
    position,
    template_id_of,
    unknown_template,
    version_uid,
    wrong_uid,
)
from quill.adapters.openehr.wire import XML, Wire, address, refused
from quill.adapters.upstream import Upstream
from quill.errors import InvalidRecord, LetterNotFound, OpenEhrRefused, StaleEdit
from quill.kit.documents import Document, dumps
from quill.kit.ids import CompositionUid, is_fhir_id, new_uuid
from quill.ports.openehr import CompositionPage, EhrPage, EhrRef, StoredComposition, Subject
from quill.ports.openehr_composition import check_composition, value_at

TEMPLATES = "definition/template/adl1.4"
TIMES_TO_MAKE_EHR = 3
"""The first writers of a new EHRbase meet where it notes their account: one goes through, the others get 500."""
VERSIONS_AT_ONCE = 4
"""How many versions of one composition are fetched side by side."""

_TEMPLATE_ID = re.compile(r"\w[\w .+\-]{0,254}")
_SYSTEM_ID = re.compile(r"[A-Za-z0-9.\-_]{1,255}")
_DONE = frozenset({200, 201, 204})
_CONFLICTS = frozenset({409, 412})
_INVALID = frozenset({400, 422})
# Two writers at once may meet in the server's database, which it tells as a trouble of its own: then we look.
_WRITE_ANSWERS = _DONE | _CONFLICTS | _INVALID | {500}


async def nothing() -> None:
    """Do nothing: what a store without anything to let go of awaits before each call."""


class RemoteOpenEhrStore:
    """The openEHR port over HTTP.

    Args:
        upstream: the server; its base address is what ``wire.rest_base`` returns.
        let_go: awaited before each call, so that no database connection is held while the server thinks.
        former_systems: system ids under which records are known from before they moved here.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        let_go: Callable[[], Awaitable[None]] = nothing,
        former_systems: Collection[str] = (),
    ) -> None:
        self._wire = Wire(upstream, let_go)
        self._former_systems = former_systems
        # What never changes is asked once: a copy of everything writes a great many compositions.
        self._templates: dict[str, Template] = {}
        self._own_system: str | None = None

    @property
    def joins_transaction(self) -> bool:
        """Writes stand by themselves."""
        return False

    async def find_ehr(self, subject_id: str) -> str | None:
        """Return the id of the patient's EHR, or ``None`` when the server says that there is none.

        Raises:
            OpenEhrRefused: 502, the answer is about another patient.
        """
        if not is_fhir_id(subject_id):
            return None
        ehr = await self._wire.read("ehr", {"subject_id": subject_id, "subject_namespace": SUBJECT_NAMESPACE})
        if ehr is None:
            return None
        subject = value_at(ehr, ("ehr_status", "subject", "external_ref"))
        ehr_id = value_at(ehr, ("ehr_id", "value"))
        if value_at(subject, ("id", "value")) != subject_id or value_at(subject, ("namespace",)) != SUBJECT_NAMESPACE:
            raise refused("ehr_of_another")
        if not isinstance(ehr_id, str) or not is_uuid(ehr_id):
            raise refused("ehr_id")
        return ehr_id

    async def ensure_ehr(self, subject_id: str, ehr_id: str | None = None) -> str:
        """Return the id of the patient's EHR, making it when there is none; two callers at once get the same one.

        Raises:
            OpenEhrRefused: 502, another patient's EHR has the id a new one was to have.
        """
        found = await self.find_ehr(subject_id)
        if found is not None:
            return found
        if not is_fhir_id(subject_id):
            raise InvalidRecord("The patient's id is no FHIR id.")
        for _ in range(TIMES_TO_MAKE_EHR):
            status = await self._wire.put_ehr(ehr_id or new_uuid(), ehr_status(subject_id))
            # Whoever was first is found now, whatever became of our own request.
            made = await self.find_ehr(subject_id)
            if made is not None:
                return made
            if status != 500:
                break
        raise refused("ehr_not_made")

    async def list_ehrs(self, *, limit: int = 100, cursor: str | None = None) -> EhrPage:
        """Return one page of every EHR of a patient, by EHR id.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        return await list_ehrs(self._wire, limit=limit, cursor=cursor)

    async def list_objects(self, ehr_id: str) -> list[str]:
        """Return the object ids of every composition of the EHR that is not deleted, sorted."""
        return await list_objects(self._wire, ehr_id) if is_uuid(ehr_id) else []

    async def ensure_template(self, template_id: str, operational_template: str) -> None:
        """Make sure the template is known; the one already known under this id stays as it is.

        Raises:
            InvalidRecord: 422, the text is no operational template, or that of another id.
        """
        if read_template(operational_template).template_id != template_id:
            raise InvalidRecord("The template carries another id.")
        if not _TEMPLATE_ID.fullmatch(template_id):
            raise InvalidRecord("The template's id holds characters it must not.")
        if template_id in await self.list_templates():
            return
        headers = {"Content-Type": XML, "Accept": f"{XML}, */*;q=0.5"}
        status = await self._wire.change(
            "POST", TEMPLATES, operational_template.encode(), expected=_WRITE_ANSWERS, headers=headers
        )
        if status in _INVALID:
            raise InvalidRecord("The letter store does not take the template.")
        if status not in _DONE and template_id not in await self.list_templates():
            raise refused("template_not_made")

    async def list_templates(self) -> list[str]:
        """Return the ids of the known templates, sorted."""
        entries = await self._wire.entries(TEMPLATES)
        names = [value_at(each, ("template_id",)) for each in entries or []]
        known = [name for name in names if isinstance(name, str)]
        if entries is None or len(known) != len(names):
            raise refused("template_list")
        return sorted(known)

    async def find_template(self, template_id: str) -> str | None:
        """Return a template as the server writes it, or ``None`` when it knows none of this id."""
        content = None
        if _TEMPLATE_ID.fullmatch(template_id):
            content = await self._wire.read_text(f"{TEMPLATES}/{address(template_id)}")
        if content is None and template_id in await self.list_templates():
            raise refused("template_missing")
        return content

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
        check_against(await self._template(template_id_of(document)), document)
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
        ehr_id = await self._id_of(ehr) if wanted is not None else None
        if wanted is None or ehr_id is None:
            return None
        if wanted.system_id in self._former_systems:
            wanted = wanted._replace(system_id=None)
        return await self._find(ehr_id, wanted)

    async def versions(self, ehr: EhrRef, uid: CompositionUid) -> list[StoredComposition]:
        """Return every version of the composition, newest first; empty when this EHR has no such one."""
        wanted = parse_uid(uid)
        ehr_id = await self._id_of(ehr) if wanted is not None else None
        if wanted is None or ehr_id is None:
            return []
        path = address("ehr", ehr_id, "versioned_composition", wanted.object_id, "revision_history")
        history = await self._wire.entries(path)
        if history is None:
            return []
        places = asyncio.Semaphore(VERSIONS_AT_ONCE)

        async def fetch(version: Uid) -> StoredComposition:
            async with places:
                found = await self._find_version(ehr_id, version)
            if found is None:
                raise refused("version_missing")
            return found

        listed = sorted(kept_versions(history, wanted.object_id), key=lambda each: each.version or 0, reverse=True)
        return list(await asyncio.gather(*map(fetch, listed)))

    async def list_compositions(
        self, ehr: EhrRef, template_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> CompositionPage:
        """Return one page of newest versions, newest ``started_at`` first.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        after = position(cursor)
        ehr_id = await self._id_of(ehr)
        if ehr_id is None:
            return CompositionPage()
        return await list_page(self._wire, ehr_id, template_id, limit=limit, after=after)

    async def ping(self) -> None:
        """Return when the server answers a data read."""
        await self._wire.probe(TEMPLATES)

    async def _template(self, template_id: str) -> Template:
        if template_id in self._templates:
            return self._templates[template_id]
        content = await self.find_template(template_id)
        if content is None:
            raise unknown_template()
        try:
            template = read_template(content)
        except InvalidRecord as error:
            raise refused("template") from error
        if template.template_id != template_id:
            raise refused("another_template")
        self._templates[template_id] = template
        return template

    async def _write_first(self, ehr_id: str, document: Document, object_id: str) -> StoredComposition:
        uid = version_uid(object_id, self._own_system or await self.system_id(ehr_id), 1)
        body = document | {"uid": {"_type": "OBJECT_VERSION_ID", "value": uid}}
        path = address("ehr", ehr_id, "composition")
        status = await self._wire.change("POST", path, dumps(body).encode(), expected=_WRITE_ANSWERS)
        return await self._outcome(status, ehr_id, Uid(object_id, None, 1), document)

    async def _write_next(self, ehr_id: str, document: Document, replaced: Uid) -> StoredComposition:
        """Commit the version after the replaced one, or return it when it is there already with this content."""
        newest = await self.find(ehr_id, CompositionUid(replaced.object_id))
        if newest is None:
            raise LetterNotFound
        held = parse_uid(newest.uid)
        if replaced.version is None or held is None or held.system_id != replaced.system_id:
            raise StaleEdit
        following = Uid(replaced.object_id, None, replaced.version + 1)
        if newest.version > replaced.version:
            return await self._outcome(412, ehr_id, following, document)
        if newest.version < replaced.version:
            raise StaleEdit
        body = {name: value for name, value in document.items() if name != "uid"}
        status = await self._wire.change(
            "PUT",
            address("ehr", ehr_id, "composition", replaced.object_id),
            dumps(body).encode(),
            expected=_WRITE_ANSWERS,
            headers={"If-Match": newest.uid},
        )
        return await self._outcome(status, ehr_id, following, document)

    async def _outcome(self, status: int, ehr_id: str, written: Uid, sent: Document) -> StoredComposition:
        """Return the version a write made, or made before when this one was refused for being there already."""
        if status in _INVALID:
            raise InvalidRecord("The letter store does not take the composition.")
        found = await self._find(ehr_id, written)
        if found is not None and is_same_content(found.document, sent):
            return found
        if status in _DONE:
            raise refused("not_what_was_written")
        if found is not None or status == 412:
            raise StaleEdit
        raise refused(str(status))

    async def _id_of(self, ehr: EhrRef) -> str | None:
        """Return the id of an EHR; ``None`` for a subject without one, and for what no server has as an id."""
        if isinstance(ehr, Subject):
            return await self.find_ehr(ehr.subject_id)
        return ehr if is_uuid(ehr) else None

    async def _find(self, ehr_id: str, wanted: Uid) -> StoredComposition | None:
        """Return a version by what is given of its uid; the newest is always asked for first.

        EHRbase overlooks the middle part of a version uid, and says that it does not have a composition only when it is
        asked for the newest version; asked for another one it breaks.
        """
        newest = await self._wire.read(address("ehr", ehr_id, "versioned_composition", wanted.object_id, "version"))
        if newest is None:
            return None
        held = uid_of(newest, wanted.object_id)
        if wanted.system_id not in {None, held.system_id} or (wanted.version or 1) > (held.version or 1):
            return None
        if wanted.version in {None, held.version}:
            return stored_version(ehr_id, newest)
        return await self._find_version(ehr_id, held._replace(version=wanted.version))

    async def _find_version(self, ehr_id: str, wanted: Uid) -> StoredComposition | None:
        """Return a version whose whole uid the server has told."""
        uid = wanted.at(wanted.version or 1)
        version = await self._wire.read(
            address("ehr", ehr_id, "versioned_composition", wanted.object_id, "version", uid)
        )
        if version is None:
            return None
        if uid_of(version, wanted.object_id) != wanted:
            raise refused("another_version")
        return stored_version(ehr_id, version)

    async def system_id(self, ehr_id: str) -> str:
        """Return what the server calls itself in version uids.

        Raises:
            OpenEhrRefused: 502, there is no such EHR.
        """
        ehr = await self._wire.read(address("ehr", ehr_id)) if is_uuid(ehr_id) else None
        if ehr is None:
            raise OpenEhrRefused("The letter store does not know the health record any more")
        system_id = value_at(ehr, ("system_id", "value"))
        if not isinstance(system_id, str) or not _SYSTEM_ID.fullmatch(system_id):
            raise refused("system_id")
        self._own_system = system_id
        return system_id
