"""Saying a search in the words of a FHIR server, and remembering where it goes on.

Source: FHIR R4, ``search.html``: parameters of all resources, ``token``, ``date``, ``reference``, escaping.
"""

import datetime
import re
from typing import cast
from urllib.parse import urlencode

from quill.adapters.fhir.remote_answers import is_link
from quill.adapters.fhir.remote_documents import other_id
from quill.adapters.fhir.search_keys import system_and_value
from quill.errors import InvalidCursor
from quill.kit import clock
from quill.kit.paging import BadCursor, PageRequest, cursor_of
from quill.ports.fhir import OVERLAP, SearchQuery

_SPECIAL = re.compile(r"[\\,|$]")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


def form_of(query: SearchQuery, count: int) -> bytes:
    """Return the form of a search that finds every resource meeting a query, and perhaps others.

    ``name`` is not in it: no search of R4 ignores case, accents and punctuation and crosses from one part of a name to
    the next, and ``:contains`` is switched off by default where this runs most. What comes back is looked through.
    """
    form = [("_sort", "_lastUpdated,_id"), ("_count", str(count))]
    if query.identifier is not None:
        system, value = system_and_value(query.identifier)
        form.append(("identifier", _escaped(value) if system is None else f"{_escaped(system)}|{_escaped(value)}"))
    if query.birth_date is not None:
        form.append(("birthdate", query.birth_date.isoformat()))
    if query.last_updated_from is not None:
        form.append(("_lastUpdated", f"ge{instant_text(query.last_updated_from)}"))
    if query.part_of is not None:
        form.append(("part-of", f"Communication/{other_id(query.part_of)}"))
    if query.subject is not None:
        form.append(("subject", f"Patient/{other_id(query.subject)}"))
    return urlencode(form).encode()


def match_url(resource_type: str, identifier: str) -> str:
    """Return the search by which a conditional write finds the holder of an identifier."""
    system, value = system_and_value(identifier)
    token = _escaped(value) if system is None else f"{_escaped(system)}|{_escaped(value)}"
    return f"{resource_type}?{urlencode({'identifier': token})}"


def instant_text(instant: datetime.datetime) -> str:
    """Return an instant as servers compare it: to the millisecond, and not later than it is."""
    return clock.rfc3339(instant.replace(microsecond=instant.microsecond // 1000 * 1000))


def place_in_search(cursor: str | None) -> tuple[str, int]:
    """Return the page a cursor is about, as an address below the base or empty for the first, and the entry in it.

    Raises:
        InvalidCursor: 422, it is not one of this store's.
    """
    try:
        key = PageRequest(cursor=cursor).after(str, int)
    except BadCursor as error:
        raise InvalidCursor from error
    if key is None:
        return "", 0
    link, skip = cast("tuple[str, int]", key)
    if not is_link(link) or skip < 0:
        raise InvalidCursor
    return link, skip


class Reading:
    """How far the changes of a type have been read.

    Attributes:
        begin: from when on they are read; the epoch for everything there is.
        end: when the server was first asked in this reading, after which changes are for the next one.
        link: the page to go on with, as an address below the base; empty at the beginning.
    """

    def __init__(self, begin: datetime.datetime, end: datetime.datetime, link: str) -> None:
        self.begin = begin
        self.end = end
        self.link = link

    @classmethod
    def at(cls, position: str | None) -> "Reading":
        """Return the reading a position is about.

        Raises:
            InvalidCursor: 422, it is not one of this store's.
        """
        try:
            key = PageRequest(cursor=position).after(int, int, str)
            begin, end, link = cast("tuple[int, int, str]", key or (0, 0, ""))
            reading = cls(_EPOCH + begin * _MILLISECOND, _EPOCH + end * _MILLISECOND, link)
        except (BadCursor, OverflowError) as error:
            raise InvalidCursor from error
        if link and not is_link(link):
            raise InvalidCursor
        return reading

    @property
    def is_first(self) -> bool:
        """Tell whether everything there is is read."""
        return self.begin == _EPOCH

    def going_on(self, link: str) -> str:
        """Return the position on the way through the pages."""
        return cursor_of(_milliseconds(self.begin), _milliseconds(self.end), link)

    def finished(self) -> str:
        """Return the position for the next reading, which looks back a little behind this one's end."""
        return cursor_of(max(_milliseconds(self.begin), _milliseconds(self.end - OVERLAP)), 0, "")


def _milliseconds(instant: datetime.datetime) -> int:
    return (instant - _EPOCH) // _MILLISECOND


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", text)
