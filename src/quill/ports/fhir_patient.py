"""What Quill reads out of a FHIR Patient: how to call the person, and the numbers the person is known by.

A remote store may hold records nobody checked, so a reader passes over what is not where it belongs.

Source: FHIR R4 (4.0.1), ``patient.html``, and ``datatypes.html``, ``HumanName`` and ``Identifier``.
"""

from collections.abc import Iterator

from quill.kit.documents import Document

NHS_NUMBER_SYSTEM = "https://fhir.nhs.uk/Id/nhs-number"
"""The system of NHS numbers (UK Core, ``UKCore-Patient``, identifier slice ``nhsNumber``)."""

_PREFERRED_USES = ("official", "usual")
_FORMER_USES = ("old", "maiden")


def display_name(document: Document) -> str:
    """Return the name to show for a patient: prefix, given names, family name, suffix.

    The official name, else the usual one, else the first that is not a former one, else the first; empty when the
    record names nobody.
    """
    name = _shown_name(document)
    return "" if name is None else _written_out(name)


def family_and_given(document: Document) -> tuple[str, list[str]]:
    """Return the family name and the given names of the name that is shown; empty where the record has none."""
    name = _shown_name(document)
    return ("", []) if name is None else (_text(name.get("family")), _texts(name.get("given")))


def all_names(document: Document) -> list[str]:
    """Return every name of a patient, former ones too, in the record's order; for searching.

    Each is written out from its parts; a ``text`` that says more stands beside it.
    """
    found: list[str] = []
    for name in _objects(document.get("name")):
        for written in (_from_parts(name), _text(name.get("text"))):
            if written and written not in found:
                found.append(written)
    return found


def identifiers(document: Document) -> list[tuple[str, str]]:
    """Return the system and value of every identifier that has a value; the system is empty where there is none."""
    pairs = ((_text(found.get("system")), _text(found.get("value"))) for found in _objects(document.get("identifier")))
    return [(system, value) for system, value in pairs if value]


def nhs_number(document: Document) -> str | None:
    """Return the patient's NHS number without spaces, or ``None``; a former one (``use`` ``old``) does not count."""
    for found in _objects(document.get("identifier")):
        if found.get("system") == NHS_NUMBER_SYSTEM and found.get("use") != "old":
            number = "".join(_text(found.get("value")).split())
            if number:
                return number
    return None


def _shown_name(document: Document) -> Document | None:
    names = [name for name in _objects(document.get("name")) if _written_out(name)]
    for use in _PREFERRED_USES:
        for name in names:
            if name.get("use") == use:
                return name
    current = [name for name in names if name.get("use") not in _FORMER_USES]
    return next(iter(current or names), None)


def _written_out(name: Document) -> str:
    return _from_parts(name) or _text(name.get("text"))


def _from_parts(name: Document) -> str:
    parts = (
        *_texts(name.get("prefix")),
        *_texts(name.get("given")),
        _text(name.get("family")),
        *_texts(name.get("suffix")),
    )
    return " ".join(part for part in parts if part)


def _objects(value: object) -> Iterator[Document]:
    return (part for part in value if isinstance(part, dict)) if isinstance(value, list) else iter(())


def _texts(value: object) -> list[str]:
    return [part for part in map(_text, value) if part] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
