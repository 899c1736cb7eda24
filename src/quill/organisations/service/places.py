"""Organisations themselves: listing, making, reading and changing them."""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import Conflict, OrganisationNotFound, OrganisationTypeUnknown, Unprocessable
from quill.identity import memberships
from quill.identity import service as identity
from quill.identity.catalogue import ORGANISATION_TYPES
from quill.kit import clock
from quill.kit.ids import OrganisationId, PatientId
from quill.kit.paging import Page, PageRequest, cursor_of
from quill.organisations import queries
from quill.organisations.models import LONGEST_LOCATION, LONGEST_NAME, Organisation
from quill.unit import Reader, Unit

WITH_Z = "Organization not found"
"""The words of the calls that older clients know with this spelling."""


@dataclass(frozen=True, slots=True)
class OrganisationLine:
    """An organisation as it stands; the times are aware UTC instants."""

    id: OrganisationId
    name: str
    type: str
    location: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class OrganisationDetails:
    """An organisation, how many members it has in all, and a page of them; rows are those of identity's queries."""

    organisation: OrganisationLine
    staff_count: int
    patient_count: int
    staff_members: Sequence[sa.Row[*tuple[Any, ...]]]
    patient_members: Sequence[sa.Row[*tuple[Any, ...]]]
    next_cursor: str | None


async def list_names(reader: Reader, page: PageRequest) -> Page[OrganisationLine]:
    """Return organisations for a stranger who registers; none when the operator shows none to strangers."""
    if not reader.settings.public_organisation_list:
        return Page([], None)
    return await _list(reader, page)


async def list_organisations(reader: Reader, actor: Actor, page: PageRequest) -> tuple[Page[OrganisationLine], int]:
    """Return organisations in order of their names, and how many there are in all."""
    audit.record(reader, actor, Act.ORGANISATION_LIST)
    return await _list(reader, page), await queries.count_organisations(reader.session)


async def _list(reader: Reader, page: PageRequest) -> Page[OrganisationLine]:
    rows = await queries.organisation_page(reader.session, after=page.after(str, int), limit=page.limit + 1)
    shown = rows[: page.limit]
    next_cursor = cursor_of(shown[-1].sort_key, shown[-1].id) if len(rows) > page.limit else None
    return Page([_line(row) for row in shown], next_cursor)


async def named(session: AsyncSession, ids: Collection[int]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return number, name and type of the organisations with these numbers, in order of the numbers."""
    return await queries.organisations_named(session, ids) if ids else []


async def list_shared(reader: Reader, actor: Actor, patient_id: PatientId) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return number, name and type of the organisations that both the actor and a patient belong to.

    Says nothing to outsiders: for them, and for a patient who does not exist, there are none.
    """
    audit.record(reader, actor, Act.MEMBERSHIP_LIST, patient_id=patient_id)
    return await named(reader.session, await identity.shared_organisations(reader.session, actor, patient_id))


async def create(
    unit: Unit,
    actor: Actor,
    *,
    name: str,
    type: str,  # noqa: A002 - the wire's word
    location: str | None = None,
) -> OrganisationLine:
    """Make an organisation, without members and without features; its name need not be unique.

    Args:
        unit: the transaction.
        actor: who makes it.
        name: at most 255 characters; trimmed here.
        type: one of the catalogue.
        location: where it is, at most 500 characters; blank means unknown.

    Raises:
        OrganisationTypeUnknown: 400.
        Unprocessable: 422, the name is blank, or something is too long.
    """
    _check_type(type)
    name, place = name.strip(), (location or "").strip() or None
    if not 0 < len(name) <= LONGEST_NAME:
        raise Unprocessable.at("name", "The name must not be blank, nor too long")
    if place is not None and len(place) > LONGEST_LOCATION:
        raise Unprocessable.at("location", "The location is too long")
    now = clock.now()
    row = Organisation(name=name, type=type, location=place, created_at=now, updated_at=now)
    unit.session.add(row)
    await unit.session.flush()
    audit.record(unit, actor, Act.ORGANISATION_CREATE, subject=f"organisation:{row.id}")
    return _line(row)


async def find_by_name(reader: Reader, name: str) -> OrganisationId | None:
    """Return the organisation with exactly this name, or ``None``; for operators, who know places by their names.

    Raises:
        Conflict: 409, several have the name.
    """
    found = await queries.ids_by_name(reader.session, name.strip())
    if len(found) > 1:
        raise Conflict("Several organisations have this name")
    return OrganisationId(found[0]) if found else None


async def get(reader: Reader, actor: Actor, organisation_id: OrganisationId, page: PageRequest) -> OrganisationDetails:
    """Return an organisation with a page of its staff and a page of its patients.

    One cursor continues both lists, staff by username and patients by id; the shorter one has no more rows then.

    Raises:
        OrganisationNotFound: 404.
    """
    found = await queries.find_organisation(reader.session, organisation_id)
    if found is None:
        raise OrganisationNotFound(WITH_Z)
    after_staff, after_patient = page.after(str, str) or ("", "")
    more = page.limit + 1
    staff = await memberships.staff_page(reader.session, organisation_id, after=str(after_staff), limit=more)
    patients = await memberships.patient_page(reader.session, organisation_id, after=str(after_patient), limit=more)
    staff_count, patient_count = await memberships.member_counts(reader.session, organisation_id)
    shown_staff, shown_patients = staff[: page.limit], patients[: page.limit]
    next_cursor = None
    if len(staff) > page.limit or len(patients) > page.limit:
        next_cursor = cursor_of(
            shown_staff[-1].username_folded if shown_staff else str(after_staff),
            shown_patients[-1].patient_id if shown_patients else str(after_patient),
        )
    audit.record(reader, actor, Act.ORGANISATION_READ, subject=f"organisation:{organisation_id}")
    return OrganisationDetails(_line(found), staff_count, patient_count, shown_staff, shown_patients, next_cursor)


async def update(
    unit: Unit,
    actor: Actor,
    organisation_id: OrganisationId,
    *,
    name: str | None,
    type: str | None,  # noqa: A002 - the wire's word
    location: str | None,
) -> OrganisationLine:
    """Change an organisation; ``updated_at`` moves only when a value became another.

    Args:
        unit: the transaction.
        actor: who changes it.
        organisation_id: which.
        name: the new name, trimmed and not blank; ``None`` leaves it.
        type: one of the catalogue; ``None`` leaves it.
        location: where it is; blank clears it, ``None`` leaves it.

    Raises:
        OrganisationNotFound: 404.
        OrganisationTypeUnknown: 400.
    """
    row = await queries.lock_organisation(unit.session, organisation_id)
    if row is None:
        raise OrganisationNotFound
    if type is not None:
        _check_type(type)
    before = (row.name, row.type, row.location)
    row.name = name if name is not None else row.name
    row.type = type if type is not None else row.type
    row.location = (location or None) if location is not None else row.location
    if (row.name, row.type, row.location) != before:
        row.updated_at = clock.now()
        await unit.session.flush()
        audit.record(unit, actor, Act.ORGANISATION_CHANGE, subject=f"organisation:{organisation_id}")
    return _line(row)


def _check_type(type: str) -> None:  # noqa: A002 - the wire's word
    if type not in ORGANISATION_TYPES:
        raise OrganisationTypeUnknown


def _line(row: sa.Row[Any] | Organisation) -> OrganisationLine:
    return OrganisationLine(
        id=OrganisationId(row.id),
        name=row.name,
        type=row.type,
        location=row.location,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
