"""Finishing the intents whose owner is gone: after a crash, or after a store did not answer."""

import dataclasses
import datetime
from collections.abc import Mapping

import structlog

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import Unavailable
from quill.intents import queries, steps
from quill.intents.kind import Kind
from quill.intents.models import Intent
from quill.intents.steps import ONLY_IF_LANDED, Hold
from quill.kit import clock
from quill.kit.documents import loads
from quill.kit.ids import LoginId, UserId
from quill.kit.logs import where
from quill.unit import RequestFacts, Services, Unit, open_unit

BATCH = 50
KEPT_DAYS = 7
"""How long a closed intent answers a repeated idempotency key."""
GIVE_UP_AFTER = datetime.timedelta(days=1)
"""When an intent nobody can finish, for another reason than a store that does not answer, is closed for good."""

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class _Orphan:
    """An open intent a sweep took."""

    hold: Hold
    kind: str
    actor: Actor
    may_write: bool
    created_at: datetime.datetime

    @property
    def facts(self) -> RequestFacts:
        return RequestFacts(request_id=f"sweep-{self.hold.intent_id}", source="sweep")


async def sweep(services: Services, kinds: Mapping[str, Kind]) -> int:
    """Finish the intents whose owner is gone; called at start and every few seconds, by every worker.

    Returns:
        How many were closed, well or not. Those whose store does not answer wait for a later sweep.
    """
    closed_before = clock.now() - datetime.timedelta(days=KEPT_DAYS)
    async with services.database.reading() as session:
        # Nearly always there is nothing to do, and finding that out must not stop a writer.
        if not await queries.is_anything_due(session, clock.now(), closed_before):
            return 0
    async with services.database.writing() as session:
        await session.execute(queries.prune(closed_before))
    closed = 0
    for _ in range(BATCH):
        orphan = await _take_orphan(services)
        if orphan is None:
            break
        closed += await _finish(services, kinds, orphan)
    return closed


async def _take_orphan(services: Services) -> _Orphan | None:
    """Take the intent that has waited longest; one at a time, so that no lease runs out while it waits for its turn."""
    async with open_unit(services, RequestFacts(request_id="sweep", source="sweep")) as unit:
        # A process still on the old store would look there, find nothing, and give up what arrived in the new one.
        await services.refuse_moved(unit.session)
        intent = await queries.lock_expired(unit.session, clock.now())
        if intent is None:
            return None
        may_write = intent.reason != ONLY_IF_LANDED
        hold = await steps.take(unit, intent)
        return _Orphan(hold, intent.kind, _actor_of(intent), may_write, intent.created_at)


async def _finish(services: Services, kinds: Mapping[str, Kind], orphan: _Orphan) -> bool:
    intent_id = orphan.hold.intent_id
    try:
        async with open_unit(services, orphan.facts) as unit:
            return await _finish_in(unit, kinds[orphan.kind], orphan)
    except Exception as error:  # noqa: BLE001 - one intent that cannot be finished must not keep the others waiting
        log.warning("intent_not_finished", intent=intent_id, reason=steps.reason_of(error), cause=where(error))
        if not _is_hopeless(error, orphan):
            return False
        reason = steps.reason_of(error)
    async with open_unit(services, orphan.facts) as unit:
        return await _give_up(unit, orphan, "refused", reason)


async def _finish_in(unit: Unit, kind: Kind, orphan: _Orphan) -> bool:
    hold = orphan.hold
    if orphan.may_write:
        payload = await steps.write(unit, kind, hold)
    elif landed := await kind.has_landed(unit, hold.payload):
        payload = steps.with_written(hold.payload, landed)
    else:
        return await _give_up(unit, orphan, "abandoned", "never_arrived")
    audit.record(unit, orphan.actor, Act.INTENT_SWEEP, subject=f"intent:{hold.intent_id}")
    await steps.project_and_close(unit, orphan.actor, kind, hold, payload)
    return True


async def _give_up(unit: Unit, orphan: _Orphan, state: str, reason: str) -> bool:
    is_closed = await steps.close(unit, orphan.hold, state, reason=reason)
    if is_closed:
        subject = f"intent:{orphan.hold.intent_id}"
        audit.record_failure(unit, orphan.actor, Act.INTENT_REFUSE, reason=reason, subject=subject)
    return is_closed


def _is_hopeless(error: Exception, orphan: _Orphan) -> bool:
    if isinstance(error, Unavailable) and error.status == 503:
        return False
    return steps.is_refusal(error) or clock.now() - orphan.created_at > GIVE_UP_AFTER


def _actor_of(intent: Intent) -> Actor:
    kept = loads(intent.actor)
    return Actor(
        user_id=UserId(kept["user_id"]) if kept["user_id"] is not None else None,
        name=kept["name"],
        display_name=kept["display_name"],
        level=Level.PATIENT,
        login_id=LoginId(kept["login_id"]) if kept["login_id"] is not None else None,
    )
