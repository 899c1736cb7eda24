"""Text folded for search: ``Müller`` is found by ``muller``, ``O'Neill`` by ``oneill``, ``Łukasz`` by ``lukasz``."""

import re
import unicodedata

_NOT_WORD = re.compile(r"[^\w\s]|_")
_SPACE = re.compile(r"\s+")

_UNDECOMPOSED = str.maketrans(
    {
        "ł": "l",
        "ø": "o",
        "đ": "d",
        "ħ": "h",
        "ð": "d",
        "ŧ": "t",
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
    }
)
"""Letters Unicode does not take apart into a base letter and a mark, as people without the key for them type them.

Small ones only, because case is folded before, which also turns ``ß`` and ``ẞ`` into ``ss``.
"""


def fold(text: str) -> str:
    """Return a text without case, accents and punctuation, and with single spaces; for comparing, not for showing."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return _SPACE.sub(" ", _NOT_WORD.sub("", bare.translate(_UNDECOMPOSED))).strip()


def like_pattern(part: str) -> str:
    r"""Return a LIKE pattern that finds a literal part anywhere; use with ``escape="\\"``."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
