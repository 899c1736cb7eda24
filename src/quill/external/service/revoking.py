"""Who has access to a patient's record from outside, and ending it."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

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

    Nothing about the patient is delivered to the person's devices from then on, because access is asked at delivery.
    Who is tied to the patient in another way too keeps that, and the conversations with it.

    Raises:
        GrantNotFound: 404, the person has no active grant.
        Unavailable: 502 or 503, the FHIR store did not take it; the access has ended, the name stands in conversations.
    """
    person = await people.find_person(unit.session, user_id)
    if person is None or not await identity.holds_access(unit.session, user_id, patient_id):
        raise GrantNotFound
    ending = _Ending(actor.user_id, patient_id, user_id, identity.folded(person.email))
    audit.record(unit, actor, Act.EXTERNAL_ACCESS_REVOKE, patient_id=patient_id, subject=f"user:{user_id}")
    rows = tuple(unit.audit_rows)

    async def end_all_the_same(session: AsyncSession) -> None:
        # Who is to see nothing any more does not wait for a store that does not answer.
        if await ending.carry_out(session):
            await unit.services.recorder.insert(session, rows)

    unit.even_if_refused(end_all_the_same)
    # Conversations come first, so that grant and audit row end up in one transaction even where the store is remote.
    if await _has_only_the_grant(unit, user_id, patient_id):
        await conversations.end_participation(unit, actor, user_id, patient_id)
    if not await ending.carry_out(unit.session):
        raise GrantNotFound


async def _has_only_the_grant(unit: Unit, user_id: UserId, patient_id: PatientId) -> bool:
    person = await identity.find_actor(unit.session, unit.settings, user_id)
    if person is None:
        return True
    return await access.find_relationship(unit.session, person, patient_id) in {None, Relationship.EXTERNAL_GRANT}


@dataclass(frozen=True, slots=True)
class _Ending:
    """Whose access ends, and who ends it."""

    ended_by: UserId | None
    patient_id: PatientId
    user_id: UserId
    email_folded: str

    async def carry_out(self, session: AsyncSession) -> bool:
        """Withdraw the open invites and end the grant; doing it twice is doing it once.

        Invites come first, as in accepting one: who takes the same rows in the same order cannot wait in a circle.

        Returns:
            Whether there was an active grant.
        """
        await session.execute(
            sa.update(ExternalInvite)
            .where(queries.pending_for(self.patient_id, self.user_id, self.email_folded))
            .values(withdrawn_at=clock.now(), withdrawn_by_user_id=self.ended_by)
            .execution_options(synchronize_session=False)
        )
        return await identity.end_access(session, self.user_id, self.patient_id, ended_by=self.ended_by)
