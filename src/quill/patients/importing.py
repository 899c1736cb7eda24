"""Taking in patients in bulk: a file of FHIR Patients, a line each, or a Bundle.

Every element comes back as it was sent. A file that was taken in changes nothing when it is taken in again, so an
import that was cut short is simply repeated. What cannot be taken in is told by line and reason, never by content.
"""

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import (
    Conflict,
    DuplicateIdentifier,
    FhirRefused,
    InvalidRecord,
    PatientExists,
    QuillError,
    StaleEdit,
    Unprocessable,
)
from quill.identity import service as identity
from quill.kit import clock
from quill.kit.documents import Document, NotADocument, dumps, loads
from quill.kit.ids import OrganisationId, PatientId
from quill.patients import queries, service
from quill.patients.projection import fold_identifier
from quill.ports import fhir_patient
from quill.ports.fhir_content import says_the_same
from quill.ports.fhir_resources import check_resource
from quill.unit import RequestFacts, Services, Unit, open_unit

BATCH = 200
"""Patients in one transaction: few enough that other writers are not kept waiting, enough that commits cost little."""

ID_NAMESPACE = uuid.UUID("6f0d2f5e-6f0b-5b0e-9a53-0b8f3c1f7a44")
"""Namespace of the ids made for records that come without one (RFC 9562, section 5.5, version 5)."""

SHARED_SYSTEMS = frozenset({"http://ns.electronichealth.net.au/id/medicare-number"})
SHARED_TYPES = frozenset({"MB", "SN", "MC"})
"""Numbers a family may share: Australian Medicare cards, and insurance members, subscribers and Medicare by HL7
v2-0203. Any other pair of system and value belongs to one patient (FHIR R4, ``Identifier.system``)."""

Outcome = Literal["imported", "updated", "unchanged"]


