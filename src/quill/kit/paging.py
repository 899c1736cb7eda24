"""Keyset paging: a page is found by the sort key of the row before it, so page 100 costs what page 1 costs."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

MAXIMUM_ROWS = 1000
"""Rows a call without ``limit`` answers (decisions, rule 5); also the largest ``limit``."""

Row = TypeVar("Row")


class BadCursor(ValueError):
    """The cursor was not made by this list."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What the caller asked for: how many rows, and after which key."""

    limit: int = MAXIMUM_ROWS
    cursor: str | None = None

    def after(self, *kinds: type) -> tuple[object, ...] | None:
        """Return the sort key to continue after, or ``None`` at the start.

        Args:
            kinds: the type of each part of the key, in order.

        Raises:
            BadCursor: the cursor is not one of this list's.
        """
        if self.cursor is None:
            return None
        try:
            padded = self.cursor + "=" * (-len(self.cursor) % 4)
            parts = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError) as error:
            raise BadCursor("The cursor is not readable.") from error
        if not isinstance(parts, list) or len(parts) != len(kinds):
            raise BadCursor("The cursor belongs to another list.")
        for part, kind in zip(parts, kinds, strict=True):
            if not isinstance(part, kind) or isinstance(part, bool) or (isinstance(part, str) and "\x00" in part):
                raise BadCursor("The cursor belongs to another list.")
            if isinstance(part, int) and not -(2**63) <= part < 2**63:
                raise BadCursor("The cursor belongs to another list.")
        return tuple(parts)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows in order, and the cursor of the next page when there is one."""

    rows: Sequence[Row]
    next_cursor: str | None


def cursor_of(*key: str | int) -> str:
    """Return the opaque cursor that continues after a row with this sort key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(key))).decode().rstrip("=")
