"""How an attempt to deliver something ended, whatever carried it."""

from dataclasses import dataclass
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Delivery:
    """The end of one attempt.

    Attributes:
        outcome: ``delivered``, handed over; ``retry``, may work later; ``refused``, never will; ``gone``, the receiver
            no longer exists and is to be forgotten.
        reason: a slug telling why; never a text from the other side, which may quote an address.
        retry_after_seconds: how long the other side asked to be left alone.
    """

    outcome: Literal["delivered", "retry", "refused", "gone"]
    reason: str = ""
    retry_after_seconds: int | None = None

    @classmethod
    def delivered(cls) -> Self:
        """Return the good end."""
        return cls("delivered")

    @classmethod
    def retry(cls, reason: str, after_seconds: int | None = None) -> Self:
        """Return the end of an attempt worth repeating."""
        return cls("retry", reason, after_seconds)

    @classmethod
    def refused(cls, reason: str) -> Self:
        """Return the end of an attempt not worth repeating."""
        return cls("refused", reason)
