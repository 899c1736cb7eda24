"""The whole move, step by step, so that nothing acknowledged can be left behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from quill.actor import Actor
from quill.adapters.home import AnotherMove, Place, Store, begin_move, end_move, move_home, renew_move
from quill.audit import service as audit
from quill.audit.service import Act
from quill.copying.fhir import copy_fhir
from quill.copying.openehr import copy_openehr, names_of_systems
from quill.copying.reports import Report, Trouble
from quill.copying.sides import Sides
from quill.errors import QuillError
from quill.intents import service as intents
from quill.kit import clock, ids
from quill.kit.turns import end_tasks
from quill.patients import reprojecting
from quill.unit import RequestFacts, Services, nothing_moves, open_unit

RENEW_SECONDS = 8.0
"""How often clinical writes are held up anew: several times within the lease."""
DRAIN_SECONDS = 240.0
"""How long is waited for writes under way: longer than one that lost its process waits for the sweep."""
TURN_SECONDS = 0.2

ACTOR = "copy-clinical"


class NotMoved(Exception):
    """The records could not be moved; nothing is lost, and the same command may be run again."""


class Listener(Protocol):
    """Is told what a move is at."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Note how far a step is."""
        ...

    def note(self, sentence: str) -> None:
        """Note something the operator should read."""
        ...

    def finished(self, what: str, report: Report) -> None:
        """Note that all records were gone over once."""
        ...


@dataclass(frozen=True, slots=True)
class Move:
    """What is moved.

    Attributes:
        sides: from where, and to where.
        place: where the records live afterwards.
        kinds: what a sweep knows how to finish.
    """

    sides: Sides
    place: Place
    kinds: Mapping[str, intents.Kind]

    @property
    def stores(self) -> Sequence[Store]:
        """Return which stores are moved."""
        pairs: dict[Store, object] = {"fhir": self.sides.fhir, "openehr": self.sides.openehr}
        return [name for name, pair in pairs.items() if pair is not None]


async def verify(services: Services, move: Move, listener: Listener) -> Report:
    """Compare both sides and change nothing.

    Raises:
        Unavailable: 503 or 502, a store does not answer.
    """
    await _audit(services, move, "verify")
    return await _walk(move, listener, "Compared", writes=False)


async def copy(services: Services, move: Move, listener: Listener) -> Report:
    """Copy everything, compare, and write down that the records live at the target from now on.

    Returns:
        What the comparison found; the records have been moved when it has no troubles.

    Raises:
        NotMoved: something else kept them from being moved.
        Unavailable: 503 or 502, a store does not answer.
    """
    await _audit(services, move, "begin")
    try:
        report = await _copy(services, move, listener)
    except (QuillError, NotMoved) as error:
        await _audit(services, move, "end", error.code if isinstance(error, QuillError) else "not_moved")
        raise
    await _audit(services, move, "end", "differences" if report.troubles else "")
    return report


async def _copy(services: Services, move: Move, listener: Listener) -> Report:
    await _name_systems(move, listener)
    report = await _walk(move, listener, "Copied", writes=True)
    if report.troubles:
        return report
    async with _writes_held_up(services) as mover:
        await _finish_writes(services, move, listener)
        last = await _walk(move, listener, "Copied what was added meanwhile", writes=True)
        # A walk that found nothing left to copy has compared everything.
        is_done = last.troubles or not last.copied
        found = last if is_done else await _walk(move, listener, "Compared", writes=False)
        if found.troubles:
            return found
        if move.sides.fhir is not None:
            listener.progress("Bringing the patient list up to date", 0, None)
            await reprojecting.reproject(services, move.sides.fhir[1].reading)
        async with services.database.writing() as session:
            if not await renew_move(session, mover):
                raise NotMoved("This took so long to go on that clinical writes may have been let through.")
            for store in move.stores:
                await move_home(session, store, move.place)
            await end_move(session, mover)
    return found


async def _walk(move: Move, listener: Listener, what: str, *, writes: bool) -> Report:
    report = Report()
    if move.sides.fhir is not None:
        report += await copy_fhir(move.sides.fhir, listener.progress, writes=writes)
    # Letters last: their health records name patients, who should be there.
    if move.sides.openehr is not None:
        report += await copy_openehr(move.sides.openehr, listener.progress, writes=writes)
    report.troubles.sort(key=_by_record)
    listener.finished(what, report)
    return report


def _by_record(trouble: Trouble) -> str:
    return trouble.record


async def _name_systems(move: Move, listener: Listener) -> None:
    names = await names_of_systems(move.sides.openehr) if move.sides.openehr is not None else None
    if names is not None and names[0] != names[1]:
        before, after = names
        listener.note(
            f"Version uids of letters read …::{before}::n here and will read …::{after}::n there. Those noted so far "
            f"stay good as long as QUILL_OPENEHR_FORMER_SYSTEMS names {before}."
        )


@contextlib.asynccontextmanager
async def _writes_held_up(services: Services) -> AsyncIterator[str]:
    """Hold new clinical writes up until the block ends; whoever is killed within holds them up half a minute more."""
    mover = ids.new_uuid()
    await _begin(services, mover)
    renewing = asyncio.create_task(_renew_for_ever(services, mover))
    try:
        yield mover
    finally:
        await end_tasks([renewing])
        async with services.database.writing() as session:
            await end_move(session, mover)


async def _begin(services: Services, mover: str) -> None:
    until = clock.monotonic_seconds() + DRAIN_SECONDS
    while True:
        try:
            async with services.database.writing() as session:
                return await begin_move(session, mover)
        except AnotherMove:
            # Most likely the one that was killed and is now started again.
            if clock.monotonic_seconds() > until:
                raise NotMoved("Another copy is under way.") from None
        await asyncio.sleep(TURN_SECONDS)


async def _renew_for_ever(services: Services, mover: str) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        async with services.database.writing() as session:
            await renew_move(session, mover)


async def _finish_writes(services: Services, move: Move, listener: Listener) -> None:
    """Return when no clinical write is under way any more; those nobody is at are finished here."""
    until = clock.monotonic_seconds() + DRAIN_SECONDS
    own = replace(services, refuse_moved=nothing_moves)
    while count := await _count_open(services):
        listener.progress("Waiting for writes under way", 0, count)
        await intents.sweep(own, move.kinds)
        if clock.monotonic_seconds() > until:
            raise NotMoved(f"{count} clinical writes under way could not be finished; does the store answer?")
        await asyncio.sleep(TURN_SECONDS)


async def _count_open(services: Services) -> int:
    async with services.database.reading() as session:
        count, _ = await intents.count_open(session)
        return count


async def _audit(services: Services, move: Move, step: str, reason: str = "") -> None:
    """Leave a durable row about what is exported; the first one before anything is."""
    subject = f"{step}:{'+'.join(move.stores)}:to-{move.place}"
    async with open_unit(services, RequestFacts(f"cli-{ACTOR}", "command-line")) as unit:
        if reason:
            audit.record_failure(unit, Actor.job(ACTOR), Act.EXPORT_COPY, reason=reason, subject=subject)
        else:
            audit.record(unit, Actor.job(ACTOR), Act.EXPORT_COPY, subject=subject)
