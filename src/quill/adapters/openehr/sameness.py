"""Whether a composition a server holds is the one that was sent to it, allowing for what servers add.

Source: openEHR ITS-JSON: ``_type`` may be left out where the declared type is the concrete one, and empty attributes
may be left out; openEHR Reference Model 1.0.4, ``DV_DATE_TIME``: one instant may be written in several ways.
"""

from decimal import Decimal
from typing import Any

from quill.kit.documents import Document
from quill.ports.openehr_composition import parse_date_time


def is_same_content(stored: Document, sent: Document) -> bool:
    """Tell whether two versions of a composition say the same; their own ``uid`` is not what they say."""
    return _is_same(_without_uid(stored), _without_uid(sent))


def _without_uid(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "uid"}


def _is_same(stored: Any, sent: Any) -> bool:
    if isinstance(stored, dict) and isinstance(sent, dict):
        return all(_is_same_attribute(name, stored, sent) for name in stored.keys() | sent.keys())
    if isinstance(stored, list) and isinstance(sent, list):
        return len(stored) == len(sent) and all(map(_is_same, stored, sent))
    if isinstance(stored, str) and isinstance(sent, str):
        return stored == sent
    if isinstance(stored, bool) or isinstance(sent, bool):
        return stored is sent
    if isinstance(stored, int | Decimal) and isinstance(sent, int | Decimal | float):
        return Decimal(str(stored)) == Decimal(str(sent))
    return stored is None and sent is None


def _is_same_attribute(name: str, stored: Document, sent: Document) -> bool:
    here, there = stored.get(name), sent.get(name)
    if name == "_type" and (here is None or there is None):
        return True
    if name == "value" and "DV_DATE_TIME" in {stored.get("_type"), sent.get("_type")} and _is_same_instant(here, there):
        return True
    return (_is_empty(here) and _is_empty(there)) or _is_same(here, there)


def _is_empty(value: object) -> bool:
    return value is None or value in ([], {})


def _is_same_instant(stored: object, sent: object) -> bool:
    instant = parse_date_time(stored)
    return instant is not None and instant == parse_date_time(sent)
