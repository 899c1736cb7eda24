"""Demographics as documents: building a new Patient, and applying what a form changes without losing the rest.

Everything here is pure. What a form does not tell about stays: other names, other identifiers, other telephone
numbers, elements Quill does not know. Source of the shapes: FHIR R4 (4.0.1), ``patient.html``, ``HumanName``,
``Identifier``, ``ContactPoint``, ``Address``.
"""

import copy
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quill.errors import Unprocessable
from quill.kit.documents import Document
from quill.patients import nhs_number
from quill.ports.fhir_patient import NHS_NUMBER_SYSTEM

MRN_SYSTEM = "http://hospital.example.org/identifiers/mrn"
"""The system of medical record numbers, at creation and at every change alike."""
AVATAR_URL = "urn:quillmedical:avatar-gradient"
AVATARS = 30
"""Clients draw one of thirty gradients, 0..29."""

_NAME_PARTS = ("family", "given", "prefix", "suffix")
_FORMER_NAMES = ("old", "maiden")


@dataclass(frozen=True, slots=True)
class Changes:
    """What somebody tells about a patient; what is ``None`` or missing is not told about.

    Attributes:
        given_name: all given names as one text.
        family_name: the family name.
        birth_date: FHIR date.
        gender: FHIR administrative gender.
        names: FHIR ``HumanName`` entries; one replaces the parts of the name of the same use.
        identifiers: FHIR ``Identifier`` entries; they replace those of the same system.
        address: parts of the first current address, which they replace whole.
        contact: ``phone`` and ``email``; each replaces the value of the first current one of its kind.
        elements: FHIR elements replaced whole; an empty list takes the element away.
    """

    given_name: str | None = None
    family_name: str | None = None
    birth_date: str | None = None
    gender: str | None = None
    names: list[Document] | None = None
    identifiers: list[Document] | None = None
    address: Document | None = None
    contact: Mapping[str, str] | None = None
    elements: Mapping[str, Any] = field(default_factory=dict)


def new_document(patient_id: str, changes: Changes) -> Document:
    """Return a new Patient under an id, with a random avatar."""
    avatar = {"url": AVATAR_URL, "valueInteger": secrets.randbelow(AVATARS)}
    document: Document = {"resourceType": "Patient", "id": patient_id, "extension": [avatar]}
    return with_changes(document, changes)


def with_changes(document: Document, changes: Changes) -> Document:
    """Return a Patient with changes applied; the one given stays as it is.

    Raises:
        Unprocessable: 422, an NHS number among the identifiers is none.
    """
    changed = copy.deepcopy(document)
    if changes.names is not None:
        changed["name"] = _grouped(_objects(changed, "name"), changes.names, _use_of, merge=merged_name)
    _rename(changed, changes)
    for element, value in (("birthDate", changes.birth_date), ("gender", changes.gender)):
        if value is not None and changed.get(element) != value:
            changed[element] = value
            changed.pop(f"_{element}", None)
    if changes.identifiers is not None:
        told = [checked_identifier(identifier) for identifier in changes.identifiers]
        changed["identifier"] = _grouped(_objects(changed, "identifier"), told, _system_of, merge=_merged_identifier)
    if changes.address is not None:
        changed["address"] = _with_address(_objects(changed, "address"), changes.address)
    if changes.contact:
        changed["telecom"] = _with_contact(_objects(changed, "telecom"), changes.contact)
    _replace(changed, changes.elements)
    return changed


def _replace(changed: Document, elements: Mapping[str, Any]) -> None:
    for element, value in elements.items():
        if element.startswith("deceased"):
            for choice in ("deceasedBoolean", "deceasedDateTime"):
                changed.pop(choice, None)
                changed.pop(f"_{choice}", None)
        changed[element] = value
        if value == []:
            del changed[element]


def _rename(changed: Document, changes: Changes) -> None:
    parts: Document = {}
    names = _objects(changed, "name")
    position = _current_name(names)
    current = names[position] if position is not None else {}
    if changes.family_name is not None:
        parts["family"] = changes.family_name
    if changes.given_name is not None and changes.given_name not in _given_names_as_shown(current):
        parts["given"] = [changes.given_name]
    if not parts:
        return
    if position is None:
        changed["name"] = [{"use": "official", **parts}, *names]
    else:
        changed["name"] = [*names[:position], merged_name(current, parts), *names[position + 1 :]]


