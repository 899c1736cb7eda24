"""Whether the FHIR store answers, and when it last did: what the patient list tells its readers.

The list itself comes from our own tables, so it can be shown while the store is away; it must then say so.
"""

import asyncio
import datetime
from dataclasses import dataclass

import structlog

from quill.errors import Unavailable
from quill.kit import clock
from quill.kit.logs import where
from quill.unit import Reader

DEADLINE_SECONDS = 1.0
"""How long a reader of the list waits to learn whether the store answers."""
GOOD_SECONDS = 1.0
BAD_SECONDS = 5.0
"""How long an answer is believed; longer when it was bad, so that a hanging store does not slow every list down."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Contact:
    """How the store was when last asked.

    Attributes:
        is_ready: whether it answers.
        as_of: the last time it did; ``None`` when it has not since this process started.
    """

    is_ready: bool
    as_of: datetime.datetime | None


class FhirContact:
    """Keeps in mind, for this process, how the FHIR store is."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._contact = Contact(is_ready=False, as_of=None)
        self._believed_until = float("-inf")

    async def check(self, reader: Reader) -> Contact:
        """Return how the store is, asking it unless that was done a moment ago."""
        if self._is_believed():
            return self._contact
        # Whoever waits here, or for the lock, holds no connection meanwhile: the waiting readers would take them all.
        await reader.services.database.let_go(reader.session)
        async with self._lock:
            if not self._is_believed():
                is_ready = await _answers(reader)
                as_of = clock.now() if is_ready else self._contact.as_of
                self._contact = Contact(is_ready=is_ready, as_of=as_of)
                self._believed_until = clock.monotonic_seconds() + (GOOD_SECONDS if is_ready else BAD_SECONDS)
            return self._contact

    def _is_believed(self) -> bool:
        return clock.monotonic_seconds() < self._believed_until


async def _answers(reader: Reader) -> bool:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await reader.fhir.ping()
    except (Unavailable, TimeoutError) as error:
        log.warning("fhir_does_not_answer", cause=where(error))
        return False
    return True
