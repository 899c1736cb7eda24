"""Subscribing devices, forgetting them, and trying whether they can be reached."""

import asyncio
import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from limits import RateLimitItemPerMinute
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth.throttle import Throttle
from quill.errors import NoSubscribers, Unprocessable
from quill.kit import clock
from quill.kit.documents import dumps
from quill.kit.ids import UserId
from quill.outbox import templates
from quill.ports.push import Device, PushSender, UnusableDevice, encode_base64url
from quill.push import queries
from quill.push.models import PushSubscription
from quill.unit import Unit

MAXIMUM_DEVICES = 20
"""Browsers leave dead subscriptions behind; beyond this the one unconfirmed for longest is forgotten."""
SUBSCRIPTIONS_PER_PERSON = RateLimitItemPerMinute(30)
TESTS_PER_PERSON = RateLimitItemPerMinute(5)

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LAST_DAY = datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC)

_SENTENCES = {
    "not_a_url": "The endpoint is not an address",
    "not_https": "The endpoint must be https",
    "port_not_allowed": "The endpoint must be on the usual port",
    "address_not_public": "The endpoint must be a public address",
    "no_such_host": "The endpoint's host does not exist",
    "not_base64url": "The key must be base64url",
    "wrong_length": "The key has the wrong length",
    "not_on_curve": "The key is not a point of P-256",
}


@dataclass(frozen=True, slots=True)
class TestResult:
    """How a test notification went: whether any device was reached, and which endpoints no longer exist."""

    is_sent: bool
    removed: list[str]


async def subscribe(  # noqa: PLR0913 - a subscription has these parts
    unit: Unit,
    actor: Actor,
    sender: PushSender,
    throttle: Throttle,
    *,
    endpoint: str,
    expires_at_milliseconds: float | None,
    p256dh: str,
    auth: str,
) -> int:
    """Bind a browser to the actor; one bound before gets the new keys and the new owner.

    Returns:
        How many devices the actor has now.

    Raises:
        TooManyRequests: 429, too often.
        Unprocessable: 422, a key or the address is not fit to be sent to.
    """
    person_id = actor.person_id
    await throttle.count(SUBSCRIPTIONS_PER_PERSON, "push-subscribe", str(person_id))
    try:
        device = Device.parse(endpoint, p256dh, auth)
        await sender.check_endpoint(endpoint)
    except UnusableDevice as error:
        raise _unprocessable(error) from error
    now = clock.now()
    subscription = await _bind(
        unit,
        {
            "endpoint_digest": _digest(endpoint),
            "user_id": person_id,
            "endpoint": endpoint,
            "p256dh": encode_base64url(device.p256dh),
            "auth": encode_base64url(device.auth),
            "expires_at": _instant(expires_at_milliseconds),
            "updated_at": now,
        },
    )
    kept = queries.newest_of(person_id, MAXIMUM_DEVICES).scalar_subquery()
    await unit.session.execute(
        sa.delete(PushSubscription)
        .where(PushSubscription.user_id == person_id, PushSubscription.id.not_in(kept))
        .execution_options(synchronize_session=False)
    )
    audit.record(unit, actor, Act.PUSH_SUBSCRIBE, subject=f"device:{subscription}")
    return await queries.count_of(unit.session, person_id, now)


async def _bind(unit: Unit, values: dict[str, Any]) -> int:
    digest = values["endpoint_digest"]
    subscription = await queries.lock_by_digest(unit.session, digest)
    if subscription is None:
        created = PushSubscription(**values, created_at=values["updated_at"])
        try:
            async with unit.session.begin_nested():
                unit.session.add(created)
                await unit.session.flush()
            return created.id
        except IntegrityError:
            # Another page of the same browser was first; its row is ours to bring up to date.
            subscription = await queries.lock_by_digest(unit.session, digest)
            if subscription is None:
                raise
    for name, value in values.items():
        setattr(subscription, name, value)
    await unit.session.flush()
    return subscription.id


async def unsubscribe(unit: Unit, actor: Actor, endpoint: str) -> int:
    """Forget one device of the actor; one that is unknown or somebody else's changes nothing.

    Returns:
        How many devices the actor has now.
    """
    person_id = actor.person_id
    await unit.session.execute(
        sa.delete(PushSubscription).where(
            PushSubscription.endpoint_digest == _digest(endpoint), PushSubscription.user_id == person_id
        )
    )
    audit.record(unit, actor, Act.PUSH_UNSUBSCRIBE)
    return await queries.count_of(unit.session, person_id, clock.now())


async def forget_devices(unit: Unit, user_id: UserId) -> None:
    """Forget every device of a person, such as when external access is revoked."""
    await unit.session.execute(sa.delete(PushSubscription).where(PushSubscription.user_id == user_id))


async def send_test(unit: Unit, actor: Actor, sender: PushSender, throttle: Throttle) -> TestResult:
    """Notify the actor's own devices, side by side, each whatever becomes of the others.

    Raises:
        TooManyRequests: 429, too often.
        NoSubscribers: 400, the actor has no device.
    """
    person_id = actor.person_id
    await throttle.count(TESTS_PER_PERSON, "push-test", str(person_id))
    async with unit.reading() as session:
        rows = await queries.devices_of(session, [person_id], clock.now())
    if not rows:
        raise NoSubscribers
    content = written("test", {})
    deliveries = await asyncio.gather(*(sender.send(device_from(row), content) for row in rows))
    gone = [row for row, delivery in zip(rows, deliveries, strict=True) if delivery.outcome == "gone"]
    await forget_gone(unit.session, [row.id for row in gone])
    audit.record(unit, actor, Act.PUSH_TEST)
    return TestResult(
        is_sent=any(delivery.outcome == "delivered" for delivery in deliveries),
        removed=[row.endpoint for row in gone],
    )


async def forget_gone(session: AsyncSession, device_ids: Sequence[int]) -> None:
    """Forget devices whose push service says that they no longer exist."""
    if device_ids:
        await session.execute(sa.delete(PushSubscription).where(PushSubscription.id.in_(device_ids)))


def device_from(row: sa.Row[Any]) -> Device:
    """Return the device a row describes."""
    return Device.parse(row.endpoint, row.p256dh, row.auth)


def written(kind: str, facts: dict[str, str]) -> bytes:
    """Return what a browser's service worker is handed: JSON with ``title``, ``body`` and ``data.url``."""
    words = templates.notification(kind, facts)
    return dumps({"title": words.title, "body": words.body, "data": {"url": words.url}}).encode()


def _digest(endpoint: str) -> str:
    return hashlib.sha256(endpoint.encode()).hexdigest()


def _instant(milliseconds: float | None) -> datetime.datetime | None:
    if milliseconds is None:
        return None
    # A browser's last millisecond lies beyond what a database can name; it means "never" all the same.
    seconds = min(milliseconds / 1000, (_LAST_DAY - _EPOCH).total_seconds())
    return _EPOCH + datetime.timedelta(seconds=seconds)


def _unprocessable(error: UnusableDevice) -> Unprocessable:
    sentence = _SENTENCES[error.reason]
    place = ["body", "endpoint"] if error.field == "endpoint" else ["body", "keys", error.field]
    return Unprocessable(sentence, errors=[{"loc": place, "msg": sentence, "type": error.reason}])
