"""The one way a clinical record is written.

1. Record the intent: what is to be written, under which ids, by whom, under which idempotency key.
2. Write the record to its store, under the ids minted in 1, so that repeating it is harmless.
3. Project it into SQL and close the intent, in one transaction. Only then is the caller answered.

A store that shares our transaction (embedded) does all three in that one transaction, and nothing half-done can be
left. A remote store is called with no transaction open; if the process dies in between, ``sweep`` finishes the work.

A caller who was told that the store did not answer may call again with the same idempotency key: the call takes the
open intent over and writes under the ids it has, so that what arrived the first time is not there twice. For who does
not call again the sweep looks whether it arrived: nothing is written behind the back of somebody told that it failed.
"""

import dataclasses
import datetime
import hashlib
from collections.abc import Sequence

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.errors import IdempotencyKeyReused, RequestInProgress
from quill.intents import queries, steps
from quill.intents.kind import Kind
from quill.intents.models import Intent, IntentClaim
from quill.intents.steps import ONLY_IF_LANDED, Hold
from quill.intents.sweeping import sweep
from quill.kit import clock, ids
from quill.kit.documents import Document, dumps, loads
from quill.unit import Unit

SETTLE_SECONDS = 30
"""How long a store that timed out may still be at work; only then does its "not there" mean that it never arrived."""

__all__ = ["Kind", "Wish", "count_open", "defer", "find_result", "fingerprint", "perform", "sweep"]


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


async def count_open(session: AsyncSession) -> tuple[int, datetime.datetime | None]:
    """Return how many clinical writes are under way or left half-done, and since when the oldest one is."""
    return await queries.open_ones(session)


def fingerprint(*parts: object) -> str:
    """Return a digest of what a caller sent, to tell a repeated call from a different one.

    Args:
        parts: the name of the operation first, so that one key is not good for two of them; then path and body.
    """
    return hashlib.sha256(dumps(list(parts)).encode()).hexdigest()


async def find_result(unit: Unit, actor: Actor, idempotency_key: str | None, digest: str) -> Document | None:
    """Return the result of an earlier call with this key, or ``None`` when there is none and ``perform`` comes next.

    Call it before anything is decided, so that a repeated call is answered and not judged again. Keys belong to the
    caller: the same key of somebody else has nothing to do with it.

    Raises:
        IdempotencyKeyReused: 409, the key was used for something else.
        RequestInProgress: 409, the first call is still under way.
    """
    if idempotency_key is None:
        return None
    earlier = await queries.by_key(unit.session, _owner_key(actor), idempotency_key)
    if earlier is None:
        return None
    if earlier.state in {"refused", "abandoned"}:
        # Nothing of it is there, so the key is free again, even for something else.
        await unit.session.execute(queries.delete_closed(earlier.id))
        return None
    if earlier.fingerprint != digest:
        raise IdempotencyKeyReused
    if earlier.result is not None:
        return loads(earlier.result)
    if not _is_left_open(earlier):
        raise RequestInProgress
    return None


async def perform(unit: Unit, actor: Actor, wish: Wish) -> Document:
    """Write a clinical record and project it; what this returns is durable once the unit is committed.

    Returns:
        What the kind's ``project`` returned. The ids are those of the first call when this one took it over, and not
        those in this wish: answer from here.

    Raises:
        RequestInProgress: 409, another open intent holds one of the claims or the idempotency key.
        Unavailable: 503 or 502, the store did not take it; nothing is shown of it unless it arrived all the same. Or
            the records are just being moved to another store.
        QuillError: whatever the store refuses the record for.
    """
    kind, joins = wish.kind, wish.kind.joins_transaction(unit)
    await unit.services.refuse_moved(unit.session)
    if joins and wish.idempotency_key is None:
        payload = steps.with_written(wish.payload, await kind.write(unit, wish.payload))
        return await kind.project(unit, actor, payload)
    try:
        hold = await _take_over(unit, actor, wish) or await _announce(unit, actor, wish)
    except IntegrityError as error:
        # Somebody else was first by a moment: with the key, which may have its result by now, or with a claim.
        result = await find_result(unit, actor, wish.idempotency_key, wish.fingerprint)
        if result is None:
            raise RequestInProgress from error
        return result
    if joins:
        return await steps.project_and_close(unit, actor, kind, hold, await steps.write(unit, kind, hold))
    await unit.checkpoint()
    try:
        payload = await steps.write(unit, kind, hold)
    except Exception as error:
        await _settle_failure(unit, hold, error)
        raise
    return await steps.project_and_close(unit, actor, kind, hold, payload)


async def defer(unit: Unit, actor: Actor, wish: Wish) -> None:
    """Leave a write to the sweep, which begins it soon after the unit is committed and repeats it until it arrives.

    For what follows from a decision that must not wait for a store: the decision itself stands in this unit.
    """
    await _announce(unit, actor, wish, is_deferred=True)


async def _take_over(unit: Unit, actor: Actor, wish: Wish) -> Hold | None:
    """Return the intent an earlier call with this key left open, now in our hands; ``None`` when there is none."""
    if wish.idempotency_key is None:
        return None
    earlier = await queries.lock_by_key(unit.session, _owner_key(actor), wish.idempotency_key)
    if earlier is None or not _is_left_open(earlier):
        return None
    if earlier.fingerprint != wish.fingerprint or earlier.kind != wish.kind.name:
        raise IdempotencyKeyReused
    earlier.reason = None
    return await steps.take(unit, earlier)


async def _announce(unit: Unit, actor: Actor, wish: Wish, *, is_deferred: bool = False) -> Hold:
    intent_id = ids.new_uuid()
    intent = Intent(
        id=intent_id,
        kind=wish.kind.name,
        state="pending",
        actor=_actor_text(actor),
        payload=dumps(wish.payload),
        owner_key=_owner_key(actor),
        idempotency_key=wish.idempotency_key,
        fingerprint=wish.fingerprint,
        attempts=0 if is_deferred else 1,
        lease_until=clock.now() if is_deferred else steps.lease(),
        created_at=clock.now(),
    )
    async with unit.session.begin_nested():
        unit.session.add(intent)
        await unit.session.flush()
        unit.session.add_all(IntentClaim(name=name, intent_id=intent_id) for name in wish.claims)
    return Hold(intent_id, 1, wish.payload)


async def _settle_failure(unit: Unit, hold: Hold, error: Exception) -> None:
    """Close an intent the store refused; keep it open for a repeated call or the sweep when it may have arrived.

    A refusal counts when nothing was tried before: a repeated write may be refused because the first one arrived.
    """
    if steps.is_refusal(error) and hold.attempt == 1:
        await steps.close(unit, hold, "refused", reason=steps.reason_of(error))
    else:
        until = clock.now() + datetime.timedelta(seconds=SETTLE_SECONDS)
        await unit.session.execute(queries.leave_open(hold.intent_id, hold.attempt, ONLY_IF_LANDED, until))
    await unit.checkpoint()


def _is_left_open(intent: Intent) -> bool:
    """Tell whether an intent is open and nobody is at it, so that a repeated call may take it over."""
    return intent.state == "pending" and (intent.reason == ONLY_IF_LANDED or intent.lease_until < clock.now())


def _owner_key(actor: Actor) -> str:
    return f"user:{actor.user_id}" if actor.user_id is not None else actor.name[:64]


def _actor_text(actor: Actor) -> str:
    kept = {"user_id": actor.user_id, "name": actor.name, "display_name": actor.display_name}
    return dumps(kept | {"login_id": actor.login_id})
