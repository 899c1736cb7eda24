"""Counters for throttles, kept in this process.

The throttles' library has such counters too, but looks at every one of them each time that one is counted up: with the
addresses of a flood among them that would be what stops the program.
"""

import heapq

from limits.aio.storage import Storage

from quill.kit import clock


class InProcessCounters(Storage):
    """Counts in memory; a counter that has run out is forgotten, and counting costs the same however many there are."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, tuple[int, float]] = {}
        """The sum and when it ends, in seconds since 1970."""
        self._ends: list[tuple[float, str]] = []
        """A heap of the same ends, which may hold some of counters that are gone."""

    @property
    def base_exceptions(self) -> type[Exception]:
        """Return what a caller might have to handle."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter, which begins with the first and lasts for so many seconds, and return the sum.

        What is taken back after the end of a counter leaves nothing.
        """
        self._forget_ended()
        count, ends_at = self._counts.get(key) or (0, self._now() + expiry)
        count = max(0, count + amount)
        if key not in self._counts:
            if not count:
                return 0
            heapq.heappush(self._ends, (ends_at, key))
        self._counts[key] = (count, ends_at)
        return count

    async def get(self, key: str) -> int:
        """Return a counter; 0 when there is none."""
        self._forget_ended()
        return self._counts.get(key, (0, 0.0))[0]

    async def get_expiry(self, key: str) -> float:
        """Return when a counter ends, in seconds since 1970; now, when there is none."""
        return self._counts.get(key, (0, self._now()))[1]

    async def clear(self, key: str) -> None:
        """Forget a counter."""
        self._counts.pop(key, None)

    async def check(self) -> bool:
        """Tell that it works."""
        return True

    async def reset(self) -> int:
        """Forget every counter, and return how many there were."""
        number = len(self._counts)
        self._counts.clear()
        self._ends.clear()
        return number

    def _now(self) -> float:
        return clock.now().timestamp()

    def _forget_ended(self) -> None:
        now = self._now()
        while self._ends and self._ends[0][0] <= now:
            ended_at, key = heapq.heappop(self._ends)
            # A counter that was cleared may have begun anew since.
            if self._counts.get(key, (0, 0.0))[1] == ended_at:
                del self._counts[key]
