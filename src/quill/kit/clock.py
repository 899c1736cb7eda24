"""The one source of time. Message times, read markers, leases and tokens all ask here, so they never disagree."""

import datetime
import time


def now() -> datetime.datetime:
    """Return the current instant as an aware UTC datetime with microseconds."""
    return datetime.datetime.now(datetime.UTC)


def monotonic_seconds() -> float:
    """Return seconds from an arbitrary start that never run backwards; for deadlines and durations only."""
    return time.monotonic()


def rfc3339(instant: datetime.datetime) -> str:
    """Return an aware instant as RFC 3339 text in UTC with ``Z``, microseconds only when they are not zero."""
    return instant.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
