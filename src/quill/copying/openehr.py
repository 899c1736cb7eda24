"""Bringing an openEHR store over, or telling what is not alike on both sides.

Templates come first, then EHRs under their own ids where the target lets them have those, then compositions under their
object ids, version by version. Version uids name the system that made them: a server elsewhere puts its own name there,
and the number stays.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from quill.adapters.openehr.sameness import is_same_content
from quill.copying.reports import OnProgress, Report, Trouble, again_if_stale, patiently, side_by_side
from quill.copying.sides import OpenEhrSide, OtherNumber
from quill.errors import QuillError
from quill.kit.ids import CompositionUid
from quill.ports.openehr import StoredComposition

PAGE = 200


async def copy_openehr(
    sides: tuple[OpenEhrSide, OpenEhrSide], on_progress: OnProgress, *, writes: bool = True
) -> Report:
    """Add to the second side what the first has and it has not.

    Args:
        sides: from where, and to where.
        on_progress: told how far it is.
        writes: ``False`` only compares.

    Raises:
        Unavailable: 503, a store does not answer; what was copied so far is, and a later copy goes on from there.
    """
    work = _Copying(sides, on_progress, writes=writes)
    await work.bring_templates()
    await side_by_side(work.ehrs(), work.bring_ehr)
    if work.renamed:
        work.report.notes.append(f"{work.renamed} EHRs have other ids there; Quill finds them by their patients.")
    return work.report


async def names_of_systems(sides: tuple[OpenEhrSide, OpenEhrSide]) -> tuple[str, str] | None:
    """Return what both sides call themselves in version uids; makes the first EHR of the source at the target.

    Returns:
        The source's name and the target's; ``None`` when the source has no EHR and so no composition either.

    Raises:
        Unavailable: 503 or 502, a store does not answer.
    """
    source_side, target_side = sides
    async with source_side.reading() as source:
        ehrs = (await source.list_ehrs(limit=1)).ehrs
        if not ehrs:
            return None
        ehr_id, subject_id = ehrs[0]
        before = await source.system_id(ehr_id)
    async with target_side.writing() as target:
        return before, await target.system_id(await target.ensure_ehr(subject_id, ehr_id))


class _Copying:
    """One walk over all EHRs."""

    def __init__(self, sides: tuple[OpenEhrSide, OpenEhrSide], on_progress: OnProgress, *, writes: bool) -> None:
        self._source, self._target = sides
        self._on_progress = on_progress
        self._writes = writes
        self.renamed = 0
        self.report = Report()

    async def bring_templates(self) -> None:
        """Copy the templates the target does not know."""

        async def bring() -> list[Trouble]:
            async with self._source.reading() as source, self._target.writing() as target:
                known = set(await target.list_templates())
                missing = [name for name in await source.list_templates() if name not in known]
                if not self._writes:
                    return [Trouble(f"template/{name}", "missing") for name in missing]
                for name in missing:
                    content = await source.find_template(name)
                    if content is not None:
                        await target.ensure_template(name, content)
                return []

        self.report.troubles += await patiently(bring)

    async def ehrs(self) -> AsyncIterator[tuple[str, str]]:
        """Yield every EHR of the source: EHR id and subject id."""
        cursor: str | None = None
        while True:

            async def read(place: str | None = cursor) -> Any:
                async with self._source.reading() as store:
                    return await store.list_ehrs(limit=PAGE, cursor=place)

            page = await patiently(read)
            for ehr in page.ehrs:
                yield ehr
            cursor = page.next_cursor
            if cursor is None:
                return

    async def bring_ehr(self, ehr: tuple[str, str]) -> None:
        """Copy one EHR with its compositions, or compare it."""
        ehr_id, subject_id = ehr
        try:
            there = await patiently(lambda: self._ehr_there(ehr_id, subject_id))
            objects, held = await patiently(lambda: self._objects(ehr_id, there))
        except QuillError as error:
            if error.status == 503:
                raise
            self._fail(f"ehr/{ehr_id}", error.code)
            return
        if there is None:
            self._fail(f"ehr/{ehr_id}", "missing")
            return
        self.renamed += there != ehr_id
        self.report.extra += len(held.difference(objects))
        for object_id in objects:
            await self._bring_composition(ehr_id, there, object_id, may_be_there=object_id in held)

    async def _ehr_there(self, ehr_id: str, subject_id: str) -> str | None:
        if not self._writes:
            async with self._target.reading() as store:
                return await store.find_ehr(subject_id)
        async with self._target.writing() as store:
            return await store.ensure_ehr(subject_id, ehr_id)

    async def _objects(self, ehr_id: str, there: str | None) -> tuple[list[str], set[str]]:
        async with self._source.reading() as source, self._target.reading() as target:
            return await source.list_objects(ehr_id), set(await target.list_objects(there) if there else [])

    async def _bring_composition(self, ehr_id: str, there: str, object_id: str, *, may_be_there: bool) -> None:
        async def read() -> list[StoredComposition]:
            async with self._source.reading() as store:
                return (await store.versions(ehr_id, CompositionUid(object_id)))[::-1]

        record = f"composition/{object_id}"
        copied = 0
        is_known = not may_be_there

        async def attempt() -> None:
            nonlocal copied, is_known
            held = [] if is_known else await self._held(there, object_id)
            is_known = False
            copied = await self._go_on(record, there, versions, held) or copied

        try:
            versions = await patiently(read)
            self.report.records += 1
            self.report.versions += len(versions)
            self.report.systems.update(version.uid.split("::")[1] for version in versions)
            await again_if_stale(attempt)
        except OtherNumber:
            self._fail(record, "other_number")
            return
        except QuillError as error:
            if error.status == 503:
                raise
            self._fail(record, error.code)
            return
        self.report.copied += copied
        self._on_progress("Copying letters" if self._writes else "Comparing letters", self.report.records, None)

    async def _held(self, there: str, object_id: str) -> list[StoredComposition]:
        async with self._target.reading() as store:
            return (await store.versions(there, CompositionUid(object_id)))[::-1]

    async def _go_on(
        self, record: str, there: str, versions: Sequence[StoredComposition], held: Sequence[StoredComposition]
    ) -> int:
        """Add what is missing after what the target holds; returns how many versions that were."""
        if (reason := self._reason_against(versions, held)) is not None:
            self._fail(record, reason)
            return 0
        missing = versions[len(held) :]
        if missing and not self._writes:
            self._fail(record, "behind" if held else "missing")
            return 0
        if missing:
            await self._target.add(there, missing, held[-1].uid if held else None)
        return len(missing)

    def _reason_against(self, versions: Sequence[StoredComposition], held: Sequence[StoredComposition]) -> str | None:
        """Return why a target's versions cannot be gone on with, ``None`` when they can."""
        pairs = list(zip(versions, held, strict=False))
        if any(
            one.version != other.version or not is_same_content(other.document, one.document) for one, other in pairs
        ):
            return "other_content"
        if len(held) > len(versions):
            return "ahead"
        numbers = [version.version for version in versions]
        if self._target.numbers_itself and numbers != list(range(1, len(numbers) + 1)):
            return "gaps"
        return None

    def _fail(self, record: str, reason: str) -> None:
        self.report.troubles.append(Trouble(record, reason))
