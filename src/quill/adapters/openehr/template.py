"""An ADL 1.4 operational template, read as far as a composition is checked against it.

Checked are the type, node id and number of every object the template names, and its code lists; objects it does not
name are left alone, as EHRbase leaves them.

Source: openEHR Archetype Object Model 1.4; openEHR Template.xsd; openEHR ITS-JSON for where ``_type`` may be left out.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from quill.errors import InvalidRecord
from quill.kit.documents import Document
from quill.ports.openehr_composition import Place, Problem, invalid_composition, is_text

_NAMESPACE = {"t": "http://schemas.openehr.org/v1"}
_KIND = "{http://www.w3.org/2001/XMLSchema-instance}type"
# Attributes whose declared type is the concrete one, so that canonical JSON may leave ``_type`` out.
_TYPE_MAY_BE_OMITTED = {"category", "context", "defining_code", "name", "setting"}
_SUBTYPES = {"DV_TEXT": {"DV_CODED_TEXT"}, "EVENT": {"POINT_EVENT", "INTERVAL_EVENT"}}


@dataclass(frozen=True, slots=True)
class ObjectConstraint:
    """What an object must be.

    Attributes:
        rm_type: its Reference Model type.
        node_id: its ``archetype_node_id``; empty when it has none or any will do (a slot).
        lower: how often it must be there.
        upper: how often it may; ``None`` is any number.
        codes: the code strings allowed for a CODE_PHRASE; empty allows all.
        attributes: what its attributes must be.
    """

    rm_type: str
    node_id: str
    lower: int
    upper: int | None
    codes: frozenset[str]
    attributes: tuple["AttributeConstraint", ...]


@dataclass(frozen=True, slots=True)
class AttributeConstraint:
    """What an attribute must hold: each of the objects, in its own number."""

    name: str
    is_required: bool
    objects: tuple[ObjectConstraint, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A readable template: its id and what it says of a composition."""

    template_id: str
    root: ObjectConstraint


@functools.lru_cache(maxsize=32)
def read_template(content: str) -> Template:
    """Return the template an operational template's XML says.

    Raises:
        InvalidRecord: 422, it is not well-formed, or not a template of a COMPOSITION.
    """
    if "<!DOCTYPE" in content:
        raise InvalidRecord("The template must not declare a document type.")
    try:
        # No document type, so no entities: the attacks on this parser have nothing to work with.
        tree = ET.fromstring(content.encode())  # noqa: S314
        definition = tree.find("t:definition", _NAMESPACE)
        template_id = tree.findtext("t:template_id/t:value", "", _NAMESPACE).strip()
        if definition is None or not template_id or tree.tag != f"{{{_NAMESPACE['t']}}}template":
            raise InvalidRecord("The text is XML, but no operational template.")
        root = _object(definition)
    except (ET.ParseError, UnicodeEncodeError, ValueError, RecursionError) as error:
        raise InvalidRecord("The text is not a readable operational template.") from error
    if root.rm_type != "COMPOSITION" or not root.node_id:
        raise InvalidRecord("The template is not one of a COMPOSITION.")
    return Template(template_id, root)


def check_against(template: Template, document: Document) -> None:
    """Return when a composition holds what its template says.

    Raises:
        InvalidRecord: 422, it does not; says where, not with what value.
    """
    problems = list(_object_problems(template.root, document, ()))
    if not _is(template.root, document, "content"):
        problems.insert(0, (("archetype_node_id",), "The template is for another archetype."))
    if problems:
        raise invalid_composition(problems)


