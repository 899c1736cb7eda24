"""Folding: a table of how names are compared."""

import pytest

from quill.kit.text import fold


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Müller", "muller"),
        ("O'Neill", "oneill"),
        ("Siân  Llŷr", "sian llyr"),
        ("Łukasz ŁÓDŹ", "lukasz lodz"),
        ("Søren Ødegård", "soren odegard"),
        ("Ǿrsted", "orsted"),
        ("Đorđević", "dordevic"),
        ("Ħamrun", "hamrun"),
        ("Æsa Hæstrup Ǽ", "aesa haestrup ae"),
        ("Œuvrard cœur", "oeuvrard coeur"),
        ("Þóra Ðóra", "thora dora"),
        ("Weiß WEIẞ", "weiss weiss"),
        ("İnci I\N{LATIN SMALL LETTER DOTLESS I}l", "inci iil"),
    ],
)
def test_name_is_folded_as_it_would_be_typed_without_its_letters(name: str, folded: str) -> None:
    assert fold(name) == folded
    assert fold(name.upper()) == folded
    assert fold(folded) == folded
