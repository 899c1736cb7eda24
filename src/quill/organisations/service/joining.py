"""Requests to join: whoever registers with an organisation asks for it, and an admin approves or declines."""

import dataclasses
import datetime
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.exc import IntegrityError

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import service as auth
from quill.errors import (
    JoinRequestDecided,
    JoinRequestNotFound,
    NotStaffLevel,
    OrganisationNotFound,
    OrganisationUnknown,
    UserNotFound,
)
from quill.identity import people
from quill.identity import service as identity
from quill.identity.people import Person, PersonLine
from quill.kit import clock
from quill.kit.ids import OrganisationId, UserId
from quill.kit.paging import Page, PageRequest, cursor_of
from quill.organisations import queries
from quill.organisations.models import JoinRequest
from quill.unit import Reader, Unit

Verdict = Literal["pending", "approved", "declined"]

_IS_APPROVED: dict[Verdict, bool | None] = {"pending": None, "approved": True, "declined": False}


@dataclass(frozen=True, slots=True)
class Joining:
    """A request to join: who asks, since when, and what became of it."""

    id: int
    person: PersonLine
    status: Verdict
    requested_at: datetime.datetime
    decided_at: datetime.datetime | None


async def request_to_join(
    unit: Unit, user_id: UserId, organisation_id: OrganisationId, *, actor: Actor | None = None
) -> int:
    """Note that somebody asks to work in an organisation; it grants nothing. Asking twice is asking once.

    Args:
        unit: the transaction.
        user_id: who asks.
        organisation_id: where.
        actor: who is signed in; ``None`` while somebody registers.

    Returns:
        The request's number.

    Raises:
        OrganisationUnknown: 400, there is no such organisation.
    """
    if await queries.find_organisation(unit.session, organisation_id) is None:
        raise OrganisationUnknown
    pending = await queries.find_pending_join_request(unit.session, user_id, organisation_id)
    if pending is not None:
        return pending
    row = JoinRequest(organisation_id=organisation_id, user_id=user_id, requested_at=clock.now())
    try:
        async with unit.session.begin_nested():
            unit.session.add(row)
    except IntegrityError:
        # The same person asked the same thing at the same moment.
        pending = await queries.find_pending_join_request(unit.session, user_id, organisation_id)
        if pending is None:
            raise
        return pending
    audit.record(unit, actor, Act.JOIN_REQUEST_CREATE, subject=_subject(organisation_id, row.id))
    return row.id


async def list_join_requests(
    reader: Reader, actor: Actor, organisation_id: OrganisationId, status: Verdict, page: PageRequest
) -> Page[Joining]:
    """Return an organisation's requests of one status, oldest first.

    Raises:
        OrganisationNotFound: 404.
    """
    if await queries.find_organisation(reader.session, organisation_id) is None:
        raise OrganisationNotFound
    after = page.after(int)
    rows = await queries.join_request_page(
        reader.session,
        organisation_id,
        _IS_APPROVED[status],
        after=int(str(after[0])) if after else 0,
        limit=page.limit + 1,
    )
    shown = rows[: page.limit]
    persons = await people.find_people(reader.session, [UserId(row.user_id) for row in shown])
    audit.record(reader, actor, Act.JOIN_REQUEST_LIST, subject=f"organisation:{organisation_id}")
    found = [Joining(row.id, persons[row.user_id], status, row.requested_at, row.decided_at) for row in shown]
    return Page(found, cursor_of(shown[-1].id) if len(rows) > page.limit else None)


async def approve(unit: Unit, actor: Actor, organisation_id: OrganisationId, request_id: int) -> UserId:
    """Approve a request: the person becomes staff of the organisation.

    Only staff can be members, so a person of ``patient`` level, which everybody has who registered, is raised to
    ``staff`` by this decision. Profession and roles stay as they are and are given by ``PATCH /api/users/{id}``.
    External people, and those whose account is linked to a patient record, are not raised by the way: an admin
    who means it changes their level first.

    Returns:
        Who joined.

    Raises:
        JoinRequestNotFound: 404.
        JoinRequestDecided: 409.
        NotStaffLevel: 400, somebody who is not to be raised by the way.
    """
    request = await _lock_pending(unit, organisation_id, request_id)
    user_id = UserId(request.user_id)
    person = await people.lock_person(unit, user_id)
    if person is None:
        raise UserNotFound
    if not person.level.reaches(Level.STAFF):
        await _raise_to_staff(unit, actor, person)
    await identity.add_staff_membership(unit, organisation_id, user_id)
    await _decide(unit, actor, request, is_approved=True)
    audit.record(unit, actor, Act.JOIN_REQUEST_APPROVE, subject=_subject(organisation_id, request_id))
    audit.record(unit, actor, Act.MEMBERSHIP_ADD, subject=f"organisation:{organisation_id}/user:{user_id}")
    return user_id


async def decline(unit: Unit, actor: Actor, organisation_id: OrganisationId, request_id: int) -> UserId:
    """Decline a request; nothing changes for the person, who may ask again.

    Returns:
        Who had asked.

    Raises:
        JoinRequestNotFound: 404.
        JoinRequestDecided: 409.
    """
    request = await _lock_pending(unit, organisation_id, request_id)
    await _decide(unit, actor, request, is_approved=False)
    audit.record(unit, actor, Act.JOIN_REQUEST_DECLINE, subject=_subject(organisation_id, request_id))
    return UserId(request.user_id)


async def _lock_pending(unit: Unit, organisation_id: OrganisationId, request_id: int) -> JoinRequest:
    request = await queries.lock_join_request(unit.session, organisation_id, request_id)
    if request is None:
        raise JoinRequestNotFound
    if request.decided_at is not None:
        raise JoinRequestDecided
    return request


async def _raise_to_staff(unit: Unit, actor: Actor, person: Person) -> None:
    if person.level.is_external or person.patient_id is not None:
        raise NotStaffLevel
    await people.save_person(unit, person, dataclasses.replace(person, level=Level.STAFF))
    await auth.end_logins(unit, person.user_id, "rights_changed")
    audit.record(unit, actor, Act.USER_CHANGE, subject=f"user:{person.user_id}", reason="raised_to_staff")


async def _decide(unit: Unit, actor: Actor, request: JoinRequest, *, is_approved: bool) -> None:
    request.is_approved = is_approved
    request.decided_at = clock.now()
    request.decided_by_user_id = actor.user_id
    await unit.session.flush()


def _subject(organisation_id: OrganisationId, request_id: int) -> str:
    return f"organisation:{organisation_id}/join-request:{request_id}"
