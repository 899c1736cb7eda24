"""The openEHR store as Quill needs it.

Source: openEHR REST API 1.0.2, EHR and Definition; openEHR Reference Model 1.0.4, ``COMPOSITION``.
"""

import datetime
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from quill.kit.documents import Document
from quill.kit.ids import CompositionUid

FIRST_MEMBERS = ("_type", "name", "uid", "archetype_node_id")
"""What objects begin with, where they have it; their other members come by name, whichever store they are in."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The patient whose EHR is meant, where its id is not known: its subject, in the namespace ``fhir``."""

    subject_id: str


EhrRef: TypeAlias = str | Subject
"""An EHR, by its id or by its subject. A store that keeps both asks one question instead of two."""


@dataclass(frozen=True, slots=True)
class StoredComposition:
    """One version of a composition.

    Attributes:
        uid: the version uid, ``object::system::n``.
        version: ``n``, 1 for the first.
        ehr_id: the EHR it belongs to.
        committed_at: when this version was committed, aware UTC.
        document: the canonical COMPOSITION JSON, ``uid`` included, its members in one order.
    """

    uid: CompositionUid
    version: int
    ehr_id: str
    committed_at: datetime.datetime
    document: Document


class CompositionSummary(NamedTuple):
    """What a list shows of the newest version of a composition; a tuple, because a page has hundreds of them.

    Attributes:
        uid: version uid of the newest version.
        version: its number.
        title: ``name/value``.
        started_at: ``context/start_time``, aware UTC.
        composer_name: ``composer/name``.
    """

    uid: CompositionUid
    version: int
    title: str
    started_at: datetime.datetime
    composer_name: str


@dataclass(frozen=True, slots=True)
class CompositionPage:
    """Summaries, newest ``started_at`` first, and the opaque cursor of the next page when there is one."""

    summaries: list[CompositionSummary] = field(default_factory=list)
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class EhrPage:
    """EHRs as pairs of EHR id and subject id, by EHR id, and the opaque cursor of the next page when there is one."""

    ehrs: list[tuple[str, str]] = field(default_factory=list)
    next_cursor: str | None = None


class OpenEhrStore(Protocol):
    """An openEHR server, embedded or remote.

    Every method may raise ``OpenEhrUnavailable`` (503) or ``OpenEhrRefused`` (502). Absence is ``None`` or an empty
    page, and means that the store itself said so.
    """

    @property
    def joins_transaction(self) -> bool:
        """Tell whether writes belong to the unit's own transaction (embedded) or stand by themselves (remote)."""
        ...

    async def find_ehr(self, subject_id: str) -> str | None:
        """Return the id of the EHR whose subject is this patient (namespace ``fhir``), or ``None``."""
        ...

    async def ensure_ehr(self, subject_id: str, ehr_id: str | None = None) -> str:
        """Return the id of the patient's EHR, making it when there is none; two callers at once get the same one.

        Args:
            subject_id: the patient.
            ehr_id: the id a new one is to have (a UUID); the store's own choice when left out.

        Raises:
            OpenEhrRefused: 502, another patient's EHR has that id.
        """
        ...

    async def list_ehrs(self, *, limit: int = 100, cursor: str | None = None) -> EhrPage:
        """Return one page of every EHR whose subject is a patient (namespace ``fhir``).

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        ...

    async def system_id(self, ehr_id: str) -> str:
        """Return what the store calls itself in the version uids it makes, as it says of one of its EHRs.

        Raises:
            OpenEhrRefused: 502, there is no such EHR.
        """
        ...

    async def ensure_template(self, template_id: str, operational_template: str) -> None:
        """Make sure the store knows an ADL 1.4 operational template (XML); harmless when it does already.

        Raises:
            InvalidRecord: 422, the template is not one.
        """
        ...

    async def list_templates(self) -> list[str]:
        """Return the ids of the templates the store knows, sorted."""
        ...

    async def find_template(self, template_id: str) -> str | None:
        """Return an operational template the store knows (ADL 1.4, XML), which may be written anew; else ``None``."""
        ...

    async def write(
        self, ehr_id: str, document: Document, *, replacing: CompositionUid | None = None
    ) -> StoredComposition:
        """Commit a composition: a new one, or the next version of one.

        Args:
            ehr_id: the EHR to commit to.
            document: canonical COMPOSITION JSON. Its ``uid/value``, when given, is the id we minted: an object id
                (new; committing the same content under it again is harmless) or a version uid.
            replacing: the version uid this replaces; ``None`` commits the first version.

        Returns:
            The version as the store holds it.

        Raises:
            StaleEdit: 412, ``replacing`` is not the newest version, or the object id is taken by other content.
            InvalidRecord: 422, not a COMPOSITION, or its ``archetype_details/template_id`` names no known template.
            LetterNotFound: 404, ``replacing`` is no composition of this EHR.
        """
        ...

    async def find(self, ehr: EhrRef, uid: CompositionUid) -> StoredComposition | None:
        """Return a version by version uid, or the newest by object id; ``None`` when this EHR has no such one.

        A subject without an EHR has no composition.

        A store knows the system ids its records were kept under before they moved to it: a version uid with one of
        those is the version of that number, so that a uid somebody noted stays good.
        """
        ...

    async def versions(self, ehr: EhrRef, uid: CompositionUid) -> list[StoredComposition]:
        """Return every version of the composition a version uid or object id belongs to, newest first."""
        ...

    async def list_objects(self, ehr_id: str) -> list[str]:
        """Return the object ids of every composition of the EHR, of whatever template, sorted."""
        ...

    async def list_compositions(
        self, ehr: EhrRef, template_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> CompositionPage:
        """Return one page of the EHR's compositions of a template; an empty one for a subject without an EHR.

        Raises:
            InvalidCursor: 422, the cursor is not one of this store's.
        """
        ...

    async def ping(self) -> None:
        """Return when the store answers; raises ``OpenEhrUnavailable`` when it does not."""
        ...
