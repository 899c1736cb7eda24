"""The one way a clinical record is written.

1. Record the intent: what is to be written, under which ids, by whom, under which idempotency key.
2. Write the record to its store, under the ids minted in 1, so that repeating it is harmless.
3. Project it into SQL and close the intent, in one transaction. Only then is the caller answered.

A store that shares our transaction (embedded) does all three in that one transaction, and nothing half-done can be
left. A remote store is called with no transaction open; if the process dies in between, ``sweep`` finishes the work.
"""

import dataclasses
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import IntegrityError

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import IdempotencyKeyReused, QuillError, RequestInProgress, Unavailable
from quill.intents import queries
from quill.intents.models import Intent, IntentClaim
from quill.kit import clock, ids
from quill.kit.documents import Document, dumps, loads
from quill.kit.ids import UserId
from quill.kit.logs import where
from quill.unit import RequestFacts, Services, Unit, open_unit

LEASE_SECONDS = 60
"""Longer than any call to a store may take with its deadline, so a live owner is never taken for dead."""
SWEEP_BATCH = 50
KEPT_DAYS = 7
"""How long a closed intent answers a repeated idempotency key."""

log = structlog.get_logger()


class Kind(Protocol):
    """What writing and projecting mean for one kind of record; a slice provides one per kind."""

    @property
    def name(self) -> str:
        """Return the stable name kept with the intent."""
        ...

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the store this kind writes to shares the unit's transaction."""
        ...

    async def write(self, unit: Unit, payload: Document) -> None:
        """Write the record to its store under the ids in the payload; repeating it must be harmless."""
        ...

    async def has_landed(self, unit: Unit, payload: Document) -> bool:
        """Tell, by reading the store, whether a write whose answer was lost arrived."""
        ...

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Bring SQL up to date with the record; returns the ids the caller is to be answered with."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """A clinical write somebody asks for.

    Attributes:
        kind: what kind of record.
        payload: everything needed to write and project it, minted ids included.
        claims: names no other open intent may hold meanwhile, such as ``patient:…``.
        idempotency_key: the caller's own key, if any.
        fingerprint: ``fingerprint`` of what the caller sent; the same key with another one is refused.
    """

    kind: Kind
    payload: Document
    claims: Sequence[str] = ()
    idempotency_key: str | None = None
    fingerprint: str = ""


def fingerprint(*parts: object) -> str:
    """Return a digest of what a caller sent, to tell a repeated call from a different one."""
    return hashlib.sha256(dumps(list(parts)).encode()).hexdigest()


async def find_result(unit: Unit, actor: Actor, idempotency_key: str | None, digest: str) -> Document | None:
    """Return the result of an earlier call with this key, or ``None`` when this is the first.

    Call it before anything is decided, so that a repeated call is answered and not judged again.

    Raises:
        IdempotencyKeyReused: 409, the key was used for something else.
        RequestInProgress: 409, the first call is still under way.
    """
    if idempotency_key is None:
        return None
    earlier = await queries.by_key(unit.session, _owner_key(actor), idempotency_key)
    if earlier is None:
        return None
    if earlier.fingerprint != digest:
        raise IdempotencyKeyReused
    if earlier.state == "pending":
        raise RequestInProgress
    if earlier.state == "done" and earlier.result is not None:
        return loads(earlier.result)
    # It was refused or given up: nothing of it is there, so the key is free again.
    await unit.session.delete(earlier)
    await unit.session.flush()
    return None


async def perform(unit: Unit, actor: Actor, wish: Wish) -> Document:
    """Write a clinical record and project it; what this returns is durable once the unit is committed.

    Returns:
        What the kind's ``project`` returned.

    Raises:
        RequestInProgress: 409, another open intent holds one of the claims or the idempotency key.
        Unavailable: 503 or 502, the store did not take it; nothing is shown of it.
        QuillError: whatever the store refuses the record for.
    """
    if wish.kind.joins_transaction(unit):
        return await _perform_in_transaction(unit, actor, wish)
    intent_id = await _announce(unit, actor, wish)
    await unit.checkpoint()
    try:
        await wish.kind.write(unit, wish.payload)
    except Unavailable as error:
        await _settle_failure(unit, intent_id, error, may_have_landed=error.status == 503)
        raise
    except QuillError as error:
        await _settle_failure(unit, intent_id, error, may_have_landed=False)
        raise
    return await _project_and_close(unit, actor, wish.kind, intent_id, wish.payload)


async def _perform_in_transaction(unit: Unit, actor: Actor, wish: Wish) -> Document:
    intent_id = await _announce(unit, actor, wish) if wish.idempotency_key is not None else None
    await wish.kind.write(unit, wish.payload)
    result = await wish.kind.project(unit, actor, wish.payload)
    if intent_id is not None:
        await _close(unit, intent_id, "done", result=result)
    return result


async def _announce(unit: Unit, actor: Actor, wish: Wish) -> str:
    now = clock.now()
    intent_id = ids.new_uuid()
    intent = Intent(
        id=intent_id,
        kind=wish.kind.name,
        state="pending",
        actor=dumps({"user_id": actor.user_id, "name": actor.name, "display_name": actor.display_name}),
        payload=dumps(wish.payload),
        owner_key=_owner_key(actor),
        idempotency_key=wish.idempotency_key,
        fingerprint=wish.fingerprint,
        attempts=1,
        lease_until=now + datetime.timedelta(seconds=LEASE_SECONDS),
        created_at=now,
    )
    try:
        async with unit.session.begin_nested():
            unit.session.add(intent)
            await unit.session.flush()
            unit.session.add_all(IntentClaim(name=name, intent_id=intent_id) for name in wish.claims)
    except IntegrityError as error:
        raise RequestInProgress from error
    return intent_id


async def _project_and_close(unit: Unit, actor: Actor, kind: Kind, intent_id: str, payload: Document) -> Document:
    intent = await queries.lock_intent(unit.session, intent_id)
    if intent is None or intent.state != "pending":
        # A sweep took it for orphaned and closed it first; whatever it did is durable already.
        if intent is not None and intent.state == "done" and intent.result is not None:
            return loads(intent.result)
        raise RequestInProgress
    result = await kind.project(unit, actor, payload)
    await _close(unit, intent_id, "done", result=result)
    return result


async def _settle_failure(unit: Unit, intent_id: str, error: QuillError, *, may_have_landed: bool) -> None:
    """Close an intent the store did not take; keep it open for the sweep when it may have arrived after all.

    The payload is marked so that the sweep finishes it only if it is there: nothing happens behind the back of a
    caller who was told that it failed.
    """
    if may_have_landed:
        await unit.session.execute(
            sa.update(Intent).where(Intent.id == intent_id).values(reason="only_if_landed", lease_until=clock.now())
        )
    else:
        await _close(unit, intent_id, "refused", reason=error.code)
    await unit.checkpoint()


async def _close(unit: Unit, intent_id: str, state: str, *, result: Document | None = None, reason: str = "") -> None:
    await unit.session.execute(sa.delete(IntentClaim).where(IntentClaim.intent_id == intent_id))
    await unit.session.execute(
        sa.update(Intent)
        .where(Intent.id == intent_id)
        .values(
            state=state,
            # The record is the copy that counts; a second one here would only be one more to protect.
            payload=None,
            result=dumps(result) if result is not None else None,
            reason=reason or None,
            closed_at=clock.now(),
        )
        .execution_options(synchronize_session=False)
    )


async def sweep(services: Services, kinds: Mapping[str, Kind]) -> int:
    """Finish the intents whose owner is gone; called at start and every few seconds.

    Returns:
        How many were closed, well or not. Those whose store does not answer wait for the next sweep.
    """
    now = clock.now()
    async with services.database.writing() as session:
        expired = await queries.lock_expired(session, now, SWEEP_BATCH)
        for intent in expired:
            intent.lease_until = now + datetime.timedelta(seconds=LEASE_SECONDS)
            intent.attempts += 1
        taken = [intent.id for intent in expired]
        await session.execute(
            sa.delete(Intent).where(
                Intent.state != "pending", Intent.closed_at < now - datetime.timedelta(days=KEPT_DAYS)
            )
        )
    closed = 0
    for intent_id in taken:
        closed += await _finish(services, kinds, intent_id)
    return closed


async def _finish(services: Services, kinds: Mapping[str, Kind], intent_id: str) -> bool:
    facts = RequestFacts(request_id=f"sweep-{intent_id[:8]}", source="sweep")
    try:
        async with open_unit(services, facts) as unit:
            intent = await unit.session.get(Intent, intent_id)
            if intent is None or intent.state != "pending" or intent.payload is None:
                return False
            kind, payload = kinds[intent.kind], loads(intent.payload)
            only_if_landed = intent.reason == "only_if_landed"
            actor = _actor_of(intent)
            await unit.checkpoint()
            if only_if_landed and not await kind.has_landed(unit, payload):
                await _close(unit, intent_id, "abandoned", reason="never_arrived")
                return True
            if not only_if_landed:
                await kind.write(unit, payload)
            await _project_and_close(unit, actor, kind, intent_id, payload)
            audit.record(unit, actor, Act.INTENT_SWEEP, subject=f"intent:{intent_id}")
            return True
    except Unavailable as error:
        if error.status == 503:
            log.warning("intent_waits", intent=intent_id, code=error.code)
            return False
        return await _refuse(services, intent_id, error)
    except QuillError as error:
        return await _refuse(services, intent_id, error)
    except Exception as error:  # noqa: BLE001 - one intent that cannot be finished must not keep the others waiting
        log.error("intent_stuck", intent=intent_id, cause=where(error))
        return False


async def _refuse(services: Services, intent_id: str, error: QuillError) -> bool:
    facts = RequestFacts(request_id=f"sweep-{intent_id[:8]}", source="sweep")
    async with open_unit(services, facts) as unit:
        await _close(unit, intent_id, "refused", reason=error.code)
    log.warning("intent_refused", intent=intent_id, code=error.code)
    return True


def _owner_key(actor: Actor) -> str:
    return f"user:{actor.user_id}" if actor.user_id is not None else actor.name[:64]


def _actor_of(intent: Intent) -> Actor:
    kept = loads(intent.actor)
    user_id = kept["user_id"]
    return Actor(
        user_id=UserId(user_id) if user_id is not None else None,
        name=kept["name"],
        display_name=kept["display_name"],
        level=Level.PATIENT,
    )
