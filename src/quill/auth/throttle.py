"""Throttles: how often one source, and one source at one account, may try.

Nobody is ever locked out by a stranger: failures count against the pair of account and source, and against the source
over all accounts, never against the account alone.
"""

import hashlib

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter

from quill.errors import TooManyRequests
from quill.kit import clock

FAILURES_PER_ACCOUNT_AND_SOURCE = RateLimitItemPerMinute(5)
FAILURES_PER_SOURCE = RateLimitItemPerMinute(30)
"""A clinic behind one address mistypes now and then; a guesser mistypes always."""
REGISTRATIONS_PER_SOURCE = RateLimitItemPerMinute(3)
RESET_REQUESTS_PER_SOURCE = RateLimitItemPerMinute(3)
RESETS_PER_SOURCE = RateLimitItemPerMinute(5)
"""Wire contract, ``rate_limits``."""


class Throttle:
    """Counts attempts in a moving window; in process, or in whatever storage is given."""

    def __init__(self, storage: Storage | None = None) -> None:
        self._limiter = MovingWindowRateLimiter(storage or MemoryStorage())

    async def check(self, limit: RateLimitItem, *key: str) -> None:
        """Refuse when the limit is used up; counts nothing.

        Raises:
            TooManyRequests: 429 with ``Retry-After``.
        """
        if not await self._limiter.test(limit, *_opaque(key)):
            raise await self._refusal(limit, key)

    async def count(self, limit: RateLimitItem, *key: str) -> None:
        """Count one attempt, before it is made so that a burst cannot slip through, and refuse one too many.

        Raises:
            TooManyRequests: 429 with ``Retry-After``.
        """
        if not await self._limiter.hit(limit, *_opaque(key)):
            raise await self._refusal(limit, key)

    async def note(self, limit: RateLimitItem, *key: str) -> None:
        """Count one attempt that has already been answered."""
        await self._limiter.hit(limit, *_opaque(key))

    async def forget(self, limit: RateLimitItem, *key: str) -> None:
        """Start a key's count anew, after a success."""
        await self._limiter.clear(limit, *_opaque(key))

    async def _refusal(self, limit: RateLimitItem, key: tuple[str, ...]) -> TooManyRequests:
        window = await self._limiter.get_window_stats(limit, *_opaque(key))
        return TooManyRequests(retry_after_seconds=max(1, round(window.reset_time - clock.now().timestamp())))


def _opaque(key: tuple[str, ...]) -> list[str]:
    """Return a key for the store that holds no name or address in clear."""
    return [hashlib.sha256(part.encode()).hexdigest()[:24] for part in key]
