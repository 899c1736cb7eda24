"""Bringing a FHIR store over, or telling what is not alike on both sides.

Both sides are gone over first and noted down as digests, a few bytes a version. What the target has of a resource must
be how its history begins at the source; then the rest of it is added, version by version. Resources that others refer
to come first, and the deletions that end a history come last and in the other direction, because servers such as HAPI
FHIR take no reference to what is not there and delete nothing that is referred to.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from quill.copying.reports import OnProgress, Report, Trouble, again_if_stale, patiently, side_by_side
from quill.copying.sides import FhirSide, OtherNumber
from quill.errors import QuillError
from quill.ports.fhir import ResourceType, StoredResource
from quill.ports.fhir_content import content_digest

PAGE = 200
TYPES: tuple[ResourceType, ...] = get_args(ResourceType)
_DELETION = b"deletion"
_REFERENCE = re.compile(rf"(?:{'|'.join(TYPES)})/[A-Za-z0-9\-.]{{1,64}}")

Outline = list[tuple[int, bytes]]
"""The versions of a resource, oldest first: number and digest of each."""


@dataclass(slots=True)
class Survey:
    """Everything in a FHIR store, in outline.

    Attributes:
        outlines: by ``type/id``.
        references: by the same, which resources any version refers to.
    """

    outlines: dict[str, Outline] = field(default_factory=dict)
    references: dict[str, set[str]] = field(default_factory=dict)


async def copy_fhir(sides: tuple[FhirSide, FhirSide], on_progress: OnProgress, *, writes: bool = True) -> Report:
    """Add to the second side what the first has and it has not.

    Args:
        sides: from where, and to where.
        on_progress: told how far it is.
        writes: ``False`` only compares.

    Raises:
        Unavailable: 503, a store does not answer; what was copied so far is, and a later copy goes on from there.
    """
    source, target = sides
    here = await survey(source, on_progress, "Reading FHIR records here")
    there = await survey(target, on_progress, "Reading FHIR records there")
    report = Report(len(here.outlines), sum(map(len, here.outlines.values())))
    report.extra = len(there.outlines.keys() - here.outlines.keys())
    differing: dict[str, Outline] = {}
    for record, outline in here.outlines.items():
        held = there.outlines.get(record, [])
        if held != outline:
            differing[record] = held
    work = _Copying(sides, here, differing, report, on_progress)
    await (work.run() if writes else work.tell())
    return report


async def survey(side: FhirSide, on_progress: OnProgress, what: str) -> Survey:
    """Go over everything in a store.

    Raises:
        Unavailable: 503 or 502, the store does not answer.
    """
    found = Survey()
    outlines: dict[str, dict[int, bytes]] = {}
    count = 0
    for resource_type in TYPES:
        async for page in _pages(side, resource_type):
            for stored in page:
                record = f"{resource_type}/{stored.id}"
                outlines.setdefault(record, {})[stored.version] = _digest(stored)
                found.references.setdefault(record, set()).update(_references(stored.document))
            count += len(page)
            on_progress(what, count, None)
    found.outlines = {record: sorted(versions.items()) for record, versions in outlines.items()}
    return found


def waves(records: Iterable[str], references: dict[str, set[str]]) -> list[list[str]]:
    """Return records in groups of which each refers only to records of the groups before it.

    Records that refer to one another in a circle, which no server could have taken one by one, come last.
    """
    waiting = {record: references.get(record, set()) - {record} for record in records}
    found: list[list[str]] = []
    while waiting:
        ready = [record for record, its in waiting.items() if not its & waiting.keys()]
        ready = ready or list(waiting)
        found.append(ready)
        for record in ready:
            del waiting[record]
    return found


class _Copying:
    """What is done about the records that are not alike.

    Args:
        sides: from where, and to where.
        here: what the source holds.
        differing: what the target was seen to hold of these records.
        report: where it is told.
        on_progress: told how far it is.
    """

    def __init__(
        self,
        sides: tuple[FhirSide, FhirSide],
        here: Survey,
        differing: dict[str, Outline],
        report: Report,
        on_progress: OnProgress,
    ) -> None:
        self._source, self._target = sides
        self._here = here
        self._differing = differing
        self._report = report
        self._on_progress = on_progress
        self._done = 0
        self._failed: set[str] = set()
        self._total = sum(max(len(here.outlines[record]) - len(held), 0) for record, held in differing.items())

    async def run(self) -> None:
        """Copy what is missing, wave by wave."""
        order = waves(self._differing, self._here.references)
        for wave in order:
            await side_by_side(wave, self._copy_written)
        for wave in reversed(order):
            ended = [record for record in wave if self._ends_deleted(record) and record not in self._failed]
            await side_by_side(ended, self._copy_deletion)

    async def tell(self) -> None:
        """Only tell; each record is looked at once more by itself, because others may write to the server meanwhile."""
        await side_by_side(list(self._differing), self._tell)

    async def _tell(self, record: str) -> None:
        async def look() -> Outline:
            return await _outline(self._target, record)

        outline, held = self._here.outlines[record], await patiently(look)
        if held != outline:
            self._fail(record, _reason_against(outline, held, self._target) or ("behind" if held else "missing"))

    def _ends_deleted(self, record: str) -> bool:
        return self._here.outlines[record][-1][1] == _DELETION

    async def _copy_written(self, record: str) -> None:
        await self._copy(record, self._here.outlines[record][: -1 if self._ends_deleted(record) else None])

    async def _copy_deletion(self, record: str) -> None:
        await self._copy(record, self._here.outlines[record])

    async def _copy(self, record: str, outline: Outline) -> None:
        """Bring over the beginning of a record's history that an outline is of, from where the target is."""
        before = len(self._differing[record])
        is_known = True

        async def attempt() -> None:
            nonlocal is_known
            if not is_known:
                # An answer was lost, or another writer came between: how much is there is not known any more.
                self._differing[record] = await _outline(self._target, record)
            is_known = False
            await self._add(record, outline)

        try:
            await again_if_stale(attempt)
        except _Impossible as error:
            self._fail(record, error.reason)
        except OtherNumber:
            self._fail(record, "other_number")
        except QuillError as error:
            if error.status == 503:
                raise
            self._fail(record, error.code)
        else:
            self._count(record, outline, before)

    async def _add(self, record: str, outline: Outline) -> None:
        whole, held = self._here.outlines[record], self._differing[record]
        reason = _reason_against(whole, held, self._target)
        if reason is not None:
            raise _Impossible(reason)
        if len(held) >= len(outline):
            return
        missing = await self._versions(record, [number for number, _ in outline[len(held) :]])
        await self._target.add(missing, follows_deletion=bool(held) and held[-1][1] == _DELETION)

    async def _versions(self, record: str, wanted: Sequence[int]) -> list[StoredResource]:
        """Return versions of a record of the source, oldest first."""
        resource_type, resource_id = _parted(record)
        async with self._source.reading() as store:
            if len(wanted) == 1:
                # Most resources have one version, and a server finds that much sooner than a history.
                current = await store.find(resource_type, resource_id)
                if current is not None and current.version == wanted[0]:
                    return [current]
            versions = await store.history(resource_type, resource_id)
        return [version for version in reversed(versions) if version.version in wanted]

    def _count(self, record: str, outline: Outline, before: int) -> None:
        copied = max(len(outline) - before, 0)
        if copied:
            self._differing[record] = outline
        self._report.copied += copied
        self._done += copied
        self._on_progress("Copying FHIR records", self._done, self._total)

    def _fail(self, record: str, reason: str) -> None:
        self._failed.add(record)
        self._report.troubles.append(Trouble(record, reason))


