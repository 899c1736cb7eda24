"""Whether two FHIR resources say the same, apart from what a store adds to them.

Numbers are compared digit for digit (FHIR R4, datatypes, ``decimal``). Profiles, tags and security labels are sets
(FHIR R4, ``resource.html``, ``Meta``), so their order says nothing.
"""

import hashlib
import html
from decimal import Decimal
from typing import Any

import msgspec

from quill.kit.documents import Document
from quill.ports.fhir_meta import comparable_meta

_SETS_IN_META = ("profile", "security", "tag")
_LARGEST_EXPONENT = 100
_XHTML = "div"
_BASE64 = ("data", "valueBase64Binary")

_encoder = msgspec.json.Encoder(decimal_format="number", order="deterministic")


def same_content(one: Document, other: Document) -> bool:
    """Tell whether two resources are the same to the letter."""
    return _content(one) == _content(other)


def says_the_same(sent: Document, kept: Document) -> bool:
    """Tell whether a resource a store keeps is the one it was sent, however the store writes it down.

    A store may write XHTML with other character references, base64 without white space, and a number without its
    exponent. It may have words of its own for a label: only system and code tell which one is meant.
    """
    return _content(_plain(_coded(sent))) == _content(_plain(_coded(kept)))


def content_digest(document: Document) -> bytes:
    """Return 16 bytes that are the same for two resources of which ``says_the_same`` holds."""
    return hashlib.sha256(_content(_plain(_coded(document)))).digest()[:16]


def _coded(document: Document) -> Document:
    """Return a document whose labels are their systems and codes."""
    meta = document.get("meta", {})
    labels = {
        name: [{part: label.get(part) for part in ("system", "code")} for label in meta[name]]
        for name in ("security", "tag")
        if name in meta
    }
    return {**document, "meta": {**meta, **labels}} if labels else document


def _content(document: Document) -> bytes:
    meta = {name: _as_set(name, value) for name, value in comparable_meta(document).items()}
    rest = {name: value for name, value in document.items() if name != "meta"}
    return _encoder.encode({**rest, "meta": meta} if meta else rest)


def _as_set(name: str, value: Any) -> Any:
    return sorted(value, key=_encoder.encode) if name in _SETS_IN_META and isinstance(value, list) else value


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {its_name: _plain(part, its_name) for its_name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part, name) for part in value]
    if isinstance(value, Decimal):
        return ["number", _written_out(value)]
    if isinstance(value, int) and not isinstance(value, bool):
        return ["number", str(value)]
    return _plain_text(value, name) if isinstance(value, str) else value


def _plain_text(text: str, name: str) -> str:
    if name == _XHTML:
        return html.unescape(text)
    return "".join(text.split()) if name in _BASE64 else text


def _written_out(number: Decimal) -> str:
    exponent = number.as_tuple().exponent
    is_moderate = isinstance(exponent, int) and abs(exponent) <= _LARGEST_EXPONENT
    return format(number, "f") if is_moderate else str(number)
