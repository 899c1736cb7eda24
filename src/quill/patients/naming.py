"""The text a search for parts of names looks into, and what it looks for there.

An index of trigrams finds any three letters that stand together, and nothing shorter. So the text ends with every one
or two letters that stand together in a word, each between underscores, and it is ``_ok_`` that is looked for when
somebody types ``ok``. Folding leaves no underscore in a name or a word, so nothing else is ever found by it.
"""

from collections.abc import Iterable, Sequence

from quill.kit.text import fold

TRIGRAM = 3


def searchable(names: Iterable[str]) -> str:
    """Return the text for a patient's names: each folded on a line of its own, last the short parts of their words."""
    lines = [fold(name) for name in names]
    words = {word for line in lines for word in line.split()}
    short = {word[start : start + length] for word in words for start in range(len(word)) for length in (1, 2)}
    if short:
        # A line each, so that a search never matches across the end of one name and the beginning of another.
        lines.append(f"_{'_'.join(sorted(short))}_")
    return "\n".join(lines)


def needle(word: str) -> str:
    """Return what stands in the text of every patient with this folded word in a name, and of nobody else."""
    return word if len(word) >= TRIGRAM else f"_{word}_"


def full_text_query(words: Sequence[str]) -> str:
    """Return the query that finds texts with all of these words (SQLite, FTS5, 3.1: a string quoted is no syntax)."""
    return " AND ".join('"{}"'.format(needle(word).replace('"', '""')) for word in words)
