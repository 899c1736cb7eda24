"""What a document looks like on a FHIR server elsewhere, and how it is turned back into what was written.

Two things servers do are undone here, so that what was written is what is read:

- **Ids of digits only.** HAPI FHIR keeps them for ids it assigns itself and refuses them from a client, so ``123`` is
  ``numeric-123`` over there. What is ``123`` over there, assigned by the server, is ``numeric-123`` here: each id has
  one name on either side and no two records ever share one. References follow.
- **Where a version came from.** HAPI FHIR replaces the fragment of ``meta.source`` by the id of the request that wrote
  the version. A fragment of our own therefore travels percent-encoded, and whatever fragment comes back is dropped.
"""

import re
from typing import Any

from quill.errors import InvalidRecord
from quill.kit.documents import Document
from quill.kit.ids import is_fhir_id
from quill.ports.fhir_content import OWN_META

NUMERIC = "numeric-"

_DIGITS = re.compile(r"[0-9]+")
_SWAPPED = re.compile(rf"(?:{NUMERIC})?[0-9]+")
_REFERENCE = re.compile(
    r"(?P<type>Patient|Communication|MedicationRequest)/(?P<id>[A-Za-z0-9\-.]{1,64})(?P<version>/_history/.+)?"
)
_HASH = re.compile(r"%(?P<escapes>(?:25)*)23|#")
_ESCAPED_HASH = re.compile(r"%(?P<escapes>(?:25)*)23")


def other_id(resource_id: str) -> str:
    """Return the name an id has on the other side; the same function leads there and back.

    An id of more digits than a name has room for beside the prefix comes out too long to be an id.
    """
    if not _SWAPPED.fullmatch(resource_id):
        return resource_id
    return NUMERIC + resource_id if _DIGITS.fullmatch(resource_id) else resource_id.removeprefix(NUMERIC)


def outward(document: Document) -> Document:
    """Return a valid document as it is sent.

    Raises:
        InvalidRecord: 422, its id has too many digits to be carried.
    """
    sent = _mapped(document)
    if not is_fhir_id(sent["id"]):
        raise InvalidRecord(
            errors=[{"loc": ["id"], "msg": "An id of digits only should be shorter", "type": "fhir_id"}]
        )
    meta = {name: value for name, value in document.get("meta", {}).items() if name not in OWN_META}
    if isinstance(meta.get("source"), str):
        meta["source"] = _HASH.sub(_escaped, meta["source"])
    return _with_meta(sent, meta)


def inward(document: Document) -> Document:
    """Return a document a server answered as it was written, with the server's version and time in ``meta``."""
    found = _mapped(document)
    meta = dict(document.get("meta", {}))
    if isinstance(meta.get("source"), str):
        source = _ESCAPED_HASH.sub(_unescaped, meta["source"].partition("#")[0])
        meta = {name: value for name, value in meta.items() if name != "source"} | (
            {"source": source} if source else {}
        )
    return _with_meta(found, meta)


def _with_meta(document: Document, meta: Document) -> Document:
    rest = {name: value for name, value in document.items() if name != "meta"}
    return {**rest, "meta": meta} if meta else rest


def _mapped(document: Document) -> Document:
    """Return a document whose id and references have their names of the other side; any but ``meta``, which stays."""
    mapped = {name: part if name == "meta" else _with_references(part) for name, part in document.items()}
    return {**mapped, "id": other_id(document["id"])}


def _with_references(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {its_name: _with_references(part, its_name) for its_name, part in value.items()}
    if isinstance(value, list):
        return [_with_references(part) for part in value]
    return _other_reference(value) if name == "reference" and isinstance(value, str) else value


def _other_reference(reference: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return reference
    return f"{match['type']}/{other_id(match['id'])}{match['version'] or ''}"


def _escaped(match: re.Match[str]) -> str:
    return "%23" if match[0] == "#" else f"%25{match['escapes']}23"


def _unescaped(match: re.Match[str]) -> str:
    return f"%{match['escapes'].removeprefix('25')}23" if match["escapes"] else "#"
