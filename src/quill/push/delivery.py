"""Carrying notifications from the queue to devices, for those who may still be told."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity import service as identity
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import UserId
from quill.kit.together import Together
from quill.outbox.delivery import Settlement, Task
from quill.ports.delivery import Delivery
from quill.ports.push import Device, PushSender
from quill.push import queries, service
from quill.unit import Services

MayNotify = Callable[[AsyncSession, Actor, Mapping[str, str]], Awaitable[bool]]
"""Tells whether somebody may be told what a notification's facts point at, at this moment."""


class PushCarrier:
    """Delivers notifications.

    An entry that names people becomes one entry for each of their devices, so that a device which cannot be reached
    is tried again alone. For each of these, at each attempt, it is asked whether the account is active, the device is
    still that person's, and the person may still know.

    Args:
        services: where devices and rights are, and the settings that decide which rights count.
        sender: how a device is reached.
        may_notify: who may still know; given by the assembly.
    """

    def __init__(self, services: Services, sender: PushSender, may_notify: MayNotify) -> None:
        self._database = services.database
        self._settings = services.settings
        self._sender = sender
        self._may_notify = may_notify
        self._devices = Together("push-devices", self._devices_of)

    async def deliver(self, task: Task) -> Settlement:
        """Spread an entry over devices, or notify one."""
        if "user_ids" in task.payload:
            return await self._spread(task.payload)
        return Settlement(await self._notify(task.payload))

    async def finish(self) -> None:
        """Return when no question of ours is under way any more; for the end, when nothing is delivered any longer."""
        await self._devices.finish()

    async def _spread(self, payload: Document) -> Settlement:
        rows = await self._devices.ask([UserId(user_id) for user_id in payload["user_ids"]])
        follow_ups = [
            {"device_id": row.id, "user_id": row.user_id, "kind": payload["kind"], "facts": payload["facts"]}
            for row in rows
        ]
        return Settlement(Delivery.delivered(), follow_ups)

    async def _devices_of(self, asked: list[Sequence[UserId]]) -> list[list[Row[Any]] | Exception]:
        """Return the devices of each of some groups of people, asked together."""
        groups = [frozenset(user_ids) for user_ids in asked]
        async with self._database.reading() as session:
            rows = await queries.devices_of(session, sorted(frozenset().union(*groups)), clock.now())
        return [[row for row in rows if row.user_id in group] for group in groups]

    async def _notify(self, payload: Document) -> Delivery:
        device = await self._find_device(payload)
        if device is None:
            return Delivery.refused("not_to_be_told")
        delivery = await self._sender.send(device, service.written(payload["kind"], payload["facts"]))
        if delivery.outcome == "gone":
            async with self._database.writing() as session:
                await service.forget_gone(session, [payload["device_id"]])
        return delivery

    async def _find_device(self, payload: Document) -> Device | None:
        """Return the device while its owner may still be told; no connection is held while it is notified."""
        user_id = UserId(payload["user_id"])
        async with self._database.reading() as session:
            row = await queries.device(session, payload["device_id"], user_id, clock.now())
            actor = await identity.find_actor(session, self._settings, user_id)
            if row is None or actor is None or not await self._may_notify(session, actor, payload["facts"]):
                return None
            return service.device_from(row)
