"""How a patient is called, and the numbers a patient is known by."""

from typing import Any

import pytest

from quill.kit.documents import Document
from quill.ports.fhir_patient import all_names, display_name, family_and_given, identifiers, nhs_number

NHS = "https://fhir.nhs.uk/Id/nhs-number"


def named(*names: object) -> Document:
    return {"resourceType": "Patient", "name": list(names)}


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"resourceType": "Patient"}, ""),
        (named({"family": "Ash"}), "Ash"),
        (named({"prefix": ["Dr"], "given": ["Jo", "Li"], "family": "Ash", "suffix": ["OBE"]}), "Dr Jo Li Ash OBE"),
        (named({"given": ["Jo", None], "_given": [None, {"id": "x"}]}), "Jo"),
        (named({"text": "Written Out"}), "Written Out"),
        (named({"family": "Parts", "text": "Other Words"}), "Parts"),
        (named({"use": "usual", "family": "Usual"}, {"use": "official", "family": "Official"}), "Official"),
        (named({"family": "First"}, {"use": "usual", "family": "Usual"}), "Usual"),
        (named({"use": "old", "family": "Old"}, {"use": "maiden", "family": "Born"}, {"family": "Now"}), "Now"),
        (named({"use": "old", "family": "Old"}), "Old"),
        (named({"use": "official", "period": {"start": "2001"}}, {"family": "Named"}), "Named"),
        ({"name": {"family": "Not a list"}}, ""),
        (named("text", {"family": 7, "given": "Jo"}, {"family": "Ash"}), "Ash"),
    ],
)
def test_the_name_shown_is_the_one_in_use(document: Document, shown: str) -> None:
    assert display_name(document) == shown


def test_family_and_given_belong_to_the_name_shown() -> None:
    document = named({"use": "old", "family": "Old"}, {"family": "Ash", "given": ["Jo", "Li"]})
    assert family_and_given(document) == ("Ash", ["Jo", "Li"])
    assert family_and_given(named({"text": "Only Words"})) == ("", [])
    assert family_and_given({}) == ("", [])


def test_all_names_are_for_searching_former_ones_too() -> None:
    document = named({"family": "Ash", "given": ["Jo"], "text": "Jo Ash"}, {"use": "maiden", "text": "Jo Elm"})
    assert all_names(document) == ["Jo Ash", "Jo Elm"]


def test_identifiers_without_a_value_are_left_out() -> None:
    held = [{"system": NHS, "value": "9990527113"}, {"value": "7"}, {"system": "urn:x"}, "no identifier"]
    assert identifiers({"identifier": held}) == [(NHS, "9990527113"), ("", "7")]


@pytest.mark.parametrize(
    ("held", "number"),
    [
        ([], None),
        ([{"system": "urn:x", "value": "9990527113"}], None),
        ([{"system": NHS}], None),
        ([{"system": NHS, "value": " 999 052\u00a07113 "}], "9990527113"),
        ([{"system": NHS, "value": "9991054227", "use": "old"}, {"system": NHS, "value": "9990527113"}], "9990527113"),
    ],
)
def test_the_nhs_number_is_the_current_one_without_spaces(held: list[Any], number: str | None) -> None:
    assert nhs_number({"identifier": held}) == number