class UnreadableFile(ValueError):
    """The file is neither NDJSON nor a Bundle of entries."""


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a file: its number (of the line, or of the Bundle's entry, from 1), and what it holds.

    ``document`` is ``None`` where there is no readable JSON object.
    """

    number: int
    document: Document | None


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A record that was not taken in.

    Attributes:
        number: of the line, or of the Bundle's entry, from 1.
        reason: a slug.
        sentence: why, with the places of mistakes and without their values.
    """

    number: int
    reason: str
    sentence: str


@dataclass(slots=True)
class ImportReport:
    """How an import went, so far or in the end; records seen are the sum of all.

    Attributes:
        imported: records that were new.
        updated: records that replaced other content.
        unchanged: records that were there already, just so.
        refused: the others.
    """

    imported: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: list[RefusedLine] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Return how many records have been looked at."""
        return self.imported + self.updated + self.unchanged + len(self.refused)

    def add(self, counts: Counter[str]) -> None:
        """Count what a batch that is durable by now brought."""
        self.imported += counts["imported"]
        self.updated += counts["updated"]
        self.unchanged += counts["unchanged"]


@dataclass(frozen=True, slots=True)
class Import:
    """What an import is to do.

    Attributes:
        organisation_id: whose care the patients join.
        replace: whether a record with other content under a known id replaces it instead of being refused.
        actor: in whose name; the trail shows it.
    """

    organisation_id: OrganisationId
    replace: bool = False
    actor: Actor = field(default_factory=lambda: Actor.job("import"))


def read_lines(raw_lines: Iterable[bytes]) -> Iterator[Line]:
    """Yield the records of an NDJSON file or of a Bundle; blank lines are passed over.

    Args:
        raw_lines: the lines of a file opened in binary mode, or the pieces of any stream parted at line ends.

    Raises:
        UnreadableFile: a Bundle whose entries are not a list.
    """
    numbered = ((number, raw.strip()) for number, raw in enumerate(raw_lines, start=1))
    lines = ((number, raw.removeprefix(b"\xef\xbb\xbf")) for number, raw in numbered)
    filled: Iterator[tuple[int, bytes]] = ((number, raw) for number, raw in lines if raw)
    first = next(filled, None)
    if first is None:
        return
    document = _read(first[1])
    if document is None and not _is_whole(first[1]):
        # Perhaps one document set out over many lines; kept aside, so that NDJSON with a broken first line goes on.
        rest = list(filled)
        document = _read(b"\n".join(raw for _, raw in (first, *rest)))
        filled = iter(rest if document is None else [])
    if document is not None and document.get("resourceType") == "Bundle":
        yield from _entries(document)
        filled = iter([])
    else:
        yield Line(first[0], document)
    for number, raw in filled:
        yield Line(number, _read(raw))


def _is_whole(raw: bytes) -> bool:
    return raw.startswith(b"{") and raw.endswith(b"}")


def _read(raw: bytes) -> Document | None:
    try:
        return loads(raw)
    except NotADocument:
        return None


def _entries(bundle: Document) -> Iterator[Line]:
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise UnreadableFile("The entries of the Bundle are not a list.")
    for number, entry in enumerate(entries, start=1):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        yield Line(number, resource if isinstance(resource, dict) else None)


async def import_patients(
    services: Services,
    lines: Iterable[Line],
    task: Import,
    *,
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Take patients in; those that cannot be are told in the report and keep nobody else out.

    Args:
        services: what the program runs on.
        lines: from ``read_lines``.
        task: for whom, and how.
        on_progress: told after every batch, when that batch is durable.

    Returns:
        How it went.

    Raises:
        Unavailable: 503 or 502, a store does not answer; what was reported so far is durable, repeat for the rest.
    """
    report = ImportReport()
    facts = RequestFacts(request_id=f"import-{clock.now():%Y%m%dT%H%M%S}", source="import")
    waiting = iter(lines)
    size = await _batch_size(services)
    while batch := list(itertools.islice(waiting, size)):
        counts: Counter[str] = Counter()
        refused: list[RefusedLine] = []
        async with open_unit(services, facts) as unit:
            for line in batch:
                try:
                    async with _apart(unit):
                        counts[await _take_in(unit, task, line)] += 1
                except (Unprocessable, Conflict, StaleEdit) as error:
                    refused.append(_refusal(line, error))
        # Counted only now: a batch that was not committed was not taken in.
        report.add(counts)
        report.refused.extend(refused)
        if on_progress is not None:
            on_progress(report)
    return report


async def _batch_size(services: Services) -> int:
    """Return how many records share a transaction: a remote store keeps each by itself, so then one."""
    async with services.database.reading() as session:
        return BATCH if services.fhir_for(session).joins_transaction else 1


def _apart(unit: Unit) -> AbstractAsyncContextManager[Any]:
    """Return a savepoint around one record where records share a transaction."""
    return unit.session.begin_nested() if unit.fhir.joins_transaction else nullcontext()


async def _take_in(unit: Unit, task: Import, line: Line) -> Outcome:
    document = _checked(line)
    await _check_identifiers(unit, document)
    try:
        await service.create(unit, task.actor, document, organisation_id=task.organisation_id, act=Act.PATIENT_IMPORT)
    except PatientExists:
        return await _take_in_again(unit, task, document)
    return "imported"


async def _take_in_again(unit: Unit, task: Import, document: Document) -> Outcome:
    patient_id = PatientId(document["id"])
    stored = await unit.fhir.find("Patient", patient_id)
    if stored is None:
        raise FhirRefused("The patient record store does not hold a patient it acknowledged")
    is_same = says_the_same(document, stored.document)
    if not is_same:
        if not task.replace:
            raise PatientExists("A record with this id and other content is there already; nothing was changed")
        await service.check_takes_entries(unit, patient_id)
        await service.replace(unit, task.actor, stored, document, act=Act.PATIENT_IMPORT)
    await service.hold(unit, patient_id)
    if await identity.add_patient_membership(unit, task.organisation_id, patient_id):
        audit.record(unit, task.actor, Act.PATIENT_IMPORT, patient_id=patient_id, reason="joined-organisation")
    return "unchanged" if is_same else "updated"


def _checked(line: Line) -> Document:
    """Return a record fit to be taken in, with an id made from its content when it has none.

    Raises:
        Unprocessable: 422, saying what is wrong with it and where.
    """
    document = line.document
    if document is None:
        raise Unprocessable("It is no readable JSON object")
    if document.get("resourceType") != "Patient":
        raise InvalidRecord("It is no FHIR Patient")
    if "id" not in document:
        document = {"resourceType": "Patient", "id": str(uuid.uuid5(ID_NAMESPACE, dumps(document))), **document}
    check_resource(document)
    return document


async def _check_identifiers(unit: Unit, document: Document) -> None:
    """Refuse a record when another patient holds one of its identifiers.

    Raises:
        DuplicateIdentifier: 409, another one does; NHS numbers compare without their spaces.
    """
    own = [_compared(system, value) for system, value in _unshared(document)]
    if not own:
        return
    folded = [fold_identifier(value) for _, value in own]
    held = await queries.holders_of_identifiers(unit.session, folded, but=PatientId(document["id"]))
    if {_compared(system, value) for system, value in held} & set(own):
        raise DuplicateIdentifier


def _compared(system: str, value: str) -> tuple[str, str]:
    return (system, "".join(value.split())) if system == fhir_patient.NHS_NUMBER_SYSTEM else (system, value)


def _unshared(document: Document) -> Sequence[tuple[str, str]]:
    kept = [found for found in document.get("identifier", []) if not _is_shared(found) and found.get("use") != "old"]
    return [pair for pair in fhir_patient.identifiers({"identifier": kept}) if pair[0]]


def _is_shared(identifier: Document) -> bool:
    codes = {coding.get("code") for coding in identifier.get("type", {}).get("coding", [])}
    return identifier.get("system") in SHARED_SYSTEMS or bool(codes & SHARED_TYPES)


def _refusal(line: Line, error: QuillError) -> RefusedLine:
    if line.document is None:
        return RefusedLine(line.number, "not-json", error.detail)
    if line.document.get("resourceType") != "Patient":
        return RefusedLine(line.number, "not-a-patient", "It is no FHIR Patient")
    sentence = error.detail
    if isinstance(error, Unprocessable):
        places = (f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors[:5])
        sentence = f"{sentence}: {'; '.join(places)}"
    return RefusedLine(line.number, error.code.replace("_", "-"), sentence)
