"""JSON documents read and written without loss.

FHIR decimals carry their precision (``1.50`` is not ``1.5``; FHIR R4, datatypes, ``decimal``), so clinical documents
are decoded to :class:`decimal.Decimal` and written back digit for digit.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

Document = dict[str, Any]
"""A JSON object; numbers with a fraction or exponent are ``Decimal``."""

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


class NotADocument(ValueError):
    """The text is not JSON, not an object, or nested too deeply to be a record."""


def loads(text: str | bytes) -> Document:
    """Return the JSON object a text holds.

    Raises:
        NotADocument: broken JSON, a lone surrogate, something other than an object, or absurd nesting.
    """
    try:
        value = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise NotADocument("The text is not a readable JSON object.") from error
    if not isinstance(value, dict):
        raise NotADocument("The text is JSON, but not an object.")
    return value


def in_order(value: Any, first: Sequence[str] = ()) -> Any:
    """Return a document with its members in one order at every depth: those named first, then by name.

    The order has no meaning (RFC 8259, section 4), and every store has its own; a reader should not see which store it
    was.
    """
    if isinstance(value, dict):
        names = [name for name in first if name in value]
        names += sorted(value.keys() - set(first))
        return {name: in_order(value[name], first) for name in names}
    return [in_order(part, first) for part in value] if isinstance(value, list) else value


def dumps(value: object) -> str:
    """Return compact JSON text of a document or a list of documents."""
    return encoded(value).decode()


def encoded(value: object) -> bytes:
    """Return the same in UTF-8; an aware instant in UTC becomes RFC 3339 text, as ``clock.rfc3339`` writes it."""
    return _encoder.encode(value)
