"""A letter becomes a composition and comes back unchanged; the template defines everything a letter uses."""

import copy
import datetime
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quill.errors import OpenEhrRefused
from quill.kit.documents import Document, dumps, loads
from quill.letters.composition import (
    COMPOSITION_ARCHETYPE,
    SYNOPSIS_ARCHETYPE,
    TEMPLATE_ID,
    LetterContent,
    compose_letter,
    operational_template,
    read_letter,
)
from quill.ports.openehr_composition import check_composition

OPT = "{http://schemas.openehr.org/v1}"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
OBJECT_ID = "0190f9a8-7a3b-7c55-8d2e-0123456789ab"
STARTED_AT = datetime.datetime(2026, 3, 2, 9, 0, 0, 123456, tzinfo=datetime.UTC)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(str.strip)


def letter(**changes: object) -> Document:
    facts: dict[str, Any] = {
        "object_id": OBJECT_ID,
        "title": "Clinic letter",
        "body": "All is *well*.",
        "author_id": 7,
        "author_name": "A. Author",
        "started_at": STARTED_AT,
    }
    return compose_letter(**(facts | changes))


@given(
    title=texts,
    body=texts,
    author_name=texts,
    author_id=st.integers(min_value=1, max_value=2**63 - 1),
    started_at=st.datetimes(
        min_value=datetime.datetime(1900, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
        max_value=datetime.datetime(9999, 1, 1),  # noqa: DTZ001
        timezones=st.timezones(),
    ),
)
def test_any_letter_comes_back_as_it_was(
    title: str, body: str, author_name: str, author_id: int, started_at: datetime.datetime
) -> None:
    document = letter(title=title, body=body, author_name=author_name, author_id=author_id, started_at=started_at)
    check_composition(document)
    created_at = started_at.astimezone(datetime.UTC)
    assert read_letter(loads(dumps(document))) == LetterContent(title, body, author_name, author_id, created_at)


@pytest.mark.parametrize(
    "body",
    [
        "# Heading\r\n\r\n- a\n- b",
        "| a | b |\n|---|---|",
        "👩🏽‍⚕️ naïve Ωmega العربية",
        " \t indented\n",
        "<b>&amp;</b>",
        "\\",
    ],
)
def test_letter_text_sits_where_readers_look_for_it(body: str) -> None:
    document = loads(dumps(letter(body=body)))
    assert document["content"][0]["data"]["items"][0]["value"]["value"] == body


@pytest.mark.parametrize(
    ("object_id", "expected"),
    [
        (None, None),
        (OBJECT_ID, {"_type": "HIER_OBJECT_ID", "value": OBJECT_ID}),
        (f"{OBJECT_ID}::quill.local::2", {"_type": "OBJECT_VERSION_ID", "value": f"{OBJECT_ID}::quill.local::2"}),
    ],
)
def test_uid_has_the_type_of_its_form(object_id: str | None, expected: Document | None) -> None:
    assert letter(object_id=object_id).get("uid") == expected


def test_letter_says_what_the_reference_model_wants() -> None:
    document = letter()
    assert document["territory"]["code_string"] == "GB"
    assert document["language"]["code_string"] == "en"
    assert document["category"]["defining_code"]["code_string"] == "433"
    assert document["context"]["setting"]["defining_code"]["code_string"] == "238"
    assert document["context"]["start_time"]["value"] == "2026-03-02T09:00:00.123456Z"
    assert document["archetype_details"]["template_id"]["value"] == TEMPLATE_ID
    assert document["composer"]["external_ref"]["id"] == {"_type": "GENERIC_ID", "value": "7", "scheme": "quill"}


def test_every_object_of_a_letter_names_its_type() -> None:
    assert all("_type" in each for each in objects(letter()))


def changed(change: Callable[[Document], object]) -> Document:
    document = copy.deepcopy(letter())
    change(document)
    return document


@pytest.mark.parametrize(
    "document",
    [
        {},
        changed(lambda it: it.update(_type="EVALUATION")),
        changed(lambda it: it.pop("name")),
        changed(lambda it: it.pop("composer")),
        changed(lambda it: it.pop("context")),
        changed(lambda it: it["context"].pop("start_time")),
        changed(lambda it: it["context"]["start_time"].update(value="soon")),
        changed(lambda it: it.pop("content")),
        changed(lambda it: it.update(content=[])),
        changed(lambda it: it["content"][0].update(archetype_node_id="openEHR-EHR-EVALUATION.other.v1")),
        changed(lambda it: it["content"][0].pop("data")),
        changed(lambda it: it["content"][0]["data"].update(items=[])),
        changed(lambda it: it["content"][0]["data"].update(items=3)),
        changed(lambda it: it["content"][0]["data"]["items"][0].pop("value")),
    ],
)
def test_document_that_is_no_letter_is_trouble(document: Document) -> None:
    with pytest.raises(OpenEhrRefused):
        read_letter(document)


def test_letter_of_a_foreign_author_has_no_user_of_ours() -> None:
    composer = {"_type": "PARTY_IDENTIFIED", "name": "F. Foreign"}
    reference = {"_type": "PARTY_REF", "namespace": "elsewhere", "type": "PERSON"}
    identifier = {"_type": "GENERIC_ID", "value": "7", "scheme": "elsewhere"}
    for external_ref in ({}, {"external_ref": reference | {"id": identifier}}):
        content = read_letter(letter() | {"composer": composer | external_ref})
        assert (content.author_name, content.author_id) == ("F. Foreign", None)


@pytest.mark.parametrize("value", ["", "seven", "-7", "\u0667", 7, None])
def test_reference_that_is_no_user_id_is_not_taken_for_one(value: object) -> None:
    document = changed(lambda it: it["composer"]["external_ref"]["id"].update(value=value))
    assert read_letter(document).author_id is None


def test_letter_by_the_patient_needs_no_name() -> None:
    assert read_letter(letter() | {"composer": {"_type": "PARTY_SELF"}}).author_name == ""


def test_letter_among_other_entries_is_found() -> None:
    other = {"_type": "OBSERVATION", "archetype_node_id": "openEHR-EHR-OBSERVATION.story.v1"}
    assert read_letter(changed(lambda it: it["content"].insert(0, other))).body == "All is *well*."


def test_start_time_without_a_zone_is_read_as_utc() -> None:
    document = changed(lambda it: it["context"]["start_time"].update(value="2026-03-02T09:00:00,5"))
    assert read_letter(document).created_at == STARTED_AT.replace(microsecond=500000)


def test_template_has_its_parts_in_the_order_of_the_schema() -> None:
    root = template_tree()
    assert root.tag == f"{OPT}template"
    names = [child.tag.removeprefix(OPT) for child in root]
    assert names == ["language", "description", "uid", "template_id", "concept", "definition"]
    assert root.findtext(f"{OPT}template_id/{OPT}value") == root.findtext(f"{OPT}concept") == TEMPLATE_ID


ORDERS = {
    "occurrences": ["lower_included", "upper_included", "lower_unbounded", "upper_unbounded", "lower", "upper"],
    "C_SINGLE_ATTRIBUTE": ["rm_attribute_name", "existence", "children"],
    "C_MULTIPLE_ATTRIBUTE": ["rm_attribute_name", "existence", "children", "cardinality"],
    "C_COMPLEX_OBJECT": ["rm_type_name", "occurrences", "node_id", "attributes"],
    "C_CODE_PHRASE": ["rm_type_name", "occurrences", "node_id", "terminology_id", "code_list"],
    "C_ARCHETYPE_ROOT": [
        "rm_type_name",
        "occurrences",
        "node_id",
        "attributes",
        "archetype_id",
        "template_id",
        "term_definitions",
    ],
}
ORDERS |= {"existence": ORDERS["occurrences"], "interval": ORDERS["occurrences"]}


def test_every_constraint_of_the_template_follows_the_order_of_the_schema() -> None:
    checked = set()
    for element in template_tree().iter():
        kind = element.get(XSI_TYPE) or element.tag.removeprefix(OPT)
        if kind in ORDERS:
            checked.add(kind)
            places = [ORDERS[kind].index(child.tag.removeprefix(OPT)) for child in element]
            assert places == sorted(places), kind
    assert checked == set(ORDERS)


def test_template_defines_every_code_and_archetype_a_letter_uses() -> None:
    root = template_tree()
    defined = {}
    for element in root.iter():
        archetype_id = element.findtext(f"{OPT}archetype_id/{OPT}value")
        if archetype_id is not None:
            defined[archetype_id] = {each.get("code") for each in element.findall(f"{OPT}term_definitions")}
    assert set(defined) == {COMPOSITION_ARCHETYPE, SYNOPSIS_ARCHETYPE}
    nodes = {each["archetype_node_id"] for each in objects(letter()) if "archetype_node_id" in each}
    codes = {each for each in nodes if each.startswith("at")}
    assert nodes - codes == set(defined)
    assert codes | {"at0000"} == defined[SYNOPSIS_ARCHETYPE]
    used = {element.text for element in root.iter(f"{OPT}node_id") if element.text}
    assert used <= defined[SYNOPSIS_ARCHETYPE] | defined[COMPOSITION_ARCHETYPE]


def test_template_leaves_the_title_free() -> None:
    constrained = {each.text for each in template_tree().iter(f"{OPT}rm_attribute_name")}
    assert constrained.isdisjoint({"name", "composer", "language", "territory"})


def template_tree() -> ET.Element:
    return ET.fromstring(operational_template())  # noqa: S314 - our own file


def objects(value: object) -> Iterator[Document]:
    if isinstance(value, dict):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from objects(part)
