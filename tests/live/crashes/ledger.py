"""What the clients asked for and what they were told: the side of the comparison that cannot be argued with."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from quill.kit import ids


class Kind(StrEnum):
    """What an operation does; the value is the act the audit trail must show for it."""

    CONVERSATION = "conversation:create"
    MESSAGE = "message:send"
    AMENDMENT = "message:amend"
    LETTER = "letter:write"
    LETTER_AMENDMENT = "letter:amend"
    PATIENT = "patient:create"
    EDIT = "patient:change"


class Outcome(StrEnum):
    """What the client knows of an operation."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNHEARD = "unheard"
    """Nobody listened."""
    UNKNOWN = "unknown"
    """No answer, or one of trouble (5xx): it may be there or not, but whole, and not twice."""


@dataclass(slots=True)
class Operation:
    """One write a client asked for.

    Attributes:
        kind: what it does.
        sender: which of the clients sent it.
        round: in which round.
        method: of HTTP.
        path: of HTTP.
        body: as sent; holds the mark.
        text: what readers must find under the mark, character for character.
        mark: a word nothing else in the whole run holds.
        if_match: version it replaces.
        key: its idempotency key.
        request_ids: one for each time it was sent.
        outcome: what the client knows.
        statuses: what the answers were, in order; 0 where there was none.
        record: which record the first answer named; see ``client.record_of``.
    """

    kind: Kind
    sender: int
    round: int
    method: str
    path: str
    body: Mapping[str, Any]
    text: str
    mark: str
    if_match: int | None = None
    key: str = field(default_factory=ids.new_uuid)
    request_ids: list[str] = field(default_factory=list)
    outcome: Outcome = Outcome.UNKNOWN
    statuses: list[int] = field(default_factory=list)
    record: str | None = None

    @property
    def has_key(self) -> bool:
        """Tell whether repeating it is answered with the first result; an edit has ``If-Match`` instead."""
        return self.kind is not Kind.EDIT

    def told(self) -> str:
        """Return the facts of the operation for a report."""
        return (
            f"{self.kind.name} {self.mark} (round {self.round}, {self.method} {self.path}, key {self.key}): "
            f"{self.outcome}, answers {self.statuses}, record {self.record}"
        )


class Ledger:
    """Every operation of a run, by its mark."""

    def __init__(self) -> None:
        self._by_mark: dict[str, Operation] = {}

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._by_mark.values())

    def __contains__(self, mark: str) -> bool:
        return mark in self._by_mark

    def __len__(self) -> int:
        return len(self._by_mark)

    def add(self, operation: Operation) -> Operation:
        """Note an operation before it is sent."""
        self._by_mark[operation.mark] = operation
        return operation

    def of_round(self, number: int) -> list[Operation]:
        """Return the operations of one round, in the order of sending."""
        return [operation for operation in self if operation.round == number]


def new_mark() -> str:
    """Return a word that stands nowhere else; letters and digits only, so that it passes as a name."""
    return f"mark{secrets.token_hex(8)}"
