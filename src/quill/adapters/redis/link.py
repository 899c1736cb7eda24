"""The line to Redis: short deadlines, a circuit breaker, and one log line when it goes and one when it comes back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from quill.adapters.breaker import CircuitBreaker
from quill.kit.logs import where
from quill.kit.turns import end_if_cancelled

DEADLINE_SECONDS = 0.3
"""For one call with everything it takes; signing in makes a few, and each can do without."""
POOL_SIZE = 20

Answer = TypeVar("Answer")

log = structlog.get_logger()


class RedisAway(OSError):
    """Redis did not answer in time, or is known to be away; never with its words, which may hold an address."""


class Link:
    """Connections to one Redis.

    Args:
        url: ``redis[s]://user:password@host:port/number``.
    """

    def __init__(self, url: str) -> None:
        self.pool = BlockingConnectionPool.from_url(
            url,
            max_connections=POOL_SIZE,
            timeout=DEADLINE_SECONDS,
            socket_timeout=DEADLINE_SECONDS,
            socket_connect_timeout=DEADLINE_SECONDS,
            # Once: a connection from before a restart of Redis is found broken, and a new one is opened.
            retry=Retry(NoBackoff(), 1),
            protocol=2,
            client_name="quill",
        )
        self.client = Redis.from_pool(self.pool)
        self._breaker = CircuitBreaker()
        self._is_away = False

    async def ask(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Make a call, unless Redis is known to be away.

        Raises:
            RedisAway: it did not answer in time, or is not asked at the moment.
        """
        if not self._breaker.allows():
            raise RedisAway
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await call()
        except (RedisError, OSError) as error:
            end_if_cancelled()
            self.is_lost(error)
            raise RedisAway from error
        self.is_found()
        return answer

    async def ping(self) -> None:
        """Ask whether it answers, known to be away or not.

        Raises:
            RedisAway: it does not.
        """
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self.client.ping()
        except (RedisError, OSError) as error:
            end_if_cancelled()
            self.is_lost(error)
            raise RedisAway from error
        self.is_found()

    def is_lost(self, error: BaseException) -> None:
        """Note that Redis did not answer."""
        self._breaker.failed()
        if not self._is_away:
            self._is_away = True
            log.warning("redis_away", cause=where(error))

    def is_found(self) -> None:
        """Note that Redis answered."""
        self._breaker.succeeded()
        if self._is_away:
            self._is_away = False
            log.warning("redis_back")

    async def close(self) -> None:
        """Close every connection."""
        await self.pool.disconnect(inuse_connections=True)
