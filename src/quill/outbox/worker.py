"""The worker that empties the queue.

It takes entries under a lease, several at once, delivers them side by side, and closes together what ends together.
Should it die, the lease runs out and another worker delivers: at least once, and never lost. It is woken by commits of
this process, and looks by itself every few seconds for those of others and for what is to be tried again.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import random
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit import clock
from quill.kit.crypto import CannotUnseal
from quill.kit.documents import Document
from quill.kit.logs import where
from quill.kit.together import Together
from quill.kit.turns import end_tasks, finish_turn
from quill.outbox import queries
from quill.outbox.delivery import Carrier, Settlement, Task
from quill.outbox.models import LiveEventRow, OutboxEntry
from quill.outbox.payloads import Payloads
from quill.outbox.service import WORK, Channel, insert_entry, number_events
from quill.ports.delivery import Delivery
from quill.unit import Services

LEASE = datetime.timedelta(seconds=90)
"""Longer than any delivery may take with its deadline, so a live worker is never taken for dead."""
SLOTS = 8
"""Deliveries side by side; few, because they share the machine with requests."""
LOOK_SECONDS = 3.0
GATHER_SECONDS = 0.05
"""How long it lets what is committed one after the other come together, to be taken and closed with one statement."""
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 1800.0
STOP_SECONDS = 5.0
"""How long deliveries under way may take to end when the program stops; the lease sees to the rest."""
TIDY_SECONDS = 300.0
SENT_KEPT = datetime.timedelta(days=7)
FAILED_KEPT = datetime.timedelta(days=30)
EVENTS_KEPT = datetime.timedelta(hours=6)
"""How long a browser may have been away and still be told what it missed."""

log = structlog.get_logger()

_spread = random.SystemRandom()


def pause_seconds(attempts: int) -> float:
    """Return how long to wait after so many attempts: twice as long each time, and never quite the same.

    The spread keeps what failed together from coming back together.
    """
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 20))
    return longest * _spread.uniform(0.5, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class _Taken:
    id: str
    channel: Channel
    payload: str
    attempts: int
    give_up_at: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class _End:
    """How an entry ends; those that ended alike are closed together."""

    attempts: int
    state: str
    reason: str | None


class Worker:
    """Delivers what is in the queue.

    Args:
        services: the database and the signals.
        carriers: who delivers what, by channel.
    """

    def __init__(self, services: Services, carriers: Mapping[Channel, Carrier]) -> None:
        self._database = services.database
        self._signals = services.signals
        self._carriers = carriers
        self._payloads = Payloads(services.settings)
        self._active: set[asyncio.Task[None]] = set()
        self._closing = Together("outbox-closing", self._close)
        self._is_stopping = False
        self._turn = asyncio.Lock()
        self._tidied_at = clock.monotonic_seconds()

    async def run(self) -> None:
        """Deliver until stopped; trouble with the database is waited out."""
        while not self._is_stopping:
            try:
                async with self._turn:
                    has_more = bool(await finish_turn(self._begin_some()))
                    await finish_turn(self._tidy_now_and_then())
            except Exception as error:  # noqa: BLE001 - the database may be away for a while; the worker outlives that
                log.warning("outbox_unreadable", cause=where(error))
                has_more = False
            if len(self._active) >= SLOTS:
                await asyncio.wait(self._active, return_when=asyncio.FIRST_COMPLETED)
            elif not has_more and not self._is_stopping:
                await self._rest()

    async def stop(self) -> None:
        """Take nothing more, and return when what is under way has ended or had its time."""
        self._is_stopping = True
        self._signals.notify(WORK)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                # What the turn of this moment takes is under way as well.
                async with self._turn:
                    pass
                if self._active:
                    await asyncio.wait(self._active)
        await end_tasks(self._active)
        await self._closing.finish()

    async def drain(self) -> int:
        """Deliver what is due now, what comes of it included; for commands and tests.

        Returns:
            How many attempts were made.
        """
        count = 0
        while taken := await self._take(SLOTS):
            await asyncio.gather(*(self._deliver(entry) for entry in taken))
            count += len(taken)
        return count

    async def tidy(self) -> None:
        """Forget what was delivered, given up or told long ago; the newest live event stays, since counting goes on."""
        now = clock.now()
        await number_events(self._database)
        async with self._database.writing() as session:
            _, newest = await queries.event_bounds(session)
            for state, age in (("sent", SENT_KEPT), ("failed", FAILED_KEPT)):
                is_old = sa.and_(OutboxEntry.state == state, OutboxEntry.closed_at < now - age)
                await session.execute(sa.delete(OutboxEntry).where(is_old))
            is_old_event = sa.and_(LiveEventRow.created_at < now - EVENTS_KEPT, LiveEventRow.number < newest)
            await session.execute(sa.delete(LiveEventRow).where(is_old_event))

    async def _rest(self) -> None:
        """Wait until there is something to deliver, and for what comes right after it."""
        if await self._signals.wait(WORK, LOOK_SECONDS):
            await asyncio.sleep(GATHER_SECONDS)

    async def _tidy_now_and_then(self) -> None:
        if clock.monotonic_seconds() - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = clock.monotonic_seconds()
            await self.tidy()

    async def _begin_some(self) -> bool:
        """Begin what is due, as far as there is room; tell whether there may be more."""
        room = SLOTS - len(self._active)
        taken = await self._take(room)
        for entry in taken:
            task = asyncio.create_task(self._deliver(entry), name="outbox-delivery")
            self._active.add(task)
            task.add_done_callback(self._active.discard)
        return len(taken) >= room

    async def _take(self, limit: int) -> list[_Taken]:
        now = clock.now()
        if limit < 1 or (self._database.is_sqlite and not await self._has_due(now)):
            return []
        async with self._database.one_statement() as session:
            rows = await queries.take_due(session, now, now + LEASE, limit)
        return [
            _Taken(row.id, _channel(row.channel), row.payload or "{}", row.attempts, row.give_up_at) for row in rows
        ]

    async def _has_due(self, now: datetime.datetime) -> bool:
        """Tell whether anything is to be taken; on SQLite, where looking for it to take it would stop every writer."""
        async with self._database.reading() as session:
            return await queries.has_due(session, now)

    async def _deliver(self, entry: _Taken) -> None:
        """Try once and note how it ended; should even that fail, the lease brings the entry back."""
        try:
            settlement = await self._attempt(entry)
            await self._settle(entry, settlement)
        except Exception as error:  # noqa: BLE001 - one entry must not end the worker; the lease brings it back
            log.error("outbox_unsettled", entry=entry.id, channel=entry.channel, cause=where(error))

    async def _attempt(self, entry: _Taken) -> Settlement:
        if clock.now() >= entry.give_up_at:
            return Settlement(Delivery.refused("too_old"))
        try:
            task = Task(entry.id, self._payloads.opened(entry.channel, entry.id, entry.payload), entry.attempts)
            return await self._carriers[entry.channel].deliver(task)
        except CannotUnseal:
            # The operator may bring the key back; until then it waits as long as it is worth sending.
            log.error("outbox_payload_unreadable", entry=entry.id, channel=entry.channel)
            return Settlement(Delivery.retry("cannot_unseal"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the entry waits and is tried again
            log.error("outbox_attempt_failed", entry=entry.id, channel=entry.channel, cause=where(error))
            return Settlement(Delivery.retry("unforeseen"))

    async def _settle(self, taken: _Taken, settlement: Settlement) -> None:
        delivery = settlement.delivery
        pause = max(pause_seconds(taken.attempts), float(delivery.retry_after_seconds or 0))
        again_at = clock.now() + datetime.timedelta(seconds=pause)
        state = "sent" if delivery.outcome == "delivered" else "failed"
        if delivery.outcome == "retry" and again_at < taken.give_up_at:
            state = "pending"
        end = _End(taken.attempts, state, delivery.reason[:60] or None)
        if state == "pending":
            is_ours = await self._leave(taken, end, again_at)
        elif settlement.follow_ups:
            is_ours = await self._follow_up(taken, end, settlement.follow_ups)
        else:
            is_ours = await self._closing.ask((taken.id, end))
        if is_ours and delivery.outcome != "delivered":
            log.warning(
                "outbox_not_delivered",
                entry=taken.id,
                channel=taken.channel,
                attempts=taken.attempts,
                state=state,
                reason=delivery.reason,
            )

    async def _leave(self, taken: _Taken, end: _End, again_at: datetime.datetime) -> bool:
        async with self._database.one_statement() as session:
            return await queries.try_again(session, taken.id, end.attempts, at=again_at, reason=end.reason)

    async def _follow_up(self, taken: _Taken, end: _End, follow_ups: Sequence[Document]) -> bool:
        """Close an entry and put in the queue what is to be delivered instead: both or neither."""
        async with self._database.writing() as session:
            if not await _closed(session, [taken.id], end):
                return False
            for payload in follow_ups:
                await insert_entry(session, self._payloads, taken.channel, payload, taken.give_up_at - clock.now())
        self._signals.notify(WORK)
        return True

    async def _close(self, ended: list[tuple[str, _End]]) -> list[bool | Exception]:
        """Close entries, those that ended alike with one statement; tell of each whether it was still ours."""
        alike: dict[_End, list[str]] = {}
        for entry_id, end in ended:
            alike.setdefault(end, []).append(entry_id)
        closed: set[str] = set()
        for end, entry_ids in alike.items():
            async with self._database.one_statement() as session:
                closed |= await _closed(session, entry_ids, end)
        return [entry_id in closed for entry_id, _ in ended]


async def _closed(session: AsyncSession, entry_ids: Collection[str], end: _End) -> set[str]:
    """Close entries and return which of them were still in our hands."""
    now = clock.now()
    return await queries.close(session, entry_ids, end.attempts, state=end.state, at=now, reason=end.reason)


def _channel(name: str) -> Channel:
    return "mail" if name == "mail" else "push"
