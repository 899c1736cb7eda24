"""Probing the parts: side by side, under a deadline, from a short cache."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from quill.health.schemas import HealthOut, ServiceHealth, ServicesHealth
from quill.kit import clock
from quill.kit.logs import where
from quill.unit import Services

DEADLINE_SECONDS = 2.0
"""A part that takes longer is as good as out for whoever waits."""
CACHE_SECONDS = 1.0
"""Callers without a login may ask; they must not be able to make us probe at will."""

AVAILABLE = ServiceHealth(available=True, status_code=200, error=None)
UNAVAILABLE = ServiceHealth(available=False, status_code=503, error="unavailable")
NOT_PROVISIONED = ServiceHealth(available=False, status_code=None, error="Not provisioned")

log = structlog.get_logger()


class HealthMonitor:
    """Answers for this process how the parts are."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = asyncio.Lock()
        self._cached: HealthOut | None = None
        self._cached_at = 0.0

    async def check(self) -> HealthOut:
        """Return how every part is, at most a second old."""
        async with self._lock:
            if self._cached is None or clock.monotonic_seconds() - self._cached_at >= CACHE_SECONDS:
                self._cached = await self._probe()
                self._cached_at = clock.monotonic_seconds()
            return self._cached

    async def is_ready(self) -> bool:
        """Tell whether this process can do its work: the application database answers."""
        return (await self.check()).services.auth_db.available

    async def _probe(self) -> HealthOut:
        is_clinical = self._services.settings.clinical_services_enabled
        shared = self._services.shared
        database, redis, fhir, openehr = await asyncio.gather(
            _outcome("database", self._services.database.ping),
            _outcome("redis", shared.ping) if shared else _not_configured(),
            _outcome("fhir", self._ping_fhir) if is_clinical else _not_provisioned(),
            _outcome("openehr", self._ping_openehr) if is_clinical else _not_provisioned(),
        )
        parts = [database, *([fhir, openehr] if is_clinical else []), *([redis] if redis else [])]
        return HealthOut(
            status="healthy" if all(part.available for part in parts) else "degraded",
            services=ServicesHealth(auth_db=database, fhir=fhir, ehrbase=openehr, redis=redis),
        )

    async def _ping_fhir(self) -> None:
        async with self._services.database.reading() as session:
            await self._services.fhir_for(session).ping()

    async def _ping_openehr(self) -> None:
        async with self._services.database.reading() as session:
            await self._services.openehr_for(session).ping()


async def _outcome(part: str, probe: Callable[[], Awaitable[None]]) -> ServiceHealth:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await probe()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a probe means that the part does not answer
        log.warning("probe_failed", part=part, cause=where(error))
        return UNAVAILABLE
    return AVAILABLE


async def _not_configured() -> None:
    return None


async def _not_provisioned() -> ServiceHealth:
    return NOT_PROVISIONED
