"""Pages of a remote EHR's compositions, by AQL.

EHRbase orders date-times by whole seconds, and leaves open which of two within one second comes first. So rows are
fetched by the second, and a page is cut from them in the one order every store of ours has: newest ``started_at``
first, then the object id. A second of which not every row was fetched waits for the next page.

Source: openEHR AQL 1.1; openEHR REST API 1.0.2, *Query*.
"""

import datetime
from typing import Any

from quill.adapters.openehr.answers import SUBJECT_NAMESPACE
from quill.adapters.openehr.uids import cursor_after, ehr_position, is_uuid, page_of_ehrs, parse_uid
from quill.adapters.openehr.wire import Wire, refused
from quill.kit import clock, paging
from quill.kit.ids import CompositionUid
from quill.ports.openehr import CompositionPage, CompositionSummary, EhrPage
from quill.ports.openehr_composition import parse_date_time

SPARE_ROWS = 32
"""Rows fetched beyond the page: as many may share the second the page before ended in without another call."""

_SECOND = datetime.timedelta(seconds=1)
_SELECT = """\
SELECT e/ehr_id/value AS ehr_id, c/uid/value AS uid, c/name/value AS title,
       c/context/start_time/value AS started_at, c/composer/name AS composer_name
FROM EHR e CONTAINS COMPOSITION c
WHERE e/ehr_id/value = $ehr_id AND c/archetype_details/template_id/value = $template_id"""
# The date-time itself and not its text, which sorts wrongly as soon as time zones differ.
_BEFORE = " AND c/context/start_time < $before"
_ORDER = " ORDER BY c/context/start_time DESC"

OBJECTS_AT_ONCE = 500
_OBJECTS = """\
SELECT e/ehr_id/value AS ehr_id, c/uid/value AS uid
FROM EHR e CONTAINS COMPOSITION c WHERE e/ehr_id/value = $ehr_id ORDER BY c/uid/value"""
_EHRS = """\
SELECT e/ehr_id/value AS ehr_id, e/ehr_status/subject/external_ref/id/value AS subject_id
FROM EHR e WHERE e/ehr_status/subject/external_ref/namespace = $namespace"""
_EHRS_AFTER = " AND e/ehr_id/value > $after"
_EHRS_ORDER = " ORDER BY e/ehr_id/value"


async def list_page(
    wire: Wire, ehr_id: str, template_id: str, *, limit: int, after: tuple[datetime.datetime, str] | None
) -> CompositionPage:
    """Return one page of newest versions, newest ``started_at`` first, from after a place in the list on."""
    limit = max(1, min(limit, paging.MAXIMUM_ROWS))
    aql, parameters = _SELECT, {"ehr_id": ehr_id, "template_id": template_id}
    if after is not None:
        aql += _BEFORE
        parameters["before"] = clock.rfc3339(_second_of(after[0]) + _SECOND)
    fetch = limit + 1 + SPARE_ROWS
    while True:
        rows = [_summary(row, ehr_id) for row in await wire.query(aql + _ORDER, parameters, fetch=fetch)]
        is_whole = len(rows) < fetch
        left = _in_order(rows if is_whole else _of_whole_seconds(rows), after)
        if is_whole or len(left) > limit:
            return _page(left, limit)
        # A page's worth of letters was begun within one second.
        fetch *= 2


async def list_ehrs(wire: Wire, *, limit: int, cursor: str | None) -> EhrPage:
    """Return one page of every EHR of a patient, by EHR id.

    Raises:
        InvalidCursor: 422, the cursor is not one of this list's.
    """
    after = ehr_position(cursor)
    parameters = {"namespace": SUBJECT_NAMESPACE} | ({"after": after} if after is not None else {})
    aql = _EHRS + (_EHRS_AFTER if after is not None else "") + _EHRS_ORDER
    rows = await wire.query(aql, parameters, fetch=limit + 1)
    return page_of_ehrs([_ehr(row) for row in rows], limit)


async def list_objects(wire: Wire, ehr_id: str) -> list[str]:
    """Return the object ids of every composition of an EHR, sorted."""
    found: set[str] = set()
    while True:
        rows = await wire.query(_OBJECTS, {"ehr_id": ehr_id}, fetch=OBJECTS_AT_ONCE, offset=len(found))
        found.update(_object_id(row, ehr_id) for row in rows)
        if len(rows) < OBJECTS_AT_ONCE:
            return sorted(found)


def _ehr(row: Any) -> tuple[str, str]:
    """Return EHR id and subject id of a row."""
    if not isinstance(row, list) or len(row) != 2 or not is_uuid(row[0]) or not isinstance(row[1], str):
        raise refused("ehr_row")
    return row[0], row[1]


def _object_id(row: Any, ehr_id: str) -> str:
    if not isinstance(row, list) or len(row) != 2 or row[0] != ehr_id:
        raise refused("row_of_another")
    uid = parse_uid(row[1]) if isinstance(row[1], str) else None
    if uid is None:
        raise refused("row")
    return uid.object_id


def _page(left: list[CompositionSummary], limit: int) -> CompositionPage:
    shown = left[:limit]
    if len(left) <= limit:
        return CompositionPage(shown)
    return CompositionPage(shown, cursor_after(*_key(shown[-1])))


def _in_order(rows: list[CompositionSummary], after: tuple[datetime.datetime, str] | None) -> list[CompositionSummary]:
    """Return the rows that come after a sort key, in order."""
    return sorted((row for row in rows if after is None or _key(row) < after), key=_key, reverse=True)


def _of_whole_seconds(rows: list[CompositionSummary]) -> list[CompositionSummary]:
    """Return the rows without those of the last second, which may be more than were fetched."""
    last = min(_second_of(row.started_at) for row in rows)
    return [row for row in rows if _second_of(row.started_at) > last]


def _second_of(instant: datetime.datetime) -> datetime.datetime:
    return instant.replace(microsecond=0)


def _key(row: CompositionSummary) -> tuple[datetime.datetime, str]:
    return row.started_at, row.uid.partition("::")[0]


def _summary(row: Any, ehr_id: str) -> CompositionSummary:
    """Return what a row says; it must be whole, and of the EHR that was asked for."""
    if not isinstance(row, list) or len(row) != 5 or row[0] != ehr_id:
        raise refused("row_of_another")
    uid, title, started_at, composer_name = row[1:]
    parts = parse_uid(uid) if isinstance(uid, str) else None
    instant = parse_date_time(started_at)
    if parts is None or parts.version is None or instant is None or not isinstance(title, str):
        raise refused("row")
    if composer_name is not None and not isinstance(composer_name, str):
        raise refused("row")
    return CompositionSummary(CompositionUid(str(uid)), parts.version, title, instant, composer_name or "")
