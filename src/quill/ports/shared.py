"""What the processes of one installation share while they run, beside the database: counters and wake-up calls.

Nothing in it is a record. Losing it loses nobody's data: counters go on in each process by itself, and whoever waits
for a call looks into the database every second or so.
"""

from typing import Protocol

from limits.aio.storage import Storage

from quill.kit.signals import Signals


class Shared(Protocol):
    """A place that every process reaches, such as Redis."""

    @property
    def counters(self) -> Storage:
        """Return the throttles' counters; they count in this process alone while the place cannot be reached."""
        ...

    @property
    def signals(self) -> Signals:
        """Return signals that reach every process, or this one alone while the place cannot be reached."""
        ...

    async def run(self) -> None:
        """Pass signals on, to and from other processes, until cancelled."""
        ...

    async def ping(self) -> None:
        """Return when the place answers.

        Raises:
            OSError: it does not.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
