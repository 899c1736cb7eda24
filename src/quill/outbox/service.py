"""What other slices call: put a mail or a notification in the queue, tell live listeners."""

import datetime
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit import clock, ids
from quill.kit.database import Database
from quill.kit.documents import Document, dumps, loads
from quill.kit.ids import ConversationId, PatientId, UserId
from quill.outbox import queries, templates
from quill.outbox.payloads import Payloads
from quill.settings import Settings
from quill.unit import Unit

WORK = "outbox"
"""Signal that there is something to deliver."""
LIVE = "live"
"""Signal that there is a live event."""

PUSH_MAXIMUM_AGE = datetime.timedelta(hours=6)
"""News of a message is old by then: the person has looked, or will be told by the next one."""

Channel = Literal["mail", "push"]
EventKind = Literal["message", "read", "status", "letter"]


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """Something that happened, for whoever is looking and may see it.

    Attributes:
        kind: what happened: a new message, a read marker moved, a conversation changed status, a letter was written.
        patient_id: whom it is about.
        conversation_id: where; ``None`` for a letter.
        facts: further ids only, such as ``message_id`` or ``composition_uid``; sent as they are, so never a text.
    """

    kind: EventKind
    patient_id: PatientId
    conversation_id: ConversationId | None = None
    facts: dict[str, str] = field(default_factory=dict)


async def enqueue_mail(unit: Unit, *, to: str, template: str, facts: dict[str, str]) -> None:
    """Put a mail in the queue; it goes out soon after the unit is committed, and not at all when it is not.

    Args:
        unit: the transaction.
        to: one address.
        template: ``password-reset`` (facts ``link``, optional ``lifetime`` such as "30 minutes"), ``password-changed``
            and ``password-was-reset`` (no facts), or ``invite`` (facts ``link``, optional ``lifetime``).
        facts: what the template needs; never patient data.

    Raises:
        ValueError: no such template, or its facts are not complete.
    """
    templates.check(template, facts)
    payload: Document = {"to": to, "template": template, "facts": facts}
    row = _entry_row(Payloads(unit.settings), "mail", payload, templates.maximum_age(template))
    unit.add_last(queries.INSERT_ENTRY, row)
    unit.after_commit(_waker(unit, WORK))


async def enqueue_push(unit: Unit, *, user_ids: Sequence[UserId], kind: str, facts: dict[str, str]) -> None:
    """Put a notification to every device of some people in the queue; whether they may know is asked at delivery.

    Args:
        unit: the transaction.
        user_ids: whom; a person without a device costs nothing.
        kind: ``message`` (facts ``conversation_id``).
        facts: ids only.

    Raises:
        ValueError: no such kind, or its facts are not complete.
    """
    templates.check_notification(kind, facts)
    if not user_ids:
        return
    payload: Document = {"user_ids": sorted(set(user_ids)), "kind": kind, "facts": facts}
    unit.add_last(queries.INSERT_ENTRY, _entry_row(Payloads(unit.settings), "push", payload, PUSH_MAXIMUM_AGE))
    unit.after_commit(_waker(unit, WORK))


async def publish(unit: Unit, event: LiveEvent) -> None:
    """Tell live listeners once the unit is committed, and keep the event for those who come back soon.

    It waits for nobody: units that publish commit side by side, and the events are put in order afterwards.
    """
    row = {
        "kind": event.kind,
        "patient_id": event.patient_id,
        "conversation_id": event.conversation_id,
        "facts": dumps(event.facts),
        "created_at": clock.now(),
    }
    is_only_writer = unit.services.database.is_sqlite
    unit.add_last(queries.INSERT_NUMBERED_EVENT if is_only_writer else queries.INSERT_EVENT, row)
    unit.after_commit(_waker(unit, LIVE))


def is_mail_configured(settings: Settings) -> bool:
    """Tell whether mail goes out; when not, a link may be returned to an admin where that is safe."""
    return settings.smtp_url is not None


async def insert_entry(
    session: AsyncSession, payloads: Payloads, channel: Channel, payload: Document, maximum_age: datetime.timedelta
) -> None:
    """Add an entry to a session's transaction; for the worker."""
    await session.execute(queries.INSERT_ENTRY, _entry_row(payloads, channel, payload, maximum_age))


def _entry_row(
    payloads: Payloads, channel: Channel, payload: Document, maximum_age: datetime.timedelta
) -> dict[str, Any]:
    now, entry_id = clock.now(), ids.new_uuid()
    return {
        "id": entry_id,
        "channel": channel,
        "payload": payloads.kept(channel, entry_id, payload),
        "state": "pending",
        "attempts": 0,
        "next_attempt_at": now,
        "give_up_at": now + maximum_age,
        "created_at": now,
    }


def _waker(unit: Unit, name: str) -> Callable[[], Awaitable[None]]:
    signals = unit.services.signals

    async def wake() -> None:
        signals.notify(name)

    return wake


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a channel has not delivered.

    Attributes:
        channel: ``mail`` or ``push``.
        pending: entries that wait or are under way.
        failed: entries given up in the last thirty days.
        oldest_at: since when the oldest one waits; ``None`` when none does.
    """

    channel: str
    pending: int = 0
    failed: int = 0
    oldest_at: datetime.datetime | None = None


async def list_backlogs(session: AsyncSession) -> list[Backlog]:
    """Return what each channel has not delivered."""
    backlogs = {channel: Backlog(channel) for channel in get_args(Channel)}
    for row in await queries.backlog(session):
        known = backlogs[row.channel]
        if row.state == "pending":
            backlogs[row.channel] = replace(known, pending=row.entries, oldest_at=row.oldest_at)
        else:
            backlogs[row.channel] = replace(known, failed=row.entries)
    return list(backlogs.values())


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """A live event with the number that listeners resume after."""

    number: int
    event: LiveEvent


async def number_events(database: Database) -> None:
    """Number the live events that became visible since the last time, so that they can be listed; by any process.

    Numbering is what puts events in order, one process at a time, many events at once: who publishes does not wait
    for it. A process that dies in between leaves it to the next.
    """
    if database.is_sqlite:
        return
    async with database.reading() as session:
        if not await queries.has_unnumbered(session):
            return
    async with database.writing() as session:
        await queries.lock_numbering(session)
        await session.execute(queries.number_visible())


async def list_events(session: AsyncSession, last_number: int, limit: int) -> list[KeptEvent]:
    """Return the live events after one, oldest first."""
    return [
        KeptEvent(
            number=row.number,
            event=LiveEvent(
                kind=row.kind,
                patient_id=PatientId(row.patient_id),
                conversation_id=None if row.conversation_id is None else ConversationId(row.conversation_id),
                facts=loads(row.facts),
            ),
        )
        for row in await queries.events_after(session, last_number, limit)
    ]


async def event_bounds(session: AsyncSession) -> tuple[int, int]:
    """Return the numbers of the oldest and newest live event kept; zeros when there never was one."""
    return await queries.event_bounds(session)
