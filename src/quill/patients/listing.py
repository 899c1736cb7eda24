"""The patient list: whom a caller may see, narrowed by filters, in order of name, a page at a time."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.kit import clock
from quill.kit.documents import dumps
from quill.kit.paging import PageRequest, cursor_of
from quill.kit.text import fold
from quill.patients import queries
from quill.patients.contact import Contact, FhirContact
from quill.patients.projection import fold_identifier
from quill.patients.queries import Filters
from quill.unit import Reader

LARGE_CIRCLE = 2000
"""From so many patients on, walking the list and asking of each whether the caller may see it beats gathering all the
caller may see first, when somebody is looked for: with 100,000 patients in one organisation 2 ms instead of 220. Nor
are more than these counted in passing."""

DENSE = 4
"""So does walking for a smaller circle that every fourth patient or more belongs to: of 2,000 patients all, 0.4 ms
instead of 2."""

_ACTIVITY = {True: ',"is_active":true}', False: ',"is_active":false}'}
"""What the text of a resource ends with in a list."""


@dataclass(frozen=True, slots=True)
class ListRequest:
    """What a caller asks the list for.

    Attributes:
        search: parts of a name, or a whole identifier.
        name: parts of a name; every word must be found.
        identifier: ``value`` or ``system|value``.
        birth_date: FHIR date, whole or partial.
        include_inactive: heeded for admins only.
        everybody: whether an admin wants every patient and not only those of their own circle; heeded for admins only.
    """

    search: str | None = None
    name: str | None = None
    identifier: str | None = None
    birth_date: str | None = None
    include_inactive: bool = False
    everybody: bool = False

    @property
    def is_search(self) -> bool:
        """Tell whether somebody is being looked for."""
        return any((self.search, self.name, self.identifier, self.birth_date))


async def list_patients(
    reader: Reader, actor: Actor, contact: FhirContact, request: ListRequest, page: PageRequest
) -> str:
    """Return a page of the patients a caller may see, as JSON text: the stored texts put together, never decoded.

    ``fhir_ready`` tells whether the store answers; when it does not, the list is the last known one and ``as_of`` says
    from when (decisions, rule 2). ``total`` is counted for the first page only, and where the caller may see many
    patients only up to ``MOST_COUNTED`` found by name.

    Raises:
        BadCursor: 422, the cursor is not this list's.
    """
    after = cast("tuple[str, str] | None", page.after(str, str))
    audit.record(reader, actor, Act.PATIENT_SEARCH if request.is_search else Act.PATIENT_LIST)
    state = await _as_known(reader, await contact.check(reader))
    filters = _filters(actor, request)
    if filters is None:
        return _page_text([], state, None, 0)
    found = await _find(reader, actor, request, filters, _Piece(after, page.limit))
    shown = found.rows[: page.limit]
    has_more = len(found.rows) > page.limit
    next_cursor = cursor_of(shown[-1].sort_name, shown[-1].patient_id) if has_more else None
    total = len(shown) if after is None and not has_more else found.total
    # Unpacked and put together in place: by name and in a function of its own takes five times as long.
    texts = [document[:-1] + _ACTIVITY[is_active] for _, _, is_active, document in shown]
    return _page_text(texts, state, next_cursor, total)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Which piece of a list is wanted: after which place, and how many rows."""

    after: tuple[str, str] | None
    limit: int

    def leaves_to_count(self, rows: Sequence[queries.Row]) -> bool:
        """Tell whether more than these rows has to be looked at for the total, which goes with the first page."""
        return self.after is None and len(rows) > self.limit


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found for a page: its rows and one more if there is one, and the total where it had to be counted."""

    rows: Sequence[queries.Row]
    total: int | None


async def _find(reader: Reader, actor: Actor, request: ListRequest, filters: Filters, piece: _Piece) -> _Found:
    is_everybody = request.everybody and actor.is_admin
    if is_everybody or not queries.has_circle_list(actor, filters):
        return await _look_for(reader, actor, request, filters, piece)
    rows = await queries.circle_page(reader.session, actor, piece.after, piece.limit)
    if not piece.leaves_to_count(rows):
        return _Found(rows, None)
    return _Found(rows, await queries.circle_count(reader.session, actor, LARGE_CIRCLE))


async def _look_for(reader: Reader, actor: Actor, request: ListRequest, filters: Filters, piece: _Piece) -> _Found:
    circle = await _circle(reader, actor, request)
    way = await queries.way_to(reader.session, circle.scope, filters)
    rows = await queries.page(reader.session, actor, circle.scope, filters, piece.after, piece.limit, way)
    if not piece.leaves_to_count(rows) or (circle.is_large and not request.is_search):
        return _Found(rows, None)
    return _Found(rows, await _count(reader, actor, circle, filters, way))


@dataclass(frozen=True, slots=True)
class _Circle:
    """Whom the caller may see.

    Attributes:
        scope: as a condition, in the way that suits.
        is_large: whether they are too many to be counted in passing.
        is_small: whether they are always counted to the last.
    """

    scope: queries.Scope
    is_large: bool = False
    is_small: bool = False


async def _circle(reader: Reader, actor: Actor, request: ListRequest) -> _Circle:
    if request.everybody and actor.is_admin:
        return _Circle(queries.everybody)
    found = await queries.circle(reader.session, actor, LARGE_CIRCLE + 1)
    if found.size > LARGE_CIRCLE:
        return _Circle(queries.related_one_by_one, is_large=True)
    is_dense = found.listed is not None and found.listed <= DENSE * found.size
    return _Circle(queries.related_one_by_one if is_dense else queries.related_gathered, is_small=True)


async def _count(reader: Reader, actor: Actor, circle: _Circle, filters: Filters, way: queries.Way) -> int | None:
    """Return how many patients the whole list holds; ``None`` when they are too many to be counted in passing."""
    if not circle.is_small:
        return await queries.count(reader.session, actor, circle.scope, filters, way)
    if way is queries.Way.BY_NAME:
        return await queries.count(reader.session, actor, circle.scope, filters, way, is_exact=True)
    return await queries.count(reader.session, actor, queries.related_gathered, filters)


def _filters(actor: Actor, request: ListRequest) -> Filters | None:
    """Return what the list is narrowed to, or ``None`` when nobody can meet it, such as a search for ``!``."""
    words = fold(request.name).split() if request.name is not None else []
    by_name_or_number = None
    if request.search is not None:
        by_name_or_number = (fold(request.search).split(), fold_identifier(request.search))
    identifier = None
    if request.identifier is not None:
        system, bar, value = request.identifier.partition("|")
        identifier = (system, fold_identifier(value)) if bar else (None, fold_identifier(system))
    is_hopeless = (
        (request.name is not None and not words)
        or (by_name_or_number is not None and not by_name_or_number[1])
        or (identifier is not None and not identifier[1])
    )
    if is_hopeless:
        return None
    return Filters(
        words=words,
        words_or_identifier=by_name_or_number,
        identifier=identifier,
        birth_date=request.birth_date,
        include_inactive=request.include_inactive and actor.is_admin,
    )


async def _as_known(reader: Reader, contact: Contact) -> Contact:
    """Return the contact with the best known time: without one of this process, that of the newest version we hold."""
    if contact.as_of is not None:
        return contact
    newest = await queries.newest_projection(reader.session)
    return Contact(is_ready=contact.is_ready, as_of=newest)


def _page_text(patients: list[str], contact: Contact, next_cursor: str | None, total: int | None) -> str:
    rest = {
        "fhir_ready": contact.is_ready,
        "as_of": _instant(contact.as_of),
        "next_cursor": next_cursor,
        "total": total,
    }
    return f'{{"patients":[{",".join(patients)}],{dumps(rest)[1:]}'


def _instant(instant: datetime.datetime | None) -> str | None:
    return clock.rfc3339(instant) if instant is not None else None
