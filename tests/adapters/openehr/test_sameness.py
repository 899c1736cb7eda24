"""Whether a letter a server holds is the one that was sent to it."""

import copy
from collections.abc import Callable

import pytest

from quill.adapters.openehr.sameness import is_same_content
from quill.kit.documents import Document
from tests.contracts.openehr_records import letter


def changed(change: Callable[[Document], object]) -> Document:
    document = letter()
    change(document)
    return document


@pytest.mark.parametrize(
    "stored",
    [
        changed(lambda it: it.update(uid={"value": "x"})),
        changed(lambda it: it["archetype_details"]["template_id"].pop("_type")),
        changed(lambda it: it["context"]["start_time"].update(value="2026-03-02T11:00:00+02:00")),
        changed(lambda it: it.update(links=[], feeder_audit=None)),
    ],
)
def test_what_servers_add_does_not_make_another_letter(stored: Document) -> None:
    assert is_same_content(stored, letter())
    assert is_same_content(letter(), stored)


@pytest.mark.parametrize(
    "stored",
    [
        letter("Another title"),
        letter(body="all is well."),
        letter(author_id=8),
        changed(lambda it: it["context"]["start_time"].update(value="2026-03-02T09:00:01Z")),
        changed(lambda it: it["content"].append(copy.deepcopy(it["content"][0]))),
        changed(lambda it: it["name"].update(_type="DV_CODED_TEXT")),
        changed(lambda it: it.update(links=[{"_type": "LINK"}])),
        changed(lambda it: it.pop("territory")),
        changed(lambda it: it["name"].update(value=5)),
    ],
)
def test_other_content_is_another_letter(stored: Document) -> None:
    assert not is_same_content(stored, letter())
    assert not is_same_content(letter(), stored)


def test_texts_that_look_like_times_are_compared_as_texts() -> None:
    assert not is_same_content(letter(body="2026-03-02T09:00Z"), letter(body="2026-03-02T09:00:00Z"))
