"""Counters for the throttles, kept in Redis and, for the time it is away, in this process."""

from typing import Any

from limits.aio.storage import RedisStorage, Storage

from quill.adapters.redis.link import Link, RedisAway
from quill.kit.counters import InProcessCounters

KEY_PREFIX = "quill:throttle"


class SharedCounters(Storage):
    """Counts in Redis for all processes; each also keeps its own count, which holds while Redis is away.

    So losing Redis opens nothing: what this process has counted in the current window still stands, and the limits
    are the same, for each process by itself.
    """

    STORAGE_SCHEME = None

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._own = InProcessCounters()
        options: dict[str, Any] = {"connection_pool": link.pool}
        self._shared = RedisStorage("async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, **options)

    @property
    def base_exceptions(self) -> type[Exception]:
        """Return what a caller might have to handle: nothing that Redis does."""
        return ValueError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter, which begins with the first and lasts for so many seconds, and return the sum."""
        own = await self._own.incr(key, expiry, amount)
        try:
            return await self._link.ask(lambda: self._shared.incr(key, expiry, amount))
        except RedisAway:
            return own

    async def get(self, key: str) -> int:
        """Return a counter; 0 when there is none."""
        try:
            return await self._link.ask(lambda: self._shared.get(key))
        except RedisAway:
            return await self._own.get(key)

    async def get_expiry(self, key: str) -> float:
        """Return when a counter ends, in seconds since 1970."""
        try:
            return await self._link.ask(lambda: self._shared.get_expiry(key))
        except RedisAway:
            return await self._own.get_expiry(key)

    async def clear(self, key: str) -> None:
        """Forget a counter."""
        await self._own.clear(key)
        await self._link.ask(lambda: self._shared.clear(key))

    async def check(self) -> bool:
        """Tell whether counting is shared at the moment."""
        try:
            await self._link.ping()
        except RedisAway:
            return False
        return True

    async def reset(self) -> int | None:
        """Forget every counter."""
        await self._own.reset()
        return await self._link.ask(self._shared.reset)
