"""Structure every COMPOSITION must have; what is refused is named by place and never quoted."""

import copy
import datetime
from collections.abc import Callable
from decimal import Decimal

import pytest

from quill.errors import InvalidRecord
from quill.kit.documents import Document
from quill.letters.composition import compose_letter
from quill.ports.openehr_composition import DEEPEST_NESTING, check_composition, parse_date_time

SECRET = "Private-Words"
LETTER = compose_letter(
    object_id=None,
    title=SECRET,
    body=SECRET,
    author_id=7,
    author_name=SECRET,
    started_at=datetime.datetime(2026, 3, 2, 9, 0, tzinfo=datetime.UTC),
)


def changed(change: Callable[[Document], object]) -> Document:
    document = copy.deepcopy(LETTER)
    change(document)
    return document


def places(document: Document) -> list[list[str | int]]:
    with pytest.raises(InvalidRecord) as refusal:
        check_composition(document)
    assert SECRET not in f"{refusal.value} {refusal.value.facts}"
    return [list(each["loc"])[1:] for each in refusal.value.errors]


def test_letter_is_accepted() -> None:
    check_composition(LETTER)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (changed(lambda it: it.update(_type="SECTION")), ["_type"]),
        (changed(lambda it: it.pop("name")), ["name", "value"]),
        (changed(lambda it: it["name"].update(value="  ")), ["name", "value"]),
        (changed(lambda it: it.update(name=SECRET)), ["name", "value"]),
        (changed(lambda it: it.pop("archetype_node_id")), ["archetype_node_id"]),
        (changed(lambda it: it["archetype_details"].pop("template_id")), ["archetype_details", "template_id", "value"]),
        (changed(lambda it: it["archetype_details"].pop("rm_version")), ["archetype_details", "rm_version"]),
        (changed(lambda it: it["language"].pop("code_string")), ["language", "code_string"]),
        (changed(lambda it: it["territory"].update(code_string=44)), ["territory", "code_string"]),
        (changed(lambda it: it["category"].pop("value")), ["category", "value"]),
        (changed(lambda it: it.pop("composer")), ["composer"]),
        (changed(lambda it: it["composer"].update(_type="PERSON")), ["composer", "_type"]),
        (changed(lambda it: it["composer"].update(name="")), ["composer", "name"]),
        (changed(lambda it: it.update(composer={"_type": "PARTY_IDENTIFIED"})), ["composer"]),
        (changed(lambda it: it.update(context=[])), ["context"]),
        (changed(lambda it: it["context"].pop("start_time")), ["context", "start_time", "value"]),
        (changed(lambda it: it["context"]["start_time"].update(value=SECRET)), ["context", "start_time", "value"]),
        (changed(lambda it: it["context"].pop("setting")), ["context", "setting", "value"]),
        (changed(lambda it: it.update(content={})), ["content"]),
        (changed(lambda it: it["content"].append(SECRET)), ["content", 1, "_type"]),
        (changed(lambda it: it["content"][0].pop("archetype_node_id")), ["content", 0, "archetype_node_id"]),
        (changed(lambda it: it.update(uid={"value": ""})), ["uid", "value"]),
        (changed(lambda it: it["name"].update(value=f"{SECRET}\x00")), ["name", "value"]),
        (changed(lambda it: it["name"].update(value=f"{SECRET}\ud800")), ["name", "value"]),
        (changed(lambda it: it["name"].update({"\x00": 1})), ["name"]),
        (changed(lambda it: it.update(size=float("nan"))), ["size"]),
        (changed(lambda it: it.update(size=Decimal("Infinity"))), ["size"]),
        (changed(lambda it: it.update(size={1, 2})), ["size"]),
    ],
)
def test_broken_composition_is_refused_at_its_place(document: Document, place: list[str | int]) -> None:
    assert place in places(document)


def test_absurd_nesting_is_refused() -> None:
    nest: list[object] = []
    for _ in range(DEEPEST_NESTING * 50):
        nest = [nest]
    assert places(LETTER | {"content": nest}) == [[]]


def test_composition_without_context_and_content_is_one() -> None:
    check_composition(changed(lambda it: (it.pop("context"), it.pop("content"))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-02T09:00:00Z", (9, 0, 0, 0)),
        ("2026-03-02T09:00:00.5+01:00", (8, 0, 0, 500000)),
        ("2026-03-02T09:00:00,25-0130", (10, 30, 0, 250000)),
        ("20260302T090000Z", (9, 0, 0, 0)),
        ("2026-03-02T09:30", (9, 30, 0, 0)),
    ],
)
def test_date_time_is_read_as_utc(text: str, expected: tuple[int, int, int, int]) -> None:
    hour, minute, second, microsecond = expected
    wanted = datetime.datetime(2026, 3, 2, hour, minute, second, microsecond, tzinfo=datetime.UTC)
    assert parse_date_time(text) == wanted


@pytest.mark.parametrize(
    "text",
    [None, 5, "", "2026", "2026-03", "2026-03-02", "2026-02-30T09:00Z", "2026-W10-1T09:00", "0001-01-01T00:00+05:00"],
)
def test_what_is_no_date_time_is_none(text: object) -> None:
    assert parse_date_time(text) is None
