"""Text folded for search, so that ``Müller`` is found by ``muller`` and ``O'Neill`` by ``oneill``."""

import re
import unicodedata

_NOT_WORD = re.compile(r"[^\w\s]|_")
_SPACE = re.compile(r"\s+")


def fold(text: str) -> str:
    """Return a text without case, accents and punctuation, and with single spaces; for comparing, not for showing."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return _SPACE.sub(" ", _NOT_WORD.sub("", bare)).strip()


def like_pattern(part: str) -> str:
    r"""Return a LIKE pattern that finds a literal part anywhere; use with ``escape="\\"``."""
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
