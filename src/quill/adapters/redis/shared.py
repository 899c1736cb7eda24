"""One Redis as what the processes share."""

from quill.adapters.redis.counters import SharedCounters
from quill.adapters.redis.link import Link
from quill.adapters.redis.signals import SharedSignals


class RedisShared:
    """Counters and signals over one Redis; implements :class:`quill.ports.shared.Shared`.

    Args:
        url: ``redis[s]://user:password@host:port/number``. Nothing is connected yet.
    """

    def __init__(self, url: str) -> None:
        self._link = Link(url)
        self.counters = SharedCounters(self._link)
        self.signals = SharedSignals(self._link)

    async def run(self) -> None:
        """Pass signals on until cancelled."""
        await self.signals.run()

    async def ping(self) -> None:
        """Return when Redis answers.

        Raises:
            OSError: it does not.
        """
        await self._link.ping()

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()
