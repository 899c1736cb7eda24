"""The sealer: puts unsealed events under a seal every second, and anchors the seals outside the database.

Writing an event takes no lock on the chain; sealing comes after. What somebody changes in that second leaves no trace,
what is changed later does. Several workers may seal at once: the number of the seal and the id of the event are primary
keys, so one of them wins and the others try again at their next turn.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from quill.audit import queries
from quill.audit.anchors import Anchor, append_anchors, last_anchor_number
from quill.audit.chain import EVENT_COLUMNS, GENESIS, SealHash, leaf_hash
from quill.audit.models import AuditSeal, AuditSealEntry
from quill.audit.queries import AnyRow
from quill.kit import clock
from quill.kit.database import Database
from quill.kit.logs import where
from quill.kit.turns import finish_turn

SEAL_EVENTS = 1000
"""Events under one seal at most, so that the transaction holds nobody up for long."""

AT_ONCE = 100
"""Events read, hashed or written without a pause, in which requests are answered: 2 ms of work."""

OVERLAP_EVENTS = 5000
"""How many ids behind the newest one a turn looks at again.

On PostgreSQL an id is taken before its transaction commits, so a lower id may turn up after a higher one was sealed.
Audit rows are the last thing written before a commit, so such a row is milliseconds late; this many are seconds at the
highest rate we know. One that is later still is found when a worker starts, which looks at everything.
"""

SHUTDOWN_SECONDS = 10
"""How long the last sealing may take when the program ends."""

_log = structlog.get_logger(__name__)

_INSERT_ENTRY = sa.insert(cast("sa.Table", AuditSealEntry.__table__))
"""Into the core table: through the mapper each row would cost several times as much."""

_ID = EVENT_COLUMNS.index("id")


class AnchorsAhead(RuntimeError):
    """The anchors name a seal that the database does not hold: its tail was cut, or an older copy was restored."""


class Sealer:
    """Seals what is unsealed, remembering how far it has seen everything sealed.

    Args:
        database: where the trail is.
        anchor_file: where seals are anchored; nowhere when ``None``.
    """

    def __init__(self, database: Database, anchor_file: Path | None = None) -> None:
        self._database = database
        self._anchor_file = anchor_file
        self._sealed_up_to = 0

    async def seal_pending(self) -> int:
        """Seal what is unsealed, a seal for every 1,000 events, and anchor every seal that is not anchored yet.

        Returns:
            How many events this call sealed; fewer than there were when another worker was faster.

        Raises:
            AnchorsAhead: the anchor file knows newer seals than the database. The events were sealed all the same.
            AnchorsUnreadable: the anchor file holds something else. The events were sealed all the same.
            OSError: the anchor file cannot be read or written. The events were sealed all the same.
        """
        sealed = await self._seal_all()
        if self._anchor_file is not None:
            await self._anchor(self._anchor_file)
        return sealed

    async def _seal_all(self) -> int:
        sealed, after_id = 0, self._sealed_up_to
        async with self._database.reading() as session:
            newest_id = await queries.get_last_event_id(session)
        while True:
            events, leaves = await self._next_events(after_id)
            if not events:
                break
            if not await self._write_seal(events, leaves):
                return sealed
            sealed += len(events)
            after_id = events[-1][_ID]
            if len(events) < SEAL_EVENTS:
                break
        self._sealed_up_to = max(self._sealed_up_to, newest_id - OVERLAP_EVENTS)
        return sealed

    async def _next_events(self, after_id: int) -> tuple[list[AnyRow], list[str]]:
        """Return the next unsealed events, as many as a seal takes, and their hashes."""
        events: list[AnyRow] = []
        leaves: list[str] = []
        async with self._database.reading() as session:
            while len(events) < SEAL_EVENTS:
                some = await queries.list_unsealed_events(session, after_id, AT_ONCE)
                events += some
                leaves += map(leaf_hash, some)
                if len(some) < AT_ONCE:
                    break
                after_id = some[-1][_ID]
        return events, leaves

    async def _write_seal(self, events: Sequence[AnyRow], leaves: Sequence[str]) -> bool:
        try:
            async with self._database.writing() as session:
                last = await queries.find_last_seal(session)
                number = last.number + 1 if last else 1
                previous_hash = last.hash if last else GENESIS
                sealed_at = clock.now()
                seal_hash = SealHash(previous_hash, number, sealed_at, len(leaves))
                for leaf in leaves:
                    seal_hash.add(leaf)
                await session.execute(
                    sa.insert(AuditSeal).values(
                        number=number,
                        sealed_at=sealed_at,
                        event_count=len(leaves),
                        previous_hash=previous_hash,
                        hash=seal_hash.hexdigest(),
                    )
                )
                entries = [
                    {"event_id": event[_ID], "seal_number": number, "position": position, "leaf_hash": leaf}
                    for position, (event, leaf) in enumerate(zip(events, leaves, strict=True))
                ]
                # SQLite takes them in a thread of its own, where pausing would only keep other writers waiting.
                step = len(entries) if self._database.is_sqlite else AT_ONCE
                for start in range(0, len(entries), step):
                    await session.execute(_INSERT_ENTRY, entries[start : start + step])
        except sa.exc.IntegrityError:
            # Another worker took the number or some of the events; what is left is there at the next turn.
            _log.debug("audit_seal_lost_to_another_worker")
            return False
        return True

    async def _anchor(self, anchor_file: Path) -> None:
        # The file is read before the database: the other way round, a seal another worker anchors in between would
        # look like one the database has lost.
        anchored = await anyio.to_thread.run_sync(last_anchor_number, anchor_file)
        async with self._database.reading() as session:
            last = await queries.find_last_seal(session)
            newest = last.number if last else 0
            if newest < anchored:
                raise AnchorsAhead(f"The anchors go up to seal {anchored}, the database only to seal {newest}.")
            if newest == anchored:
                return
            anchors: list[Anchor] = []
            async for seal in queries.stream_seals(session, anchored, newest):
                anchors.append(Anchor(seal.number, seal.hash, _text(seal.sealed_at)))
                if len(anchors) == queries.BATCH_ROWS:
                    await anyio.to_thread.run_sync(append_anchors, anchor_file, anchors)
                    anchors = []
        if anchors:
            await anyio.to_thread.run_sync(append_anchors, anchor_file, anchors)


@dataclass(frozen=True, slots=True)
class SealingState:
    """How far the sealing has come.

    Attributes:
        unsealed: events no seal holds yet, among the newest and those the sealer still looks at.
        sealed_at: when the newest seal was made; ``None`` before the first.
    """

    unsealed: int
    sealed_at: datetime.datetime | None


async def sealing_state(session: AsyncSession) -> SealingState:
    """Return how far the sealing has come, without a walk through the whole trail."""
    last_id = await queries.get_last_sealed_event_id(session)
    unsealed = await queries.count_unsealed_after(session, max(0, last_id - OVERLAP_EVENTS))
    return SealingState(unsealed, await queries.get_last_sealed_at(session))


async def seal_pending(database: Database, anchor_file: Path | None = None) -> int:
    """Seal what is unsealed, once, looking at the whole table; raises what :meth:`Sealer.seal_pending` raises.

    Returns:
        How many events this call sealed.
    """
    return await Sealer(database, anchor_file).seal_pending()


async def run_sealer(database: Database, anchor_file: Path | None, interval_seconds: float = 1.0) -> None:
    """Seal until cancelled, and once more then.

    Trouble is logged and tried again at the next turn: events stay unsealed meanwhile, none is lost.

    Args:
        database: where the trail is.
        anchor_file: where seals are anchored; nowhere when ``None``.
        interval_seconds: from the end of one turn to the next.
    """
    sealer = Sealer(database, anchor_file)
    try:
        while True:
            await anyio.sleep(interval_seconds)
            await finish_turn(_seal_or_log(sealer))
    finally:
        with anyio.move_on_after(SHUTDOWN_SECONDS, shield=True) as scope:
            await _seal_or_log(sealer)
        if scope.cancelled_caught:
            _log.warning("audit_last_sealing_timed_out", seconds=SHUTDOWN_SECONDS)


async def _seal_or_log(sealer: Sealer) -> None:
    try:
        await sealer.seal_pending()
    except Exception as error:  # noqa: BLE001 - the sealer must outlive whatever a database or a disk can do
        _log.error("audit_sealing_failed", where=where(error))


def _text(sealed_at: object) -> str:
    return clock.rfc3339(sealed_at) if isinstance(sealed_at, datetime.datetime) else "unreadable"