def _given_names_as_shown(name: Document) -> tuple[str, ...]:
    """Return the texts a form may show for a name's given names; sent back unchanged, they change nothing."""
    given = [part for part in name.get("given", []) if isinstance(part, str)]
    return (given[0], " ".join(given)) if given else ()


def _current_name(names: list[Document]) -> int | None:
    """Return where the name stands that a form shows: the official one, else the usual one, else the first current."""
    for use in ("official", "usual"):
        for position, name in enumerate(names):
            if name.get("use") == use:
                return position
    return next((at for at, name in enumerate(names) if name.get("use") not in _FORMER_NAMES), None)


def merged_name(name: Document, told: Document) -> Document:
    """Return a name with the parts told replaced and the others kept; a text that says the old name goes."""
    merged = {**name, **told}
    changed = [part for part in _NAME_PARTS if part in told and told[part] != name.get(part)]
    outdated = [f"_{part}" for part in changed] + (["text", "_text"] if changed else [])
    for element in outdated:
        if element not in told:
            merged.pop(element, None)
    return merged


def checked_identifier(identifier: Document) -> Document:
    """Return an identifier as it is stored: an NHS number in use is checked and loses its spaces.

    Raises:
        Unprocessable: 422, it is no NHS number.
    """
    value = identifier.get("value")
    if identifier.get("system") != NHS_NUMBER_SYSTEM or identifier.get("use") == "old" or not isinstance(value, str):
        return identifier
    try:
        return {**identifier, "value": nhs_number.normalised(value)}
    except nhs_number.InvalidNhsNumber as error:
        raise Unprocessable.at("identifier", str(error), kind="nhs_number") from error


def _merged_identifier(identifier: Document, told: Document) -> Document:
    """Return the identifier told, with the use and type of the one it replaces; what was said of its value is gone."""
    if identifier.get("value") == told.get("value"):
        return {**identifier, **told}
    return {**_parts(identifier, "use", "type", "assigner"), **told}


def _with_address(addresses: list[Document], told: Document) -> list[Document]:
    position = next((at for at, address in enumerate(addresses) if address.get("use") != "old"), None)
    if position is None:
        return [told, *addresses]
    kept = _parts(addresses[position], "use", "type")
    return [*addresses[:position], {**kept, **told}, *addresses[position + 1 :]]


def _with_contact(telecom: list[Document], told: Mapping[str, str]) -> list[Document]:
    changed = list(telecom)
    for system, value in told.items():
        is_current = (at for at, point in enumerate(changed) if point.get("system") == system)
        position = next((at for at in is_current if changed[at].get("use") != "old"), None)
        if position is None:
            changed.append({"system": system, "value": value})
        elif changed[position].get("value") != value:
            changed[position] = {"system": system, "value": value, **_parts(changed[position], "use", "rank")}
    return changed


def _use_of(name: Document) -> object:
    return name.get("use", "official")


def _system_of(identifier: Document) -> object:
    # A former number stays beside the one in use.
    return (identifier.get("system"), identifier.get("use") == "old")


def _grouped(
    entries: list[Document],
    told: list[Document],
    group_of: Callable[[Document], object],
    *,
    merge: Callable[[Document, Document], Document],
) -> list[Document]:
    """Return entries with those told put in place of their group's; groups not told about stay.

    Where a group has one entry and one is told, they are merged; otherwise what is told replaces the whole group.
    """
    result: list[Document] = []
    remaining = list(told)
    for entry in entries:
        group = group_of(entry)
        new = [candidate for candidate in told if group_of(candidate) == group]
        if not new:
            result.append(entry)
            continue
        if group not in [group_of(candidate) for candidate in remaining]:
            continue
        remaining = [candidate for candidate in remaining if group_of(candidate) != group]
        is_pair = len(new) == 1 and sum(group_of(other) == group for other in entries) == 1
        result.extend([merge(entry, new[0])] if is_pair else new)
    return result + remaining


def _parts(element: Document, *names: str) -> Document:
    return {name: element[name] for name in names if name in element}


def _objects(document: Document, element: str) -> list[Document]:
    return [entry for entry in document.get(element, []) if isinstance(entry, dict)]
