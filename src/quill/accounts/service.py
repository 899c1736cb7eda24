"""One's own account: registering, passwords whose changes are told by mail, where one is signed in."""

from dataclasses import dataclass

import anyio

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import logins, new_passwords
from quill.auth.logins import LoginLine
from quill.auth.service import Authenticator
from quill.auth.throttle import REGISTRATIONS_PER_SOURCE, RESET_REQUESTS_PER_SOURCE, network_of
from quill.errors import LoginNotFound, MissingFields
from quill.identity import service as identity
from quill.identity.service import NewPerson
from quill.kit import clock
from quill.kit.ids import LoginId, OrganisationId
from quill.kit.paging import Page, PageRequest
from quill.organisations import service as organisations
from quill.outbox.service import enqueue_mail
from quill.unit import Reader, RequestFacts, Services, Unit, open_unit

RESET_ANSWER_SECONDS = 0.25
"""A request for a reset link is answered after this time, known address or not: many times what either takes."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody registers with, trimmed."""

    username: str
    email: str
    password: str
    full_name: str | None
    organisation_id: OrganisationId | None


async def register(unit: Unit, auth: Authenticator, wanted: Registration) -> None:
    """Make an account of patient level without roles; an organisation named is asked, never joined.

    Raises:
        MissingFields: 400, username, address or password are blank.
        PasswordTooShort: 400.
        PasswordTooCommon: 400.
        UsernameTaken: 400, case ignored.
        EmailTaken: 400, case ignored.
        OrganisationUnknown: 400; nothing was made.
        TooManyRequests: 429, too many registrations from this source.
    """
    await auth.throttle.count(REGISTRATIONS_PER_SOURCE, network_of(unit.facts.source))
    if not (wanted.username and wanted.email and wanted.password):
        raise MissingFields
    auth.passwords.check_acceptable(wanted.password, is_registration=True)
    password_hash = await auth.passwords.hash(wanted.password)
    person = NewPerson(
        username=wanted.username,
        email=wanted.email,
        password_hash=password_hash,
        full_name=wanted.full_name,
        level=Level.PATIENT,
        profession="patient" if unit.settings.clinical_services_enabled else "learner",
    )
    user_id = await identity.create_person(unit, None, person)
    if wanted.organisation_id is not None:
        await organisations.request_to_join(unit, user_id, wanted.organisation_id)
    audit.record(unit, None, Act.USER_REGISTER, subject=f"user:{user_id}")


async def request_reset(services: Services, facts: RequestFacts, auth: Authenticator, email: str) -> None:
    """Send a reset link to whoever has an address; the answer and its time tell nothing about the address.

    The unit is opened and committed here, so that nobody waits for a transaction while the time is filled up.

    Raises:
        TooManyRequests: 429, too many requests from this source.
    """
    started = clock.monotonic_seconds()
    await auth.throttle.count(RESET_REQUESTS_PER_SOURCE, network_of(facts.source))
    async with open_unit(services, facts) as unit:
        issued = await new_passwords.issue_reset(unit, auth, email)
        if issued is not None:
            link = f"{unit.settings.public_url.rstrip('/')}/reset-password?token={issued.token}"
            lifetime = f"{unit.settings.password_reset_seconds // 60} minutes"
            await enqueue_mail(
                unit, to=issued.address, template="password-reset", facts={"link": link, "lifetime": lifetime}
            )
    await anyio.sleep(max(0.0, started + RESET_ANSWER_SECONDS - clock.monotonic_seconds()))


async def reset_password(unit: Unit, auth: Authenticator, *, token: str, new: str) -> None:
    """Replace a forgotten password, and tell its owner.

    Raises:
        InvalidResetToken: 400.
        PasswordTooShort: 400.
        PasswordTooCommon: 400.
        TooManyRequests: 429.
    """
    address = await new_passwords.reset(unit, auth, token=token, new=new)
    await enqueue_mail(unit, to=address, template="password-was-reset", facts={})


async def change_password(unit: Unit, auth: Authenticator, actor: Actor, *, current: str, new: str) -> None:
    """Replace one's own password, and tell its owner.

    Raises:
        CurrentPasswordWrong: 400.
        PasswordTooShort: 400.
        PasswordTooCommon: 400.
        TooManyRequests: 429.
    """
    address = await new_passwords.change(unit, auth, actor, current=current, new=new)
    await enqueue_mail(unit, to=address, template="password-changed", facts={})


async def list_logins(reader: Reader, actor: Actor, page: PageRequest) -> Page[LoginLine]:
    """Return where a person is signed in now, newest first."""
    audit.record(reader, actor, Act.LOGIN_LIST, subject=f"user:{actor.person_id}")
    return await logins.list_live(reader.session, actor.person_id, page)


async def end_login(unit: Unit, actor: Actor, login_id: str) -> None:
    """End one of a person's own logins, the one in use included.

    Raises:
        LoginNotFound: 404, this person has no such login, or it has ended.
    """
    if not await logins.end_one(unit, actor.person_id, LoginId(login_id), "ended_by_person"):
        raise LoginNotFound
    audit.record(unit, actor, Act.LOGIN_END, subject=f"login:{login_id}")
