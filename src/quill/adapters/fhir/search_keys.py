"""What a resource is found by: the values its search columns and keys hold, and what they are compared with."""

import hashlib
import re
from dataclasses import dataclass

from quill.kit.documents import Document
from quill.kit.ids import is_fhir_id
from quill.kit.text import fold
from quill.ports.fhir import SearchQuery, StoredResource
from quill.ports.fhir_json import is_storable
from quill.ports.fhir_patient import all_names, identifiers

IDENTIFIER = "identifier"
PART_OF = "part-of"

_LONGEST_KEY = 200
"""Characters of a key kept whole; a PostgreSQL index entry holds about 2,700 bytes (nbtree, ``BTMaxItemSize``)."""

_REFERENCE = re.compile(r"(?P<type>[A-Za-z]+)/(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_WHOLE_DATE_LENGTH = len("YYYY-MM-DD")


@dataclass(frozen=True, slots=True)
class SearchKeys:
    """What one resource is found by.

    Attributes:
        folded_names: a patient's names folded, one a line; ``None`` without a name.
        birth_date: ``YYYY-MM-DD``, or ``None`` when less is known.
        subject: the patient's id, or ``None``.
        many: ``(parameter, system, value)`` of every identifier and parent, each once.
    """

    folded_names: str | None = None
    birth_date: str | None = None
    subject: str | None = None
    many: tuple[tuple[str, str, str], ...] = ()


NOTHING = SearchKeys()
"""What a deleted resource is found by."""


def search_keys_of(document: Document) -> SearchKeys:
    """Return what a valid resource is found by."""
    many = [(IDENTIFIER, key_text(system), key_text(value)) for system, value in identifiers(document)]
    if document["resourceType"] == "Patient":
        birth_date = document.get("birthDate", "")
        return SearchKeys(
            folded_names="\n".join(fold(name) for name in all_names(document)) or None,
            birth_date=birth_date if len(birth_date) == _WHOLE_DATE_LENGTH else None,
            many=tuple(dict.fromkeys(many)),
        )
    parents = (_referred_id(reference, "Communication") for reference in document.get("partOf", ()))
    many.extend((PART_OF, "", parent) for parent in parents if parent is not None)
    return SearchKeys(subject=_referred_id(document.get("subject", {}), "Patient"), many=tuple(dict.fromkeys(many)))


def may_match(query: SearchQuery) -> bool:
    """Tell whether any resource could meet a query: ids are ids, texts can be stored, a name has letters."""
    ids_are_ids = all(is_fhir_id(value) for value in (query.part_of, query.subject) if value is not None)
    names_somebody = query.name is None or fold(query.name) != ""
    return ids_are_ids and names_somebody and is_storable(query.identifier or "")


def meets(found: StoredResource, query: SearchQuery) -> bool:
    """Tell whether a resource meets every criterion of a query that may match."""
    keys = search_keys_of(found.document)
    is_recent = query.last_updated_from is None or found.last_updated >= query.last_updated_from
    return (
        is_recent
        and _agrees(query.subject, keys.subject)
        and _agrees(query.birth_date.isoformat() if query.birth_date is not None else None, keys.birth_date)
        and (query.part_of is None or (PART_OF, "", query.part_of) in keys.many)
        and (query.name is None or fold(query.name) in (keys.folded_names or ""))
        and (query.identifier is None or _holds_identifier(keys, query.identifier))
    )


def _agrees(wanted: str | None, held: str | None) -> bool:
    return wanted is None or wanted == held


def _holds_identifier(keys: SearchKeys, identifier: str) -> bool:
    system, value = system_and_value(identifier)
    held = [(its_system, its_value) for parameter, its_system, its_value in keys.many if parameter == IDENTIFIER]
    if system is None:
        return any(its_value == key_text(value) for _, its_value in held)
    return (key_text(system), key_text(value)) in held


def system_and_value(identifier: str) -> tuple[str | None, str]:
    """Return the parts of ``system|value``; the system is ``None`` when any will do (FHIR R4, search, ``token``)."""
    system, bar, value = identifier.partition("|")
    return (system, value) if bar else (None, identifier)


def key_text(text: str) -> str:
    """Return a text as keys hold it: itself, or its beginning and digest when an index could not hold it.

    A shortened text is longer than any that is kept whole, so two different texts never share a key.
    """
    if len(text) <= _LONGEST_KEY:
        return text
    return text[:_LONGEST_KEY] + hashlib.sha256(text.encode()).hexdigest()


def _referred_id(reference: Document, resource_type: str) -> str | None:
    """Return the id a relative reference points to, or ``None`` when it points to another type or another server."""
    match = _REFERENCE.fullmatch(reference.get("reference", ""))
    return match["id"] if match is not None and match["type"] == resource_type else None
