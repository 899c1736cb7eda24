"""A circuit breaker: who is known to be down is not asked, but for one caller now and then who finds out.

Closed, every call passes. After several failures in a row it opens, and calls fail at once instead of each waiting for
its own deadline. When the pause is over one call is let through; if that succeeds the breaker closes, otherwise the
pause begins anew. Source: M. Nygard, "Release It!", "Circuit Breaker".
"""

import math

from quill.kit import clock

FAILURES_TO_OPEN = 5
PAUSE_SECONDS = 5.0


class CircuitBreaker:
    """The state of one service as this process knows it."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_from = float("-inf")

    @property
    def is_open(self) -> bool:
        """Tell whether calls are refused without being made."""
        return self.is_tripped and clock.monotonic_seconds() < self._closed_from

    @property
    def is_tripped(self) -> bool:
        """Tell whether the service is taken for down: too many failures in a row, and no success since."""
        return self._failures >= FAILURES_TO_OPEN

    @property
    def retry_after_seconds(self) -> int:
        """Return in how many whole seconds a call may pass again, at least 1."""
        return max(1, math.ceil(self._closed_from - clock.monotonic_seconds()))

    def allows(self) -> bool:
        """Tell whether a call may be made now; after the pause, one call passes and begins the next pause."""
        if not self.is_tripped:
            return True
        if self.is_open:
            return False
        # Whoever comes while the one call is under way is refused; should it never report, the next one passes later.
        self._closed_from = clock.monotonic_seconds() + PAUSE_SECONDS
        return True

    def succeeded(self) -> None:
        """Note that the service answered."""
        self._failures = 0

    def failed(self) -> None:
        """Note that it did not."""
        self._failures += 1
        if self.is_tripped:
            self._closed_from = clock.monotonic_seconds() + PAUSE_SECONDS
