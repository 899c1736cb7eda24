"""Wake-up calls between processes, by Redis publish and subscribe.

A call may be lost: while Redis is away, or while the subscription is being made anew. Whoever waits looks by itself
every second or so, so a lost call costs that second and nothing else.
"""

import asyncio
import random
import secrets
from typing import Any

from redis.exceptions import RedisError

from quill.adapters.redis.link import DEADLINE_SECONDS, Link, RedisAway
from quill.kit.signals import InProcessSignals
from quill.kit.turns import end_if_cancelled

CHANNEL = "quill:signals"
SILENCE_SECONDS = 5.0
"""After so long without a call the other side is asked whether it is still there."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_NAME = 40


class SharedSignals:
    """Signals of every process that listens to the same Redis; implements :class:`quill.kit.signals.Signals`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._own = InProcessSignals()
        self._sender = secrets.token_hex(8)
        self._unsent: set[str] = set()
        self._has_unsent = asyncio.Event()
        self.is_subscribed = asyncio.Event()

    def notify(self, name: str) -> None:
        """Wake the waiters of a name in every process; never blocks."""
        self._own.notify(name)
        self._unsent.add(name)
        self._has_unsent.set()

    async def wait(self, name: str, timeout_seconds: float) -> bool:
        """Return once the name is called, or ``False`` after the time given."""
        return await self._own.wait(name, timeout_seconds)

    async def run(self) -> None:
        """Send and hear calls until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_for_ever(), name="signals-out")
            group.create_task(self._hear_for_ever(), name="signals-in")

    async def _send_for_ever(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            names, self._unsent = self._unsent, set()
            for name in names:
                await self._send(f"{self._sender} {name}")

    async def _send(self, text: str) -> None:
        try:
            await self._link.ask(lambda: self._link.client.publish(CHANNEL, text))
        except RedisAway:
            # Lost, as a call may be; the link has noted it.
            return

    async def _hear_for_ever(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._hear()
            except (RedisError, OSError) as error:
                end_if_cancelled()
                if self.is_subscribed.is_set():
                    pause = FIRST_PAUSE_SECONDS
                self.is_subscribed.clear()
                self._link.is_lost(error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load; no secret
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    async def _hear(self) -> None:
        """Hear calls until the line breaks; raises what broke it."""
        async with self._link.client.pubsub() as subscription:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await subscription.subscribe(CHANNEL)
            while True:
                message = await subscription.get_message(timeout=SILENCE_SECONDS)
                if message is None:
                    await subscription.ping()
                    message = await subscription.get_message(timeout=DEADLINE_SECONDS)
                if message is None:
                    raise RedisAway
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        self.is_subscribed.set()
        self._link.is_found()
        if message["type"] != "message":
            return
        sender, _, name = bytes(message["data"]).decode("ascii", "replace").partition(" ")
        if sender != self._sender and 0 < len(name) <= LONGEST_NAME:
            self._own.notify(name)
