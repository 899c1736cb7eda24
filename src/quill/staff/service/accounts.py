"""Making, changing, disabling and enabling accounts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import new_passwords
from quill.auth import service as auth
from quill.auth.passwords import Passwords
from quill.errors import MissingFields, ReauthenticationRequired, Unprocessable, UserNotFound
from quill.identity import people, registration
from quill.identity import service as identity
from quill.identity.people import Person
from quill.identity.service import NewPerson
from quill.kit.ids import UserId
from quill.staff.service import rules
from quill.unit import Unit

LONGEST_USERNAME = 150


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account an admin wants made; texts are trimmed, and may be blank; registrations are regulator and number."""

    name: str
    username: str | None
    email: str
    password: str
    level: Level
    profession: str
    additional_competencies: Sequence[str]
    removed_competencies: Sequence[str]
    roles: Sequence[str]
    registrations: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an admin wants changed; ``None`` leaves a value, a blank name clears it."""

    name: str | None = None
    username: str | None = None
    email: str | None = None
    password: str | None = None
    level: Level | None = None
    profession: str | None = None
    additional_competencies: Sequence[str] | None = None
    removed_competencies: Sequence[str] | None = None
    roles: Sequence[str] | None = None
    registrations: Sequence[tuple[str, str]] | None = None
    is_active: bool | None = None


async def create(unit: Unit, actor: Actor, passwords: Passwords, wish: NewAccount) -> tuple[UserId, str]:
    """Make an account that can sign in at once; it belongs to no organisation.

    Without a username the name serves, in small letters and without spaces.

    Returns:
        The number and the username.

    Raises:
        SuperadminMissing: 403, an admin wants to make an admin.
        MissingFields: 400, e-mail or password is blank, or there is neither name nor username.
        PasswordTooShort: 400.
        PasswordTooCommon: 400.
        UsernameTaken: 400, case ignored.
        EmailTaken: 400, case ignored.
        RegistrationTaken: 409, a registration is another person's.
        Unprocessable: 422, something is not in the catalogues.
    """
    rules.check_may_administer(unit, actor, None, wish.level)
    username = wish.username or "".join(wish.name.split()).lower()
    if not (wish.email and wish.password and username):
        raise MissingFields("Missing required fields")
    if len(username) > LONGEST_USERNAME:
        raise Unprocessable.at("username", "The name is too long to serve as a username", kind="string_too_long")
    _check_password(passwords, wish.password)
    # All that can be refused is refused before the costly hash; and the hash is made before the first statement of the
    # transaction, which would hold the database's writer lock meanwhile.
    identity.check_catalogued(
        profession=wish.profession,
        competencies=[*wish.additional_competencies, *wish.removed_competencies],
        roles=wish.roles,
    )
    registrations = registration.checked(wish.registrations)
    async with unit.reading() as session:
        await identity.check_free(session, username, wish.email)
    person = NewPerson(
        username=username,
        email=wish.email,
        password_hash=await passwords.hash(wish.password),
        full_name=wish.name or None,
        level=wish.level,
        profession=wish.profession,
        additional_competencies=wish.additional_competencies,
        removed_competencies=wish.removed_competencies,
        roles=wish.roles,
        registrations=registrations,
    )
    return await identity.create_person(unit, actor, person), username


async def change(
    unit: Unit, actor: Actor, passwords: Passwords, user_id: UserId, changes: Changes, *, is_fresh: bool = False
) -> Person:
    """Change an account, all or nothing; a change of password or rights ends the person's logins.

    Args:
        unit: the transaction.
        actor: who changes it.
        passwords: hashing and its rules.
        user_id: whose.
        changes: what is to be different.
        is_fresh: whether the actor signed in a short time ago, which a new password or address of one's own needs.

    Returns:
        The account as it stands now.

    Raises:
        UserNotFound: 404.
        SuperadminMissing: 403, an admin wants to change an admin, or make one.
        OwnLevel: 403, one's own level.
        OwnHighRiskCompetency: 403, for oneself.
        ReauthenticationRequired: 403, one's own password or address, and the sign-in is not fresh.
        LastSuperadmin: 409.
        MissingFields: 400, the e-mail address is blank.
        PasswordTooShort: 400.
        PasswordTooCommon: 400.
        UsernameTaken: 400, case ignored.
        EmailTaken: 400, case ignored.
        RegistrationTaken: 409, a registration is another person's.
        Unprocessable: 422, something is not in the catalogues.
    """
    async with unit.reading() as session:
        seen = await people.find_person(session, user_id)
    if seen is None:
        raise UserNotFound
    rules.check_change(unit, actor, seen, _applied(seen, changes))
    if actor.user_id == user_id and not is_fresh:
        _check_account_is_not_taken_over(unit, actor, seen, changes)
    if changes.email == "":
        raise MissingFields("Email is required")
    # Before the first statement of the transaction, which would hold the database's writer lock while hashing.
    password_hash = await _hash_acceptable(passwords, changes.password)
    touches_superadmins = changes.level is not None or changes.is_active is not None
    superadmins = await people.lock_superadmins(unit) if touches_superadmins else frozenset()
    before = await rules.lock(unit, user_id)
    after = _applied(before, changes)
    rules.check_change(unit, actor, before, after, superadmins)
    if await people.save_person(unit, before, after):
        _record(unit, actor, before, after)
    own_login = actor.login_id if actor.user_id == user_id else None
    if password_hash is not None:
        await new_passwords.replace(unit, user_id, password_hash, reason="password_changed", but=own_login)
        audit.record(unit, actor, Act.PASSWORD_CHANGE, subject=f"user:{user_id}", reason="reset_by_admin")
    reason = _reason_to_end_logins(before, after)
    if reason is not None:
        await auth.end_logins(unit, user_id, reason, but=own_login)
    return after


async def switch(unit: Unit, actor: Actor, passwords: Passwords, user_id: UserId, *, is_active: bool) -> Person:
    """Disable an account, which ends its logins, or enable it again; doing so twice changes nothing.

    Raises:
        UserNotFound: 404.
        SuperadminMissing: 403, an admin wants to disable or enable an admin.
        LastSuperadmin: 409.
    """
    return await change(unit, actor, passwords, user_id, Changes(is_active=is_active))


def _check_account_is_not_taken_over(unit: Unit, actor: Actor, person: Person, changes: Changes) -> None:
    """Refuse what would give the account to whoever finds its owner's browser signed in.

    The address counts as much as the password, because a reset link goes there.

    Raises:
        ReauthenticationRequired: 403.
    """
    moves_address = changes.email is not None and identity.folded(changes.email) != identity.folded(person.email)
    if changes.password is None and not moves_address:
        return
    act = Act.USER_CHANGE if changes.password is None else Act.PASSWORD_CHANGE
    audit.record_refusal(unit, actor, act, reason=ReauthenticationRequired.code, subject=f"user:{person.user_id}")
    raise ReauthenticationRequired("Sign in again to change your own password or e-mail address here")


def _applied(person: Person, changes: Changes) -> Person:
    wanted: dict[str, Any] = {
        "full_name": changes.name,
        "username": changes.username,
        "email": changes.email,
        "level": changes.level,
        "profession": changes.profession,
        "additional_competencies": _sorted(changes.additional_competencies),
        "removed_competencies": _sorted(changes.removed_competencies),
        "roles": _sorted(changes.roles),
        "registrations": registration.checked(changes.registrations) if changes.registrations is not None else None,
        "is_active": changes.is_active,
    }
    after = dataclasses.replace(person, **{field: value for field, value in wanted.items() if value is not None})
    return dataclasses.replace(after, full_name=after.full_name or None)


def _sorted(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(sorted(set(names))) if names is not None else None


async def _hash_acceptable(passwords: Passwords, password: str | None) -> str | None:
    if password is None:
        return None
    _check_password(passwords, password)
    return await passwords.hash(password)


def _check_password(passwords: Passwords, password: str) -> None:
    passwords.check_acceptable(password, sentence=f"Password must be at least {passwords.minimum()} characters")


def _reason_to_end_logins(before: Person, after: Person) -> str | None:
    if before.is_active and not after.is_active:
        return "account_disabled"
    return "rights_changed" if _rights(before) != _rights(after) else None


def _rights(person: Person) -> tuple[object, ...]:
    return (
        person.level,
        person.profession,
        person.additional_competencies,
        person.removed_competencies,
        person.roles,
        person.registrations,
    )


def _record(unit: Unit, actor: Actor, before: Person, after: Person) -> None:
    subject = f"user:{before.user_id}"
    if before.is_active != after.is_active:
        audit.record(unit, actor, Act.USER_ENABLE if after.is_active else Act.USER_DISABLE, subject=subject)
    if before.roles != after.roles:
        audit.record(unit, actor, Act.ROLES_CHANGE, subject=subject)
    if before.registrations != after.registrations:
        audit.record(unit, actor, Act.REGISTRATIONS_CHANGE, subject=subject)
    if before.competencies != after.competencies:
        audit.record(unit, actor, Act.COMPETENCIES_CHANGE, subject=subject)
    if before.level != after.level:
        audit.record(unit, actor, Act.USER_CHANGE, subject=subject, reason=f"level:{before.level}:{after.level}")
    else:
        audit.record(unit, actor, Act.USER_CHANGE, subject=subject)
