"""Wake-up calls between those who write something and those who wait for it.

A signal carries nothing and may be lost: whoever waits looks into the database after each one, and every few seconds
without one. That is why another process, or another way of signalling, can stand behind it.
"""

import asyncio
from collections import defaultdict
from typing import Protocol


class Signals(Protocol):
    """Wakes whoever waits under a name."""

    def notify(self, name: str) -> None:
        """Wake the waiter of a name, or its next wait when it is busy; never blocks."""
        ...

    async def wait(self, name: str, timeout_seconds: float) -> bool:
        """Return once the name is called, or ``False`` after the time given; one waiter per name and process."""
        ...


class InProcessSignals:
    """Signals within this process; another process finds out at its next look."""

    def __init__(self) -> None:
        self._events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def notify(self, name: str) -> None:
        """Wake the waiter of a name, or its next wait when it is busy; never blocks."""
        self._events[name].set()

    async def wait(self, name: str, timeout_seconds: float) -> bool:
        """Return once the name is called, or ``False`` after the time given."""
        event = self._events[name]
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return False
        event.clear()
        return True
