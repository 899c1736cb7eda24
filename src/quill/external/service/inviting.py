"""Invites: sending one, seeing what became of them, taking one back."""

import datetime
import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth.service import Authenticator
from quill.auth.throttle import INVITES_PER_PERSON
from quill.errors import InviteClosed, InviteNotFound, Unprocessable
from quill.external import queries
from quill.external.models import LONGEST_FOLDED_EMAIL, ExternalInvite
from quill.identity import service as identity
from quill.kit import clock
from quill.kit.ids import PatientId, UserId
from quill.kit.paging import Page, PageRequest, cursor_of
from quill.outbox import service as outbox
from quill.patients import service as patients
from quill.unit import Reader, Unit

LIFETIME = datetime.timedelta(days=7)
"""Decisions, rule 22."""

TOKEN_BYTES = 32

Status = Literal["pending", "accepted", "withdrawn", "expired"]


@dataclass(frozen=True, slots=True)
class Invitation:
    """A fresh invite: its number, the client's page with the token, and the token, which is kept nowhere."""

    id: int
    path: str
    token: str
    expires_at: datetime.datetime
    is_emailed: bool


@dataclass(frozen=True, slots=True)
class InviteLine:
    """An invite in a list; ``status`` is as of now, times are aware UTC instants."""

    id: int
    email: str
    user_type: str
    status: Status
    invited_by_user_id: UserId | None
    created_at: datetime.datetime
    expires_at: datetime.datetime
    accepted_at: datetime.datetime | None
    accepted_by_user_id: UserId | None
    withdrawn_at: datetime.datetime | None
    withdrawn_by_user_id: UserId | None


def digest(token: str) -> str:
    """Return what is kept of a token; it has 256 random bits, so a plain hash cannot be turned back."""
    return hashlib.sha256(b"invite:" + token.encode()).hexdigest()


async def invite(
    unit: Unit, auth: Authenticator, actor: Actor, patient_id: PatientId, *, email: str, level: Level
) -> Invitation:
    """Invite somebody by e-mail address to see a patient's record; it grants nothing until it is accepted.

    Args:
        unit: the transaction.
        auth: holds the throttle.
        actor: who invites, the patient or an admin.
        patient_id: whose record.
        email: the address it is bound to; a mail goes there when mail is configured.
        level: of the account to be made, an external one; an account there is keeps its own.

    Raises:
        TooManyRequests: 429, this person sent many invites lately.
        PatientNotFound: 404, Quill knows no such patient.
        PatientDeactivated: 409.
        Unprocessable: 422, an address that grows beyond all measure when its case is folded.
    """
    await auth.throttle.count(INVITES_PER_PERSON, str(actor.person_id))
    email_folded = identity.folded(email)
    if len(email_folded) > LONGEST_FOLDED_EMAIL:
        raise Unprocessable.at("email", "The e-mail address is too long", kind="string_too_long")
    await patients.check_takes_entries(unit, patient_id)
    now, token = clock.now(), secrets.token_urlsafe(TOKEN_BYTES)
    row = ExternalInvite(
        patient_id=patient_id,
        email=email,
        email_folded=email_folded,
        user_type=level.value,
        token_hash=digest(token),
        invited_by_user_id=actor.person_id,
        created_at=now,
        expires_at=now + LIFETIME,
    )
    unit.session.add(row)
    await unit.session.flush()
    path = f"/app/accept-invite?token={token}"
    is_emailed = outbox.is_mail_configured(unit.settings)
    if is_emailed:
        link = unit.settings.public_url.rstrip("/") + path
        await outbox.enqueue_mail(unit, to=email, template="invite", facts={"link": link})
    audit.record(unit, actor, Act.INVITE_SEND, patient_id=patient_id, subject=f"invite:{row.id}")
    return Invitation(row.id, path, token, row.expires_at, is_emailed)


async def list_invites(reader: Reader, actor: Actor, patient_id: PatientId, page: PageRequest) -> Page[InviteLine]:
    """Return the invites to a patient's record, whatever became of them, newest first."""
    after = page.after(int)
    rows = await queries.invite_page(
        reader.session, patient_id, before=int(str(after[0])) if after else None, limit=page.limit + 1
    )
    shown = rows[: page.limit]
    audit.record(reader, actor, Act.INVITE_LIST, patient_id=patient_id)
    now = clock.now()
    lines = [InviteLine(status=_status(row, now), **row._mapping) for row in shown]
    return Page(lines, cursor_of(shown[-1].id) if len(rows) > page.limit else None)


def _status(row: sa.Row[Any], now: datetime.datetime) -> Status:
    if row.accepted_at is not None:
        return "accepted"
    if row.withdrawn_at is not None:
        return "withdrawn"
    return "expired" if row.expires_at <= now else "pending"


async def withdraw(unit: Unit, actor: Actor, patient_id: PatientId, invite_id: int) -> None:
    """Take an invite back: from now on its token is answered with 410.

    Raises:
        InviteNotFound: 404, the patient has no such invite.
        InviteClosed: 409, it was accepted, so that access has to be revoked, or was withdrawn already.
    """
    row = await queries.lock_invite(unit.session, patient_id, invite_id)
    if row is None:
        raise InviteNotFound
    if row.accepted_at is not None or row.withdrawn_at is not None:
        raise InviteClosed
    row.withdrawn_at = clock.now()
    row.withdrawn_by_user_id = actor.person_id
    await unit.session.flush()
    audit.record(unit, actor, Act.INVITE_WITHDRAW, patient_id=patient_id, subject=f"invite:{invite_id}")
