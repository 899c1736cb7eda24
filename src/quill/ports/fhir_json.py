"""The rules of FHIR's JSON that hold for every element, known to us or not.

No empty string, list or object; ``null`` only to keep a list and its primitive extensions in step; primitive extensions
(``_birthDate``) are elements; text that every database can store.

Source: FHIR R4, ``json.html``, and ``datatypes.html``, ``string``.
"""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quill.kit.documents import Document, dumps
from quill.ports.fhir_datatypes import Element

Place = tuple[str | int, ...]
Mistake = dict[str, Any]
"""One mistake as ``{loc, msg, type}``."""

_SUSPICIOUS = ('""', "[]", "{}", "null", "\\u0000", '"_', "NaN", "Infinity")
_ELEMENT_NAME = re.compile(r"_?[a-z][A-Za-z0-9]{0,63}")


@cache
def _element() -> TypeAdapter[Element]:
    return TypeAdapter(Element)


def mistake(place: Place, message: str, kind: str) -> Mistake:
    """Return one mistake; a name no element can have is left out of the place, for it may be anything.

    Args:
        place: names and list positions from the resource down to the element.
        message: what is wrong, without the value.
        kind: a stable word for the kind of mistake.
    """
    shown = [part if isinstance(part, int) or _ELEMENT_NAME.fullmatch(part) else "?" for part in place]
    return {"loc": shown, "msg": message, "type": kind}


def shape_mistakes(place: Place, error: ValidationError) -> Iterator[Mistake]:
    """Yield the mistakes a shape found below a place, without the values it found them in."""
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        yield mistake((*place, *found["loc"]), found["msg"], found["type"])


def json_mistakes(document: Document) -> Iterator[Mistake]:
    """Yield where a document breaks the rules of FHIR's JSON.

    Nearly every document is clean, which its text shows at a glance; only a suspicious one is walked through.
    """
    try:
        text = dumps(document)
    except RecursionError:
        yield mistake((), "The record is nested too deeply", "fhir_nesting")
    except (UnicodeError, TypeError):
        yield from _walk(document)
    else:
        if any(sign in text for sign in _SUSPICIOUS):
            yield from _walk(document)


def _walk(document: Document) -> Iterator[Mistake]:
    """Yield every mistake in a document, whatever its depth."""
    waiting: list[tuple[Place, object]] = [((), document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            yield from _object_mistakes(place, value)
            waiting.extend(((*place, name), part) for name, part in value.items() if part is not None)
        elif isinstance(value, list):
            if not value:
                yield mistake(place, "A list should not be empty", "fhir_empty")
            waiting.extend(((*place, index), part) for index, part in enumerate(value) if part is not None)
        else:
            yield from _value_mistakes(place, value)


def _object_mistakes(place: Place, value: Document) -> Iterator[Mistake]:
    if not value:
        yield mistake(place, "An object should not be empty", "fhir_empty")
    for name, part in value.items():
        yield from _value_mistakes((*place, name), name)
        if part is None:
            yield mistake((*place, name), "An element should be left out, not null", "fhir_null")
        elif isinstance(part, list):
            yield from _null_mistakes((*place, name), part, value.get(_partner(name)))
        if name.startswith("_"):
            yield from _primitive_extension_mistakes((*place, name), part)


def _partner(name: str) -> str:
    """Return the name under which a primitive's extensions stand, or the primitive of such a name."""
    return name[1:] if name.startswith("_") else f"_{name}"


def _null_mistakes(place: Place, values: list[Any], partner: object) -> Iterator[Mistake]:
    """Yield every ``null`` of a list that no value or extension stands beside."""
    beside = partner if isinstance(partner, list) else []
    for index, value in enumerate(values):
        if value is None and (index >= len(beside) or beside[index] is None):
            yield mistake((*place, index), "A list should hold null only beside an extension", "fhir_null")


def _primitive_extension_mistakes(place: Place, value: object) -> Iterator[Mistake]:
    """Yield what is wrong with the extensions of a primitive, or of a list of them."""
    elements = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
    for index, element in elements:
        if element is None:
            continue
        try:
            _element().validate_python(element, strict=True, extra="allow")
        except ValidationError as error:
            yield from shape_mistakes(place if index is None else (*place, index), error)


def _value_mistakes(place: Place, value: object) -> Iterator[Mistake]:
    if isinstance(value, str):
        if not value:
            yield mistake(place, "A text should not be empty", "fhir_empty")
        if not is_storable(value):
            yield mistake(place, "A text should hold characters only", "fhir_characters")
    elif isinstance(value, Decimal | float):
        # A Decimal is asked itself: as a float, a large one would be infinite.
        if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
            yield mistake(place, "A number should be finite", "fhir_decimal")
    elif not isinstance(value, int):
        yield mistake(place, "This is not a value of JSON", "fhir_json")


def is_storable(text: str) -> bool:
    """Tell whether every database can hold a text: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text
