"""NHS numbers against the published rule and against a library made for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nhs_number.validate import calculate_checksum

from quill.patients import nhs_number


@given(st.text("0123456789", min_size=10, max_size=10))
def test_ten_digits_are_a_number_where_the_oracle_says_so(text: str) -> None:
    # The oracle's own verdict refuses ranges that were never issued as well; only the check digit is compared.
    assert nhs_number.is_valid(text) is (calculate_checksum(text[:9]) == int(text[9]))


@given(st.integers(min_value=0, max_value=999_999_999))
def test_one_check_digit_makes_nine_digits_a_number_or_none_does(body: int) -> None:
    found = [digit for digit in range(10) if nhs_number.is_valid(f"{body:09d}{digit}")]
    expected = calculate_checksum(f"{body:09d}")
    assert found == ([] if expected == 10 else [expected])


def test_spaces_are_left_out() -> None:
    assert nhs_number.normalised(" 943 476 5919 ") == "9434765919"


@pytest.mark.parametrize(
    "text", ["", "943476591", "94347659190", "943476591x", "943-476-5919", "9434765918", "٩٤٣٤٧٦٥٩١٩"]
)
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(nhs_number.InvalidNhsNumber) as caught:
        nhs_number.normalised(text)
    assert not text or text not in str(caught.value)
