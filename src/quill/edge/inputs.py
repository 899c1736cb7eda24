"""Rules for what comes in: unknown fields and query parameters are refused, text holds nothing a store cannot keep."""

from collections import Counter
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError
from pydantic_core.core_schema import no_info_before_validator_function, str_schema

from quill.edge.problems import printable
from quill.errors import Unprocessable
from quill.kit.paging import MAXIMUM_ROWS, PageRequest

DEEPEST_NESTING = 32
"""No body of ours nests half as deep; a deeper one is an attack or a mistake."""


def check_storable(value: object, depth: int = 0) -> None:
    """Refuse what no store keeps faithfully: NUL characters, lone surrogates, absurd nesting.

    Raises:
        PydanticCustomError: which of these it is; rendered as 422.
    """
    if depth > DEEPEST_NESTING:
        raise PydanticCustomError("nesting_too_deep", "The value is nested too deeply")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(str(key))
            check_storable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_storable(item, depth + 1)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise PydanticCustomError("nul_character", "Text must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("lone_surrogate", "Text must be valid Unicode") from error


class Input(BaseModel):
    """Parent of all request bodies: unknown fields are refused, and so is text that cannot be stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_storable(cls, data: Any) -> Any:
        check_storable(data)
        return data


def blank_as_absent(value: object) -> object:
    """Return ``None`` for a blank string: browser forms send ``""`` for a field left empty."""
    return None if isinstance(value, str) and not value.strip() else value


class _BlankAsAbsent:
    """Takes a blank string for nothing, and says so in the published schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(blank_as_absent, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        published = handler(schema)
        choices = published.pop("anyOf", None) or [published.copy()]
        if choices == [published]:
            published.clear()
        return published | {"anyOf": [*choices, {"type": "string", "pattern": r"^\s*$"}]}


BlankAsAbsent = _BlankAsAbsent()
"""Annotation of an optional field that a browser form may send as ``""``."""


class Trimmed:
    """Annotation of a text that is trimmed; its length is limited as it was sent, so spaces count until they are gone.

    Args:
        longest: characters it may have, as sent.
        shortest: characters it must have, trimmed.
    """

    def __init__(self, longest: int, *, shortest: int = 0) -> None:
        self._longest = longest
        self._shortest = shortest

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        text = str_schema(strip_whitespace=True, max_length=self._longest, min_length=self._shortest or None)
        return no_info_before_validator_function(self._check_as_sent, text)

    def _check_as_sent(self, value: object) -> object:
        if isinstance(value, str) and len(value) > self._longest:
            raise PydanticKnownError("string_too_long", {"max_length": self._longest})
        return value


Line = Annotated[str, Trimmed(255, shortest=1)]
"""One line of text, trimmed, not blank, at most 255 characters."""
OptionalLine = Annotated[Line | None, BlankAsAbsent]
"""A line, or nothing; blank counts as nothing."""


LARGEST_ROW_ID = 2**31 - 1


def _refuse_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


RowId = Annotated[int, BeforeValidator(_refuse_boolean), Field(ge=0, le=LARGEST_ROW_ID)]
"""The number of a row in a path: one the database can hold."""
RowNumber = Annotated[RowId, Field(strict=True)]
"""The number of a row in a body, where ``"1"`` is a text and ``true`` is not the number 1."""


async def refuse_unknown_query(request: Request) -> None:
    """Refuse a query parameter the route does not know, which is most often a misspelt filter, or one given twice.

    No parameter of ours is a list, so of two values one would be passed over in silence.

    Raises:
        RequestValidationError: 422, naming the parameter.
    """
    if not request.scope["query_string"]:
        return
    known = _known_query(request.scope["route"].dependant)
    given = Counter(name for name, _ in request.query_params.multi_items())
    problems = [
        _query_problem(name, "Unknown query parameter", "extra_forbidden") for name in given if name not in known
    ]
    problems += [
        _query_problem(name, "Query parameter given more than once", "repeated")
        for name, count in given.items()
        if name in known and count > 1
    ]
    if problems:
        raise RequestValidationError(problems)


def _query_problem(name: str, message: str, kind: str) -> dict[str, Any]:
    return {"loc": ("query", printable(name)), "msg": message, "type": kind}


def _known_query(dependant: Dependant) -> set[str]:
    names = {field.alias for field in dependant.query_params}
    for inner in dependant.dependencies:
        names |= _known_query(inner)
    return names


async def _page_request(
    limit: Annotated[int, Query(ge=1, le=MAXIMUM_ROWS, description="Rows wanted.")] = MAXIMUM_ROWS,
    cursor: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before; opaque.")
    ] = None,
) -> PageRequest:
    return PageRequest(limit=limit, cursor=cursor or None)


PageQuery = Annotated[PageRequest, Depends(_page_request)]
"""``limit`` and ``cursor`` of a list."""


def parse_if_match(value: str | None) -> int | None:
    """Return the version an ``If-Match`` header names, or ``None`` when it is absent or ``*``.

    Raises:
        Unprocessable: 422, the header is not one of our entity tags.
    """
    if value is None or value.strip() == "*":
        return None
    text = value.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text[:18]) < 2**31:
        raise Unprocessable(
            "If-Match must be an ETag this API gave",
            errors=[{"loc": ["header", "if-match"], "msg": "Not one of our entity tags", "type": "invalid_etag"}],
        )
    return int(text)


async def _if_match(
    if_match: Annotated[str | None, Header(max_length=64, description="`ETag` of the version this replaces.")] = None,
) -> int | None:
    return parse_if_match(if_match)


IfMatch = Annotated[int | None, Depends(_if_match)]
"""The version an edit replaces, if the caller said so."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Repeat it to repeat the call safely: the first result is answered again.",
    ),
]
"""The caller's own key for this write (``Idempotency-Key``)."""


def etag(version: int) -> str:
    """Return the weak entity tag of a version (RFC 9110, section 8.8.3; FHIR R4, http, ``versionId``)."""
    return f'W/"{version}"'