def _object(element: ET.Element) -> ObjectConstraint:
    archetype_id = element.findtext("t:archetype_id/t:value", "", _NAMESPACE)
    is_slot = element.get(_KIND, "") == "ARCHETYPE_SLOT"
    node_id = "" if is_slot else archetype_id or element.findtext("t:node_id", "", _NAMESPACE)
    unbounded = element.findtext("t:occurrences/t:upper_unbounded", "false", _NAMESPACE)
    return ObjectConstraint(
        # A generic type stands with its parameter in a template and without it in a document.
        rm_type=element.findtext("t:rm_type_name", "", _NAMESPACE).partition("<")[0],
        node_id=node_id,
        lower=int(element.findtext("t:occurrences/t:lower", "0", _NAMESPACE)),
        upper=None if unbounded == "true" else int(element.findtext("t:occurrences/t:upper", "1", _NAMESPACE)),
        codes=frozenset(code.text or "" for code in element.findall("t:code_list", _NAMESPACE)),
        attributes=tuple(_attribute(child) for child in element.findall("t:attributes", _NAMESPACE)),
    )


def _attribute(element: ET.Element) -> AttributeConstraint:
    return AttributeConstraint(
        name=element.findtext("t:rm_attribute_name", "", _NAMESPACE),
        is_required=element.findtext("t:existence/t:lower", "0", _NAMESPACE) != "0",
        objects=tuple(_object(child) for child in element.findall("t:children", _NAMESPACE)),
    )


def _object_problems(constraint: ObjectConstraint, value: Document, place: Place) -> Iterator[Problem]:
    if constraint.codes and value.get("code_string") not in constraint.codes:
        yield (*place, "code_string"), "The template does not allow this code."
    if constraint.rm_type in {"DV_TEXT", "DV_CODED_TEXT"} and not is_text(value.get("value")):
        yield (*place, "value"), "It is required and must not be blank."
    for attribute in constraint.attributes:
        yield from _attribute_problems(attribute, value, (*place, attribute.name))


def _attribute_problems(attribute: AttributeConstraint, owner: Document, place: Place) -> Iterator[Problem]:
    value = owner.get(attribute.name)
    if value is None or value == []:
        if attribute.is_required:
            yield place, "The template requires it."
    elif isinstance(value, list):
        # Nodes of one kind that a template tells apart only by name are judged together.
        for kind in dict.fromkeys((each.rm_type, each.node_id) for each in attribute.objects):
            alike = [each for each in attribute.objects if (each.rm_type, each.node_id) == kind]
            found = [((*place, n), part) for n, part in enumerate(value) if _is(alike[0], part, attribute.name)]
            yield from _number_problems(alike, len(found), place)
            for at, part in found:
                yield from _least_problems(alike, part, at)
    elif attribute.objects:
        fitting = [each for each in attribute.objects if _is(each, value, attribute.name)]
        if fitting:
            yield from _least_problems(fitting, value, place)
        else:
            yield place, f"The template requires {' or '.join(_words(each) for each in attribute.objects)} here."


def _least_problems(alternatives: list[ObjectConstraint], value: Document, place: Place) -> list[Problem]:
    return min((list(_object_problems(each, value, place)) for each in alternatives), key=len)


def _number_problems(alike: list[ObjectConstraint], count: int, place: Place) -> Iterator[Problem]:
    uppers = [each.upper for each in alike if each.upper is not None]
    if count < sum(each.lower for each in alike):
        yield place, f"The template requires {_words(alike[0])} here."
    elif len(uppers) == len(alike) and count > sum(uppers):
        yield place, f"The template does not allow so many of {_words(alike[0])} here."


def _words(constraint: ObjectConstraint) -> str:
    return f"{constraint.rm_type} {constraint.node_id}".strip()


def _is(constraint: ObjectConstraint, value: object, attribute: str) -> bool:
    """Tell whether a value is the kind of object a constraint is about."""
    if not isinstance(value, dict):
        return False
    kind = value.get("_type", constraint.rm_type if attribute in _TYPE_MAY_BE_OMITTED else None)
    is_kind = kind == constraint.rm_type or kind in _SUBTYPES.get(constraint.rm_type, ())
    return is_kind and constraint.node_id in {"", value.get("archetype_node_id")}
