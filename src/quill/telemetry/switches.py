"""Metrics and traces, on where a setting asks; what they need is loaded only then."""

import contextlib
from collections.abc import AsyncIterator

from quill.kit.database import Database
from quill.settings import Settings


@contextlib.asynccontextmanager
async def measured(settings: Settings, database: Database) -> AsyncIterator[None]:
    """Serve metrics while the application runs, when a port is set.

    Raises:
        OSError: the address cannot be listened on.
    """
    if settings.metrics_port is None:
        yield
        return
    from quill.telemetry.serving import measuring

    async with measuring(database, settings.metrics_host, settings.metrics_port):
        yield
