"""The steps of a write that its caller and a sweep share: taking an intent, writing, projecting, closing.

An intent is in one pair of hands at a time, told by ``attempts``: each taking adds one, and only who still has the last
one may close the intent without a result. Closing it with a result is right whoever does it, and happens once.
"""

import dataclasses
import datetime

from quill.actor import Actor
from quill.errors import QuillError, RequestInProgress, Unavailable
from quill.intents import queries
from quill.intents.kind import Kind
from quill.intents.models import Intent
from quill.kit import clock
from quill.kit.documents import Document, dumps, loads
from quill.unit import Unit

LEASE_SECONDS = 90
"""Longer than a write's calls to a store may take with their deadlines, so a live owner is not taken for dead."""

ONLY_IF_LANDED = "only_if_landed"
"""Reason of an open intent whose caller was told that it failed: finished if it arrived, and not written again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """An open intent in somebody's hands, as it was when it was taken."""

    intent_id: str
    attempt: int
    payload: Document


async def take(unit: Unit, intent: Intent) -> Hold:
    """Take an open intent, which must be locked, out of whatever hands it was in."""
    intent.attempts += 1
    intent.lease_until = lease()
    await unit.session.flush()
    return Hold(intent.id, intent.attempts, loads(intent.payload or "{}"))


async def write(unit: Unit, kind: Kind, hold: Hold) -> Document:
    """Write the record, unless an earlier attempt arrived.

    Returns:
        The payload, with what ``project`` should know of the store's answer.
    """
    if hold.attempt > 1 and (landed := await kind.has_landed(unit, hold.payload)):
        return with_written(hold.payload, landed)
    return with_written(hold.payload, await kind.write(unit, hold.payload))


def with_written(payload: Document, written: Document | bool | None) -> Document:
    """Return the payload with what the store answered, for ``project``."""
    return payload | {"written": written} if isinstance(written, dict) else payload


async def project_and_close(unit: Unit, actor: Actor, kind: Kind, hold: Hold, payload: Document) -> Document:
    """Project a record that is in its store and close the intent; returns the result, whoever closed it.

    Raises:
        RequestInProgress: 409, it was taken for orphaned and given up meanwhile.
    """
    intent = await queries.lock_intent(unit.session, hold.intent_id)
    if intent is None or intent.state != "pending":
        if intent is not None and intent.result is not None:
            return loads(intent.result)
        raise RequestInProgress
    result = await kind.project(unit, actor, payload)
    await close(unit, hold, "done", result=result)
    return result


async def close(unit: Unit, hold: Hold, state: str, *, result: Document | None = None, reason: str = "") -> bool:
    """Close an open intent and free what it claimed; tell whether it was still to be closed by this hold."""
    values = {
        "state": state,
        # The record is the copy that counts; a second one here would only be one more to protect.
        "payload": None,
        "result": dumps(result) if result is not None else None,
        "reason": reason or None,
        "closed_at": clock.now(),
    }
    attempt = hold.attempt if result is None else None
    if await unit.session.scalar(queries.close(hold.intent_id, attempt, values)) is None:
        return False
    await unit.session.execute(queries.free_claims(hold.intent_id))
    return True


def lease() -> datetime.datetime:
    """Return until when somebody who takes an intent now is believed to be at it."""
    return clock.now() + datetime.timedelta(seconds=LEASE_SECONDS)


def is_refusal(error: Exception) -> bool:
    """Tell whether a store refuses a record for good; a wrong answer (502) may hide that it took it."""
    return isinstance(error, QuillError) and not isinstance(error, Unavailable)


def reason_of(error: Exception) -> str:
    """Return the slug for what went wrong."""
    return error.code if isinstance(error, QuillError) else "unforeseen"
