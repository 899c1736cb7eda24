"""Verification: recomputes every leaf and every seal from what the tables hold now, and names the first thing amiss.

It walks along the chain in batches, so the trail may be of any size, and may run while events are written and sealed.
"""

import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from quill.audit import queries
from quill.audit.anchors import Anchor, AnchorsUnreadable, read_anchors
from quill.audit.chain import GENESIS, SealHash, leaf_hash
from quill.audit.queries import AnyRow
from quill.kit.database import Database

_ENTRY_COLUMNS = 4
"""Columns of a row of ``queries.stream_entries`` before the event's own."""


@dataclass(slots=True)
class AuditReport:
    """What a verification found.

    Attributes:
        seal_count: seals found good.
        event_count: sealed events found good.
        unsealed_count: events no seal holds yet. A few seconds' worth is usual while the program runs; they are not
            protected yet.
        anchor_count: anchor lines found to agree with their seals.
        problem: a sentence about the first thing amiss; the counts then tell how far all was well.
    """

    seal_count: int = 0
    event_count: int = 0
    unsealed_count: int = 0
    anchor_count: int = 0
    problem: str | None = None

    @property
    def is_intact(self) -> bool:
        """Tell whether nothing amiss was found."""
        return self.problem is None


class _Broken(Exception):
    """Carries the sentence about the first thing amiss up to the report."""


async def verify(database: Database, anchor_lines: Iterable[str] = ()) -> AuditReport:
    """Recompute the whole trail.

    Args:
        database: where the trail is.
        anchor_lines: lines of the anchor file, such as the open file itself. Without them a tail cut off the trail,
            or a chain written anew from some seal on, does not show.

    Returns:
        The report; its problem names the event, the position or the seal.
    """
    report = AuditReport()
    async with database.reading() as session:
        last = await queries.find_last_seal(session)
        # Seals and entries are committed together and never change, so up to this number the walk sees one state.
        last_number = last.number if last else 0
        try:
            await _check_chain(session, last_number, report)
            await _check_anchors(session, last_number, anchor_lines, report)
        except (_Broken, AnchorsUnreadable) as error:
            report.problem = str(error)
        report.unsealed_count = await queries.count_unsealed_events(session)
    return report


async def _check_chain(session: AsyncSession, last_number: int, report: AuditReport) -> None:
    previous_hash: object = GENESIS
    entries = queries.stream_entries(session, last_number)
    entry = await anext(entries, None)
    async for seal in queries.stream_seals(session, None, last_number):
        if seal.number != report.seal_count + 1:
            raise _Broken(f"Seal {report.seal_count + 1} is missing; the next one there is seal {seal.number}.")
        if seal.previous_hash != previous_hash:
            raise _Broken(f"Seal {seal.number} does not follow the seal before it: the chain is broken there.")
        entry = await _check_seal(seal, entry, entries, report)
        report.seal_count += 1
        previous_hash = seal.hash
    stray = entry or await queries.find_entry_without_seal(session, last_number)
    if stray is not None:
        raise _Broken(f"Event {stray.event_id} is entered under seal {stray.seal_number}, which is not there.")


async def _check_seal(
    seal: AnyRow, entry: AnyRow | None, entries: AsyncIterator[AnyRow], report: AuditReport
) -> AnyRow | None:
    """Check one seal with its entries, beginning with the given one, and return the entry behind them."""
    seal_hash = SealHash(seal.previous_hash, seal.number, seal.sealed_at, seal.event_count)
    count, last_event_id = 0, 0
    while entry is not None and entry.seal_number <= seal.number:
        if entry.seal_number < seal.number:
            raise _Broken(f"Event {entry.event_id} is entered under seal {entry.seal_number}, which is not there.")
        seal_hash.add(_checked_leaf(seal.number, entry, count, last_event_id))
        count, last_event_id = count + 1, entry.event_id
        report.event_count += 1
        entry = await anext(entries, None)
    if count != seal.event_count:
        raise _Broken(f"Seal {seal.number} was made over {seal.event_count} events, but {count} are entered under it.")
    if seal_hash.hexdigest() != seal.hash:
        raise _Broken(f"Seal {seal.number} does not match what it was made over: the seal or its entries were changed.")
    return entry


def _checked_leaf(seal_number: int, entry: AnyRow, position: int, last_event_id: int) -> str:
    place = f"under seal {seal_number} at position {position}"
    if entry.position != position:
        raise _Broken(f"The entry {place} is missing; the next one is event {entry.event_id} at {entry.position}.")
    if entry.event_id <= last_event_id:
        raise _Broken(f"Event {entry.event_id}, {place}, is out of order: it follows event {last_event_id}.")
    event = entry[_ENTRY_COLUMNS:]
    if all(value is None for value in event):
        raise _Broken(f"Event {entry.event_id}, {place}, was deleted.")
    leaf = leaf_hash(event)
    if leaf != entry.leaf_hash:
        raise _Broken(f"Event {entry.event_id}, {place}, was changed: it does not match its leaf hash.")
    return leaf


async def _check_anchors(
    session: AsyncSession, last_number: int, anchor_lines: Iterable[str], report: AuditReport
) -> None:
    anchors = read_anchors(anchor_lines)
    while batch := list(itertools.islice(anchors, queries.BATCH_ROWS)):
        hashes = await queries.map_seal_hashes(session, sorted({anchor.number for anchor in batch}))
        for anchor in batch:
            _check_anchor(anchor, hashes.get(anchor.number), last_number)
            report.anchor_count += 1


def _check_anchor(anchor: Anchor, found: str | None, last_number: int) -> None:
    if found is None:
        raise _Broken(
            f"Seal {anchor.number} was anchored but is not there; the seals end at {last_number}: the tail was cut."
        )
    if found != anchor.hash:
        raise _Broken(f"Seal {anchor.number} is not the one that was anchored: the chain was written anew.")
