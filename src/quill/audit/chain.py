"""How the audit trail is hashed: a leaf for every event, a seal over leaves and the seal before.

Everything here is pure, so that anybody with a copy of the tables can recompute it. A *field* is written as one tag
byte, the number of bytes that follow in decimal, a colon, the bytes, and a comma:

======  =======================================================================
tag     bytes
======  =======================================================================
``-``   none; the value is null
``i``   an integer in decimal
``t``   an instant in UTC as ``2026-01-31T12:00:00.000000Z``, always six digits
``s``   text in UTF-8
``x``   anything no such column can hold; only ever seen where somebody meddled
======  =======================================================================

A field says where it ends, so no text can be moved into its neighbour without changing the bytes.

*Leaf hash*: SHA-256 over ``quill.audit.event.1`` and a line feed, then the fields of ``EVENT_COLUMNS`` in that order.

*Seal hash*: SHA-256 over ``quill.audit.seal.1`` and a line feed, then the fields previous seal hash (``s``), number
(``i``), sealed_at (``t``), event count (``i``), then the leaf hashes as ``s`` fields in ascending order of event id.
The first seal has number 1 and follows ``GENESIS``. Hashes are 64 lower-case hexadecimal digits wherever they are kept.
"""

import datetime
import hashlib
from collections.abc import Sequence

EVENT_COLUMNS = (
    "id",
    "occurred_at",
    "request_id",
    "actor_user_id",
    "actor_name",
    "login_id",
    "source",
    "act",
    "outcome",
    "reason",
    "patient_id",
    "subject",
)
"""Every column of an event, in the order the leaf hash takes them. Never reorder: old seals would stop matching."""

GENESIS = "0" * 64
"""What the first seal has for the hash of the seal before it."""

_EVENT_DOMAIN = b"quill.audit.event.1\n"
_SEAL_DOMAIN = b"quill.audit.seal.1\n"


def leaf_hash(values: Sequence[object]) -> str:
    """Return the hash of one event.

    Args:
        values: the event's values in the order of ``EVENT_COLUMNS``.

    Raises:
        ValueError: a column is missing or one too many, or an instant has no time zone.
    """
    if len(values) != len(EVENT_COLUMNS):
        raise ValueError(f"An event has {len(EVENT_COLUMNS)} columns, not {len(values)}.")
    return hashlib.sha256(_EVENT_DOMAIN + b"".join(map(_field, values))).hexdigest()


class SealHash:
    """The hash of one seal, fed a leaf at a time so that a seal of any size costs the same memory."""

    def __init__(self, previous_hash: object, number: object, sealed_at: object, event_count: object) -> None:
        head = b"".join(map(_field, (previous_hash, number, sealed_at, event_count)))
        self._digest = hashlib.sha256(_SEAL_DOMAIN + head)

    def add(self, leaf: str) -> None:
        """Take the leaf hash of the event with the next higher id."""
        self._digest.update(_field(leaf))

    def hexdigest(self) -> str:
        """Return the hash over everything taken so far."""
        return self._digest.hexdigest()


def _field(value: object) -> bytes:
    if value is None:
        return b"-0:,"
    if isinstance(value, str):
        # A lone surrogate cannot be stored, but hashing must not be the place that finds out.
        tag, content = b"s", value.encode("utf-8", "surrogatepass")
    elif isinstance(value, datetime.datetime):
        tag, content = b"t", _instant(value).encode()
    elif isinstance(value, int) and not isinstance(value, bool):
        tag, content = b"i", str(value).encode()
    else:
        tag, content = b"x", f"{type(value).__name__} {value!r}".encode("utf-8", "surrogatepass")
    return b"%s%d:%s," % (tag, len(content), content)


def _instant(value: datetime.datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("An instant without a time zone cannot be hashed.")
    utc = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return f"{utc.isoformat(timespec='microseconds')}Z"
