"""Answers sent as they are: plain data encoded once.

FastAPI checks what a route returns against its model and copies it, object by object, before it encodes it; for a page
of rows that costs more than finding them. A route that returns one of these keeps its ``response_model`` for the
published API, which the tests hold every answer against.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response

from quill.kit.documents import encoded


def as_json(data: Mapping[str, Any] | Sequence[Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of plain data, instants included; numbers of clinical documents keep their digits."""
    return Response(encoded(data), media_type="application/json", headers=headers)
