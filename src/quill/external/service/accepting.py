"""Accepting an invite: the token proves that somebody reads the address, and is worth something once."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from quill.access import service as access
from quill.actor import Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth.service import Authenticator
from quill.auth.throttle import ACCEPTANCES_PER_SOURCE, network_of
from quill.errors import (
    Conflict,
    EmailTaken,
    InvalidInviteToken,
    InviteGone,
    PatientDeactivated,
    PatientNotFound,
    QuillError,
    Unprocessable,
    UsernameHeld,
    UsernameTaken,
)
from quill.external import queries
from quill.external.models import ExternalInvite
from quill.external.service.inviting import digest
from quill.identity import people
from quill.identity import service as identity
from quill.identity.people import Person
from quill.identity.service import NewPerson
from quill.kit import clock
from quill.kit.ids import PatientId, UserId
from quill.patients import service as patients
from quill.unit import Unit

NOTHING_TO_REGISTER_WITH = "username and password required for new registration"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What somebody accepts with; username and password count only where there is no account yet."""

    token: str
    username: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Whose account holds the grant, and whether it was made just now."""

    user_id: UserId
    is_new: bool


async def accept(unit: Unit, auth: Authenticator, wanted: Acceptance) -> Accepted:
    """Give the account with the invited address access to the patient; make that account when there is none.

    An account there is keeps its level, name and password. What could not be invited any more cannot be accepted
    either. A refusal leaves the invite as it is, but one that was used, withdrawn or revoked never comes back.

    Raises:
        InvalidInviteToken: 400, unknown, expired or used, or the account is disabled.
        InviteGone: 410, withdrawn, the access it gave was revoked, or the inviter may no longer give it.
        Unprocessable: 422, there is no account yet, and username or password are missing.
        PasswordTooShort: 400, by the rule of registration.
        PasswordTooCommon: 400.
        UsernameHeld: 409.
        TooManyRequests: 429, too many attempts from this source.
        Overloaded: 503.
    """
    source = network_of(unit.facts.source)
    await auth.throttle.count(ACCEPTANCES_PER_SOURCE, source)
    token_hash = digest(wanted.token)
    async with unit.reading() as session:
        found = await _check_open(unit, session, await queries.find_by_token(session, token_hash))
        is_known = await people.find_person_by_email(session, found.email) is not None
    # Hashing takes long, so it is done before the transaction begins.
    password_hash = None if is_known else await _new_password_hash(auth, wanted)
    row = await _check_open(unit, unit.session, await queries.lock_by_token(unit.session, token_hash))
    await _check_stands(unit, row)
    person = await people.find_person_by_email(unit.session, row.email)
    accepted = await _join(unit, row, wanted.username, password_hash) if person is None else _found(unit, row, person)
    await _use(unit, row, accepted.user_id)
    await auth.throttle.give_back(ACCEPTANCES_PER_SOURCE, source)
    return accepted


async def _check_open(unit: Unit, session: AsyncSession, row: ExternalInvite | None) -> ExternalInvite:
    """Return an invite that can be accepted as far as it alone tells.

    Raises:
        InvalidInviteToken: 400, there is none, it was used or is too old.
        InviteGone: 410, it was withdrawn, or the access it gave was revoked.
    """
    if row is None:
        raise _refusal(unit, None, InvalidInviteToken(), "unknown")
    if row.withdrawn_at is not None:
        raise _refusal(unit, row, InviteGone(), "withdrawn")
    if row.accepted_at is not None:
        patient_id = PatientId(row.patient_id)
        is_held = row.accepted_by_user_id is not None and await identity.holds_access(
            session, UserId(row.accepted_by_user_id), patient_id
        )
        raise _refusal(unit, row, InvalidInviteToken() if is_held else InviteGone(), "used" if is_held else "revoked")
    if row.expires_at <= clock.now():
        raise _refusal(unit, row, InvalidInviteToken(), "expired")
    return row


async def _check_stands(unit: Unit, row: ExternalInvite) -> None:
    """Refuse an invite whose sender could not send it any more.

    Raises:
        InviteGone: 410.
    """
    patient_id = PatientId(row.patient_id)
    sender = None
    if row.invited_by_user_id is not None:
        sender = await identity.find_actor(unit.session, unit.settings, UserId(row.invited_by_user_id))
    if sender is None or not access.owns(await access.find_relationship(unit.session, sender, patient_id)):
        raise _refusal(unit, row, InviteGone(), "inviter_lost_right")
    try:
        await patients.check_takes_entries(unit, patient_id)
    except (PatientNotFound, PatientDeactivated) as error:
        raise _refusal(unit, row, InviteGone(), error.code) from error


async def _new_password_hash(auth: Authenticator, wanted: Acceptance) -> str:
    if wanted.username is None or wanted.password is None:
        raise Unprocessable(NOTHING_TO_REGISTER_WITH)
    auth.passwords.check_acceptable(wanted.password, is_registration=True)
    return await auth.passwords.hash(wanted.password)


async def _join(unit: Unit, row: ExternalInvite, username: str | None, password_hash: str | None) -> Accepted:
    if username is None or password_hash is None:
        # There was an account a moment ago, and its address has just been changed.
        raise Conflict("Another request changed this at the same moment")
    newcomer = NewPerson(
        username=username,
        email=row.email,
        password_hash=password_hash,
        level=Level(row.user_type),
        profession="patient",
    )
    try:
        return Accepted(await identity.create_person(unit, None, newcomer), is_new=True)
    except (UsernameTaken, EmailTaken) as error:
        # Perhaps the same person has just accepted another invite, and by that has the account.
        person = await people.find_person_by_email(unit.session, row.email)
        if person is None:
            raise _refusal(unit, row, UsernameHeld(), UsernameHeld.code) from error
        return _found(unit, row, person)


def _found(unit: Unit, row: ExternalInvite, person: Person) -> Accepted:
    if not person.is_active:
        raise _refusal(unit, row, InvalidInviteToken(), "account_disabled")
    return Accepted(person.user_id, is_new=False)


async def _use(unit: Unit, row: ExternalInvite, user_id: UserId) -> None:
    row.accepted_at = clock.now()
    row.accepted_by_user_id = user_id
    await unit.session.flush()
    patient_id, sender = PatientId(row.patient_id), row.invited_by_user_id
    await identity.grant_access(unit, user_id, patient_id, granted_by=UserId(sender) if sender is not None else None)
    actor = await identity.find_actor(unit.session, unit.settings, user_id)
    audit.record(unit, actor, Act.INVITE_ACCEPT, patient_id=patient_id, subject=f"invite:{row.id}/user:{user_id}")


def _refusal(unit: Unit, row: ExternalInvite | None, error: QuillError, reason: str) -> QuillError:
    """Return an error after leaving in the audit trail what stands behind it."""
    patient_id = PatientId(row.patient_id) if row is not None else None
    subject = f"invite:{row.id}" if row is not None else None
    audit.record_refusal(unit, None, Act.INVITE_ACCEPT, reason=reason, patient_id=patient_id, subject=subject)
    return error
