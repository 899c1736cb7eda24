"""Throttles: how often one source, and one source at one account, may try.

Nobody is ever locked out by a stranger: wrong passwords count against the pair of account and source, and against the
source over all accounts, never against the account alone. Only what a stranger cannot try at all counts against an
account: codes, which need the password first, and proofs by somebody who holds a login.

An attempt is counted before it is made, so that a burst in parallel cannot slip through, and given back when it turns
out right, so that a clinic behind one address is not stopped by its own successful sign-ins.
"""

import hashlib
import ipaddress
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from sqlalchemy.exc import SQLAlchemyError

from quill.errors import TooManyRequests, Unavailable
from quill.kit import clock
from quill.kit.counters import InProcessCounters
from quill.kit.observing import Throttled, tell

FAILURES_PER_ACCOUNT_AND_SOURCE = RateLimitItemPerMinute(5, namespace="sign-in-pair")
FAILURES_PER_SOURCE = RateLimitItemPerMinute(30, namespace="sign-in-source")
"""A clinic behind one address mistypes now and then; a guesser mistypes always."""
WRONG_CODES_PER_PASSWORD = RateLimitItemPerHour(10, namespace="sign-in-code")
"""Three of a million codes are right at any time, so guessing from everywhere at once succeeds once in four years."""
REGISTRATIONS_PER_SOURCE = RateLimitItemPerMinute(3, namespace="register")
RESET_REQUESTS_PER_SOURCE = RateLimitItemPerMinute(3, namespace="reset-request")
RESETS_PER_SOURCE = RateLimitItemPerMinute(5, namespace="reset")
"""Wire contract, ``rate_limits``."""
PROOFS_PER_ACCOUNT = RateLimitItemPerMinute(5, namespace="proof")
"""Wrong passwords given by somebody who is signed in."""
CODES_PER_ACCOUNT = RateLimitItemPerMinute(5, namespace="totp-verify")
REFRESHES_PER_LOGIN = RateLimitItemPerMinute(30, namespace="refresh")
"""Many tabs refresh together now and then; a program gone wild refreshes always."""
INVITES_PER_PERSON = RateLimitItemPerHour(20, namespace="invite")
"""Each may send a mail to a stranger."""
ACCEPTANCES_PER_SOURCE = RateLimitItemPerMinute(10, namespace="accept-invite")

IPV6_SUBSCRIBER_BITS = 64
"""One subscriber holds at least so many addresses' worth of IPv6 (RFC 6177), so they count as one source."""


def reset_mails_per_address(lifetime_seconds: int) -> RateLimitItem:
    """Return how many reset mails one address is sent: the last always has half its life left when no more follow.

    So neither can a stranger fill somebody's mailbox, nor use up the limit and leave them without a link that works.
    """
    return RateLimitItemPerSecond(3, max(1, lifetime_seconds // 2), namespace="reset-mail")


class Throttle:
    """Counts attempts in windows that begin with the first; in process, or in whatever storage is given."""

    def __init__(self, storage: Storage | None = None) -> None:
        self._limiter = FixedWindowRateLimiter(storage or InProcessCounters())

    async def count(self, limit: RateLimitItem, *key: str) -> None:
        """Count one attempt, before it is made, and refuse one too many.

        Raises:
            TooManyRequests: 429 with ``Retry-After``.
        """
        if not await self.has_room(limit, *key):
            window = await self._limiter.get_window_stats(limit, *_opaque(key))
            wait = math.ceil(window.reset_time - clock.now().timestamp())
            raise TooManyRequests(retry_after_seconds=max(1, wait))

    async def has_room(self, limit: RateLimitItem, *key: str) -> bool:
        """Count one attempt and tell whether it was within the limit, for callers whose answer must not show it."""
        is_within = await self._limiter.hit(limit, *_opaque(key))
        if not is_within:
            tell(Throttled(limit.namespace))
        return is_within

    async def give_back(self, limit: RateLimitItem, *key: str) -> None:
        """Take back the count of an attempt that turned out right."""
        await self._limiter.hit(limit, *_opaque(key), cost=-1)

    @asynccontextmanager
    async def sparing(self, limit: RateLimitItem, *key: str) -> AsyncIterator[None]:
        """Take back the count of an attempt that came to nothing because a part of the house did not answer.

        Otherwise an outage would turn a clinic away for a while after it has ended.
        """
        try:
            yield
        except (Unavailable, SQLAlchemyError, OSError):
            await self.give_back(limit, *key)
            raise


def network_of(source: str) -> str:
    """Return what a source counts as: itself, or for IPv6 the network of its subscriber."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_SUBSCRIBER_BITS), strict=False))


def _opaque(key: tuple[str, ...]) -> list[str]:
    """Return a key for the store that holds no name or address in clear."""
    return [hashlib.sha256(part.encode()).hexdigest()[:24] for part in key]
