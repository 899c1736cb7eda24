"""What every COMPOSITION must have, checked before it is sent anywhere; errors name elements, never their values.

Source: openEHR Reference Model 1.0.4, ``COMPOSITION`` (what has existence 1..1) and ``LOCATABLE``; openEHR ITS-JSON.
"""

import datetime
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, TypeAlias, TypeGuard

from quill.errors import InvalidRecord
from quill.kit.documents import Document

DEEPEST_NESTING = 200
"""Objects and lists inside one another; a level of the Reference Model takes two, no real composition comes near."""

Place: TypeAlias = tuple[str | int, ...]
"""Where in a document: attribute names and list positions from the root."""

Problem: TypeAlias = tuple[Place, str]
"""A place and what is wrong there, without the value."""

_COMPOSERS = {"PARTY_IDENTIFIED", "PARTY_RELATED", "PARTY_SELF"}
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# A full date and at least the hour; anything vaguer cannot order letters. Basic and extended ISO 8601 form.
_DATE_TIME = re.compile(r"\d{4}(-?)\d\d\1\d\dT\d\d[\d:.,]*(Z|[+-]\d\d(:?\d\d)?)?")

_REQUIRED_TEXTS: tuple[Place, ...] = (
    ("name", "value"),
    ("archetype_node_id",),
    ("archetype_details", "archetype_id", "value"),
    ("archetype_details", "template_id", "value"),
    ("archetype_details", "rm_version"),
    ("language", "terminology_id", "value"),
    ("language", "code_string"),
    ("territory", "terminology_id", "value"),
    ("territory", "code_string"),
    ("category", "value"),
    ("category", "defining_code", "terminology_id", "value"),
    ("category", "defining_code", "code_string"),
)


def check_composition(document: Document) -> None:
    """Return when a document can be kept and has what every COMPOSITION must have.

    Raises:
        InvalidRecord: 422, it does not; ``errors`` say where (``loc``) and what, without any value.
    """
    problems = list(_value_problems(document))
    if problems:
        raise invalid_composition(problems)
    check_elements(document)


def check_elements(document: Document) -> None:
    """Return when a document has what every COMPOSITION must have; for one that a store has kept as it is.

    Raises:
        InvalidRecord: 422, it does not; ``errors`` say where (``loc``) and what, without any value.
    """
    problems = [
        *_root_problems(document),
        *_composer_problems(document),
        *_context_problems(document),
        *_content_problems(document),
    ]
    if problems:
        raise invalid_composition(problems)


def invalid_composition(problems: list[Problem]) -> InvalidRecord:
    """Return the error that lists what is wrong with a composition, place by place."""
    errors = [{"loc": ["composition", *place], "msg": message, "type": "invalid_record"} for place, message in problems]
    return InvalidRecord("The composition does not meet the openEHR specification.", errors=errors)


def parse_date_time(text: object) -> datetime.datetime | None:
    """Return a DV_DATE_TIME value as an aware UTC instant; ``None`` when it is no date and time.

    openEHR lets the zone be left out (Reference Model 1.0.4, ``DV_DATE_TIME``); such a value is read as UTC, so that it
    means the same instant on every machine.
    """
    if not isinstance(text, str) or not _DATE_TIME.fullmatch(text):
        return None
    try:
        instant = datetime.datetime.fromisoformat(text)
        if instant.tzinfo is None:
            return instant.replace(tzinfo=datetime.UTC)
        return instant.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def _value_problems(document: Document) -> Iterator[Problem]:
    """Yield what no store could keep; without recursion, because the nesting is the caller's."""
    waiting: list[tuple[Place, Any]] = [((), document)]
    while waiting:
        place, value = waiting.pop()
        if len(place) > DEEPEST_NESTING:
            yield (), "It is nested too deeply."
            return
        if isinstance(value, dict):
            if any(not isinstance(key, str) or _UNSTORABLE.search(key) for key in value):
                yield place, "An attribute name is not readable text."
                return
            waiting += [((*place, key), part) for key, part in value.items()]
        elif isinstance(value, list):
            waiting += [((*place, position), part) for position, part in enumerate(value)]
        elif (message := _scalar_message(value)) is not None:
            yield place, message


def _scalar_message(value: object) -> str | None:
    if isinstance(value, str):
        return "The text holds a NUL or half a surrogate pair." if _UNSTORABLE.search(value) else None
    if isinstance(value, float | Decimal):
        return None if math.isfinite(value) else "The number is not finite."
    return None if value is None or isinstance(value, int) else "JSON has no such value."


def _root_problems(document: Document) -> Iterator[Problem]:
    if document.get("_type") != "COMPOSITION":
        yield ("_type",), "It must be COMPOSITION."
    for place in _REQUIRED_TEXTS:
        if not is_text(value_at(document, place)):
            yield place, "It is required and must not be blank."
    uid = document.get("uid")
    if uid is not None and not is_text(value_at(document, ("uid", "value"))):
        yield ("uid", "value"), "It must not be blank when there is a uid."


def _composer_problems(document: Document) -> Iterator[Problem]:
    composer = document.get("composer")
    if not isinstance(composer, dict):
        yield ("composer",), "It is required."
        return
    if composer.get("_type") not in _COMPOSERS:
        yield ("composer", "_type"), "It must name a kind of party."
    name = composer.get("name")
    if name is not None and not is_text(name):
        yield ("composer", "name"), "It must not be blank when there is one."
    known_by = (name, composer.get("external_ref"), composer.get("identifiers"))
    if composer.get("_type") == "PARTY_IDENTIFIED" and not any(known_by):
        yield ("composer",), "It must have a name, an identifier or a reference."


def _context_problems(document: Document) -> Iterator[Problem]:
    context = document.get("context")
    if context is None:
        return
    if not isinstance(context, dict):
        yield ("context",), "It must be an EVENT_CONTEXT."
        return
    if parse_date_time(value_at(document, ("context", "start_time", "value"))) is None:
        yield ("context", "start_time", "value"), "It must be a date and time."
    for place in (("context", "setting", "value"), ("context", "setting", "defining_code", "code_string")):
        if not is_text(value_at(document, place)):
            yield place, "It is required and must not be blank."


def _content_problems(document: Document) -> Iterator[Problem]:
    content = document.get("content")
    if content is None:
        return
    if not isinstance(content, list):
        yield ("content",), "It must be a list."
        return
    for position, entry in enumerate(content):
        for attribute in ("_type", "archetype_node_id"):
            if not isinstance(entry, dict) or not is_text(entry.get(attribute)):
                yield ("content", position, attribute), "It is required and must not be blank."


def value_at(document: object, place: Place) -> object:
    """Return the value at a place of attribute names, or ``None`` when the way there is missing or not an object."""
    for step in place:
        document = document.get(step) if isinstance(document, dict) else None
    return document


def is_text(value: object) -> TypeGuard[str]:
    """Tell whether a value is text with something in it."""
    return isinstance(value, str) and bool(value.strip())
