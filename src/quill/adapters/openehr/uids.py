"""Object ids and version uids, and the cursor of a list: what every openEHR store reads and writes in the same way.

Source: openEHR Base Types 1.2, ``OBJECT_VERSION_ID``, ``HIER_OBJECT_ID``; RFC 9562.
"""

import datetime
import re
from typing import NamedTuple

from quill.errors import InvalidCursor, InvalidRecord
from quill.kit import clock, paging
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid
from quill.ports.openehr import EhrPage
from quill.ports.openehr_composition import parse_date_time

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# A version number of more digits than these is none of ours, and would not fit a column.
_UID = re.compile(rf"(?P<object>{_UUID})(?:::(?P<system>[A-Za-z0-9.\-_]{{1,255}})::(?P<version>[1-9]\d{{0,8}}))?")


class Uid(NamedTuple):
    """A uid in its parts; of an object id alone the last two are ``None``."""

    object_id: str
    system_id: str | None
    version: int | None

    def at(self, version: int) -> CompositionUid:
        """Return the version uid of another version of the same object, made by the same system."""
        return version_uid(self.object_id, self.system_id or "", version)


def version_uid(object_id: str, system_id: str, version: int) -> CompositionUid:
    """Return a version uid made of its parts."""
    return CompositionUid(f"{object_id}::{system_id}::{version}")


def parse_uid(text: str) -> Uid | None:
    """Return the parts of a uid; ``None`` when it is none. The object id is compared in lower case (RFC 9562)."""
    head, separator, tail = text.partition("::")
    match = _UID.fullmatch(head.lower() + separator + tail)
    if match is None:
        return None
    version = match["version"]
    return Uid(match["object"], match["system"], int(version) if version else None)


def is_uuid(text: object) -> bool:
    """Tell whether a value is a UUID in lower case."""
    return isinstance(text, str) and re.fullmatch(_UUID, text) is not None


def given_uid(document: Document) -> Uid | None:
    """Return the uid a composition carries.

    Raises:
        InvalidRecord: 422, it carries one that is no UUID and no version uid.
    """
    if document.get("uid") is None:
        return None
    uid = parse_uid(document["uid"]["value"])
    if uid is None:
        raise wrong_uid("It must be a UUID, alone or as a version uid.")
    return uid


def wrong_uid(message: str) -> InvalidRecord:
    """Return the error for a composition's uid."""
    return InvalidRecord(
        message, errors=[{"loc": ["composition", "uid", "value"], "msg": message, "type": "value_error"}]
    )


def unknown_template() -> InvalidRecord:
    """Return the error for a composition whose template the store does not know."""
    message = "No template of this id is known."
    place = ["composition", "archetype_details", "template_id", "value"]
    return InvalidRecord(message, errors=[{"loc": place, "msg": message, "type": "unknown_template"}])


def template_id_of(document: Document) -> str:
    """Return the template a whole composition is written under."""
    return str(document["archetype_details"]["template_id"]["value"])


def cursor_after(started_at: datetime.datetime, object_id: str) -> str:
    """Return the cursor of the page that follows this row of a list."""
    return paging.cursor_of(clock.rfc3339(started_at), object_id)


def position(cursor: str | None) -> tuple[datetime.datetime, str] | None:
    """Return the sort key a cursor continues after.

    Raises:
        InvalidCursor: 422, no list of ours made it.
    """
    try:
        key = paging.PageRequest(cursor=cursor).after(str, str)
    except paging.BadCursor as error:
        raise InvalidCursor from error
    if key is None:
        return None
    started_at = parse_date_time(key[0])
    if started_at is None:
        raise InvalidCursor
    return started_at, str(key[1])


def ehr_position(cursor: str | None) -> str | None:
    """Return the EHR id a cursor continues after.

    Raises:
        InvalidCursor: 422, no list of ours made it.
    """
    try:
        key = paging.PageRequest(cursor=cursor).after(str)
    except paging.BadCursor as error:
        raise InvalidCursor from error
    return str(key[0]) if key is not None else None


def page_of_ehrs(rows: list[tuple[str, str]], limit: int) -> EhrPage:
    """Return a page of at most ``limit`` of the rows, which go on when there are more."""
    shown = rows[:limit]
    return EhrPage(shown, paging.cursor_of(shown[-1][0]) if len(rows) > limit else None)
