"""NHS numbers: what makes ten digits one, and how they are stored.

Source: NHS Data Model and Dictionary, ``NHS NUMBER``: ten digits, the last a modulus 11 check digit.
"""

_WEIGHTS = (10, 9, 8, 7, 6, 5, 4, 3, 2)


class InvalidNhsNumber(ValueError):
    """The text is no NHS number; says why, never the text."""


def normalised(text: str) -> str:
    """Return an NHS number as it is stored: ten digits without spaces.

    Raises:
        InvalidNhsNumber: it has not ten digits, or the check digit is wrong.
    """
    digits = "".join(text.split())
    if len(digits) != 10 or not (digits.isascii() and digits.isdecimal()):
        raise InvalidNhsNumber("An NHS number has ten digits")
    remainder = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits, strict=False)) % 11
    # A remainder of 1 would want the check digit 10, so such numbers are never issued; 11 is written 0.
    if (11 - remainder) % 11 != int(digits[9]):
        raise InvalidNhsNumber("The check digit of the NHS number is wrong")
    return digits


def is_valid(text: str) -> bool:
    """Tell whether a text is an NHS number, spaces allowed."""
    try:
        normalised(text)
    except InvalidNhsNumber:
        return False
    return True
