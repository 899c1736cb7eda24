"""A letter as an openEHR composition, and back: pure functions, no store.

Source: openEHR Reference Model 1.0.4, ``COMPOSITION``, ``EVALUATION``; openEHR ITS-JSON (canonical JSON); the template
``templates/quill_clinical_letter.v1.opt``. Codes are of the openEHR Terminology 2.x, groups *composition category* and
*setting*.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from quill.errors import InvalidRecord, OpenEhrRefused
from quill.kit import clock
from quill.kit.documents import Document
from quill.ports.openehr_composition import check_elements, parse_date_time

TEMPLATE_ID = "quill_clinical_letter.v1"
"""Identifier of the operational template every letter is written under."""

COMPOSITION_ARCHETYPE = "openEHR-EHR-COMPOSITION.report.v1"
SYNOPSIS_ARCHETYPE = "openEHR-EHR-EVALUATION.clinical_synopsis.v1"
RM_VERSION = "1.0.4"
USER_NAMESPACE = "quill"
"""Namespace and scheme of a composer's ``external_ref`` that names one of our users."""

_SYNOPSIS_TREE = "at0001"
_SYNOPSIS_ELEMENT = "at0002"


@dataclass(frozen=True, slots=True)
class LetterContent:
    """What a composition of the letter template says.

    Attributes:
        title: ``name/value``.
        body: the synopsis, Markdown.
        author_name: ``composer/name``; empty when the composer is known only by reference, which openEHR allows.
        author_id: our own user id of the author; ``None`` when the composition was written elsewhere.
        created_at: ``context/start_time``, aware UTC.
    """

    title: str
    body: str
    author_name: str
    author_id: int | None
    created_at: datetime.datetime


def operational_template() -> str:
    """Return the letter's operational template, ADL 1.4 XML, as an openEHR store takes it."""
    file = resources.files("quill.letters") / "templates" / f"{TEMPLATE_ID}.opt"
    return file.read_text(encoding="utf-8")


def compose_letter(
    *,
    object_id: str | None,
    title: str,
    body: str,
    author_id: int,
    author_name: str,
    started_at: datetime.datetime,
) -> Document:
    """Return a letter as canonical COMPOSITION JSON.

    Args:
        object_id: the object id we minted (a UUID), or a version uid when amending; ``None`` lets the store mint one.
        title: the title, not blank.
        body: the text, Markdown; found at ``content[0].data.items[0].value.value``.
        author_id: our user id of the author.
        author_name: the author's name as it is shown.
        started_at: when the letter was written, aware; the same for every version of it.
    """
    document: Document = {"_type": "COMPOSITION", "name": _text(title)}
    if object_id is not None:
        kind = "OBJECT_VERSION_ID" if "::" in object_id else "HIER_OBJECT_ID"
        document["uid"] = {"_type": kind, "value": object_id}
    return document | {
        "archetype_node_id": COMPOSITION_ARCHETYPE,
        "archetype_details": _archetyped(COMPOSITION_ARCHETYPE)
        | {"template_id": {"_type": "TEMPLATE_ID", "value": TEMPLATE_ID}},
        "language": _code("ISO_639-1", "en"),
        "territory": _code("ISO_3166-1", "GB"),
        "category": _coded_text("event", "433"),
        "composer": {
            "_type": "PARTY_IDENTIFIED",
            "name": author_name,
            "external_ref": {
                "_type": "PARTY_REF",
                "id": {"_type": "GENERIC_ID", "value": str(author_id), "scheme": USER_NAMESPACE},
                "namespace": USER_NAMESPACE,
                "type": "PERSON",
            },
        },
        "context": {
            "_type": "EVENT_CONTEXT",
            "start_time": {"_type": "DV_DATE_TIME", "value": clock.rfc3339(started_at)},
            "setting": _coded_text("other care", "238"),
        },
        "content": [_synopsis(body)],
    }


def read_letter(document: Document) -> LetterContent:
    """Return what a composition of the letter template says, whoever wrote it.

    The author may be any PARTY_PROXY, and the entry may stand among others; what the Reference Model and the template
    make mandatory must be there.

    Raises:
        OpenEhrRefused: 502, the document is no COMPOSITION, or has no synopsis or no start time.
    """
    try:
        check_elements(document)
        start_time = document["context"]["start_time"]["value"]
        body = next(_synopses(document))
    except (InvalidRecord, KeyError, TypeError, StopIteration) as error:
        raise OpenEhrRefused from error
    created_at = parse_date_time(start_time)
    if created_at is None:
        raise OpenEhrRefused
    return LetterContent(
        title=document["name"]["value"],
        body=body,
        author_name=_composer_name(document),
        author_id=_composer_id(document),
        created_at=created_at,
    )


def _synopsis(body: str) -> Document:
    element = {
        "_type": "ELEMENT",
        "name": _text("Synopsis"),
        "archetype_node_id": _SYNOPSIS_ELEMENT,
        "value": _text(body),
    }
    return {
        "_type": "EVALUATION",
        "name": _text("Clinical synopsis"),
        "archetype_node_id": SYNOPSIS_ARCHETYPE,
        "archetype_details": _archetyped(SYNOPSIS_ARCHETYPE),
        "language": _code("ISO_639-1", "en"),
        "encoding": _code("IANA_character-sets", "UTF-8"),
        "subject": {"_type": "PARTY_SELF"},
        "data": {
            "_type": "ITEM_TREE",
            "name": _text("List"),
            "archetype_node_id": _SYNOPSIS_TREE,
            "items": [element],
        },
    }


def _synopses(document: Document) -> Iterator[str]:
    """Yield the text of every synopsis element; a malformed entry raises ``KeyError`` or ``TypeError``."""
    for entry in document["content"]:
        if entry["archetype_node_id"] != SYNOPSIS_ARCHETYPE:
            continue
        for item in entry["data"]["items"]:
            text = item["value"]["value"] if item["archetype_node_id"] == _SYNOPSIS_ELEMENT else None
            if isinstance(text, str):
                yield text


def _composer_name(document: Document) -> str:
    name = document["composer"].get("name")
    return name if isinstance(name, str) else ""


def _composer_id(document: Document) -> int | None:
    reference = document["composer"].get("external_ref")
    if not isinstance(reference, dict) or reference.get("namespace") != USER_NAMESPACE:
        return None
    identifier = reference.get("id")
    if not isinstance(identifier, dict) or identifier.get("scheme") != USER_NAMESPACE:
        return None
    value = identifier.get("value")
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else None


def _text(value: str) -> Document:
    return {"_type": "DV_TEXT", "value": value}


def _code(terminology: str, code: str) -> Document:
    return {
        "_type": "CODE_PHRASE",
        "terminology_id": {"_type": "TERMINOLOGY_ID", "value": terminology},
        "code_string": code,
    }


def _coded_text(value: str, code: str) -> Document:
    return {"_type": "DV_CODED_TEXT", "value": value, "defining_code": _code("openehr", code)}


def _archetyped(archetype_id: str) -> Document:
    return {
        "_type": "ARCHETYPED",
        "archetype_id": {"_type": "ARCHETYPE_ID", "value": archetype_id},
        "rm_version": RM_VERSION,
    }
