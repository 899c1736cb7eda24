"""Who has access to a patient's record from outside, and ending it."""

from typing import Any

import sqlalchemy as sa

from quill.access import service as access
from quill.access.service import Relationship
from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.conversations import service as conversations
from quill.errors import GrantNotFound
from quill.external import queries
from quill.external.models import ExternalInvite
from quill.identity import people
from quill.identity import service as identity
from quill.kit import clock
from quill.kit.ids import PatientId, UserId
from quill.kit.paging import Page, PageRequest, cursor_of
from quill.unit import Reader, Unit


async def list_grants(
    reader: Reader, actor: Actor, patient_id: PatientId, page: PageRequest
) -> Page[sa.Row[*tuple[Any, ...]]]:
    """Return the active grants for a patient with who holds them, disabled accounts too, oldest first."""
    after = page.after(int)
    rows = await identity.grants_page(
        reader.session, patient_id, after=int(str(after[0])) if after else 0, limit=page.limit + 1
    )
    shown = rows[: page.limit]
    audit.record(reader, actor, Act.EXTERNAL_ACCESS_LIST, patient_id=patient_id)
    return Page(shown, cursor_of(shown[-1].id) if len(rows) > page.limit else None)


async def revoke(unit: Unit, actor: Actor, patient_id: PatientId, user_id: UserId) -> None:
    """End somebody's access to a patient: the grant, the invites still open, and the part taken in conversations.

    All of it is one transaction and waits for no store: what FHIR tells of the conversations is corrected afterwards.
    Nothing about the patient is delivered to the person's devices from then on, because access is asked at delivery.
    Who is tied to the patient in another way too keeps that, and the conversations with it.

    Raises:
        GrantNotFound: 404, the person has no active grant.
    """
    person = await people.find_person(unit.session, user_id)
    if person is None or not await identity.holds_access(unit.session, user_id, patient_id):
        raise GrantNotFound
    audit.record(unit, actor, Act.EXTERNAL_ACCESS_REVOKE, patient_id=patient_id, subject=f"user:{user_id}")
    if await _has_only_the_grant(unit, user_id, patient_id):
        await conversations.end_participation(unit, actor, user_id, patient_id)
    await _withdraw_invites(unit, actor, patient_id, user_id, identity.folded(person.email))
    if not await identity.end_access(unit.session, user_id, patient_id, ended_by=actor.user_id):
        raise GrantNotFound


async def _has_only_the_grant(unit: Unit, user_id: UserId, patient_id: PatientId) -> bool:
    person = await identity.find_actor(unit.session, unit.settings, user_id)
    if person is None:
        return True
    return await access.find_relationship(unit.session, person, patient_id) in {None, Relationship.EXTERNAL_GRANT}


async def _withdraw_invites(
    unit: Unit, actor: Actor, patient_id: PatientId, user_id: UserId, email_folded: str
) -> None:
    # Before the grant ends, as in accepting one: who takes the same rows in the same order cannot wait in a circle.
    await unit.session.execute(
        sa.update(ExternalInvite)
        .where(queries.pending_for(patient_id, user_id, email_folded))
        .values(withdrawn_at=clock.now(), withdrawn_by_user_id=actor.user_id)
        .execution_options(synchronize_session=False)
    )