class _Impossible(Exception):
    """A record's history cannot be gone on with at the target."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _reason_against(outline: Outline, held: Outline, target: FhirSide) -> str | None:
    """Return why a target's history cannot be gone on with, ``None`` when it can."""
    if held != outline[: len(held)]:
        return "ahead" if held[: len(outline)] == outline else "other_content"
    if target.numbers_itself and [number for number, _ in outline] != list(range(1, len(outline) + 1)):
        return "gaps"
    return None


async def _outline(side: FhirSide, record: str) -> Outline:
    """Return what a store holds of one record."""
    resource_type, resource_id = _parted(record)
    async with side.reading() as store:
        versions = await store.history(resource_type, resource_id)
    return [(version.version, _digest(version)) for version in reversed(versions)]


def _digest(version: StoredResource) -> bytes:
    return _DELETION if version.is_deleted else content_digest(version.document)


def _parted(record: str) -> tuple[ResourceType, str]:
    resource_type, _, resource_id = record.partition("/")
    return cast("ResourceType", resource_type), resource_id


async def _pages(side: FhirSide, resource_type: ResourceType) -> AsyncIterator[list[StoredResource]]:
    cursor: str | None = None
    while True:
        place = cursor

        async def read(place: str | None = place) -> Any:
            async with side.reading() as store:
                return await store.all_versions(resource_type, limit=PAGE, cursor=place)

        page = await patiently(read)
        yield page.resources
        cursor = page.next_cursor
        if cursor is None:
            return


def _references(value: Any, name: str = "") -> Iterator[str]:
    """Yield the resources of ours that a document refers to."""
    if isinstance(value, dict):
        for its_name, part in value.items():
            yield from _references(part, its_name)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)
    elif name == "reference" and isinstance(value, str) and (match := _REFERENCE.match(value)):
        yield match[0]
