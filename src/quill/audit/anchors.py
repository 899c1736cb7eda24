"""Anchors: the hashes of the seals, kept in a file outside the database.

Whoever can rewrite the tables can rewrite the whole chain of seals too; the anchors tell. A line is
``number hash sealed_at`` and is never changed, so the file can be made append-only or shipped to another host. A line
may appear twice when two workers append at once.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"([0-9]{1,18}) ([0-9a-f]{64}) (\S+)")
_TAIL_BYTES = 4096


class AnchorsUnreadable(ValueError):
    """The file holds something that no sealer wrote."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What one line says: the seal with this number has this hash."""

    number: int
    hash: str
    sealed_at: str

    def line(self) -> str:
        """Return the line, without its end."""
        return f"{self.number} {self.hash} {self.sealed_at}"


def read_anchors(lines: Iterable[str]) -> Iterator[Anchor]:
    """Yield the anchors of a file line by line.

    What a crash left of an append is passed over: it is the last line, or the line after it begins with it, for the
    next append writes the whole line again.

    Raises:
        AnchorsUnreadable: any other line that is not an anchor.
    """
    torn, torn_at = "", 0
    for at, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not text.startswith(torn):
            raise AnchorsUnreadable(f"Line {torn_at} of the anchors cannot be read.")
        anchor = _parse(text)
        torn, torn_at = ("", 0) if anchor else (text, at)
        if anchor:
            yield anchor


def last_anchor_number(path: Path) -> int:
    """Return the number of the newest seal a file anchors; 0 when there is no file or nothing in it.

    Raises:
        AnchorsUnreadable: the file ends with something else.
        OSError: the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return 0
    texts = [line.strip() for line in tail if line.strip()]
    for text in reversed(texts):
        if anchor := _parse(text):
            return anchor.number
    if len(texts) > 1 or size > _TAIL_BYTES:
        raise AnchorsUnreadable("The anchor file ends with lines that are not anchors.")
    return 0


def append_anchors(path: Path, anchors: Sequence[Anchor]) -> None:
    """Append anchors to a file, which is made when absent, and return when they are on disk.

    Raises:
        OSError: the file cannot be written.
    """
    is_new = not path.exists()
    with path.open("a+b") as file:
        text = "".join(f"{anchor.line()}\n" for anchor in anchors)
        # An append cut short by a crash has left a line without an end; ours must not be glued to it.
        file.write((b"" if _ends_a_line(path) else b"\n") + text.encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        _sync_directory(path.parent)


def _parse(text: str) -> Anchor | None:
    found = _LINE.fullmatch(text)
    return Anchor(int(found[1]), found[2], found[3]) if found else None


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _sync_directory(path: Path) -> None:
    # Where directories cannot be opened (Windows) a new name is durable with its file.
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
