"""Accounts as those see them who administer people: finding, listing and changing them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Level
from quill.identity import catalogue, queries, registering, registration
from quill.identity.models import UserAccount, UserRole
from quill.identity.registration import Registration
from quill.identity.service import check_catalogued, check_free, folded, listed_competencies, registrations_from
from quill.kit import clock
from quill.kit.ids import PatientId, UserId
from quill.kit.paging import Page, PageRequest, cursor_of
from quill.settings import Settings
from quill.unit import Unit


@dataclass(frozen=True, slots=True)
class Person:
    """An account as it stands; lists are sorted and free of repetitions."""

    user_id: UserId
    username: str
    full_name: str | None
    email: str
    level: Level
    profession: str
    additional_competencies: tuple[str, ...]
    removed_competencies: tuple[str, ...]
    roles: tuple[str, ...]
    registrations: tuple[Registration, ...]
    is_active: bool
    is_totp_enabled: bool
    patient_id: PatientId | None

    @property
    def display_name(self) -> str:
        """Return what others see."""
        return self.full_name or self.username

    @property
    def competencies(self) -> frozenset[str]:
        """Return the competencies granted to the person, whether or not the profession's registration is recorded."""
        return catalogue.resolve(self.profession, self.additional_competencies, self.removed_competencies)

    @property
    def registered_competencies(self) -> frozenset[str]:
        """Return the competencies the person holds where registrations are asked for."""
        is_registered = registration.is_registered(self.profession, self._bodies)
        return catalogue.resolve(
            self.profession, self.additional_competencies, self.removed_competencies, is_registered=is_registered
        )

    def competencies_held(self, settings: Settings) -> frozenset[str]:
        """Return the competencies the person holds in the end."""
        return registration.held(
            self.profession,
            self.additional_competencies,
            self.removed_competencies,
            self._bodies,
            asks_for_registration=settings.require_professional_registration,
        )

    @property
    def _bodies(self) -> frozenset[str]:
        return frozenset(found.body for found in self.registrations)


@dataclass(frozen=True, slots=True)
class PersonLine:
    """An account in a list."""

    user_id: UserId
    username: str
    full_name: str | None
    email: str
    level: Level
    is_active: bool


async def find_person(session: AsyncSession, user_id: UserId) -> Person | None:
    """Return an account, disabled ones too, or ``None`` when there is none."""
    row = (await session.execute(queries.person_select().where(UserAccount.id == user_id))).first()
    return _person(row) if row is not None else None


async def find_person_by_email(session: AsyncSession, email: str) -> Person | None:
    """Return the account with an e-mail address, case ignored, disabled ones too, or ``None`` when there is none."""
    statement = queries.person_select().where(UserAccount.email_folded == folded(email))
    row = (await session.execute(statement)).first()
    return _person(row) if row is not None else None


async def find_people(session: AsyncSession, ids: Collection[UserId]) -> dict[UserId, PersonLine]:
    """Return the accounts with these numbers, at most as many as a page holds."""
    rows = await queries.people_page(session, queries.numbered(ids), after="", limit=len(ids))
    return {UserId(row.id): _person_line(row) for row in rows}


async def lock_person(unit: Unit, user_id: UserId) -> Person | None:
    """Return an account as it stands, held against other changes until the unit ends."""
    if await queries.lock_person(unit.session, user_id) is None:
        return None
    return await find_person(unit.session, user_id)


def _person(row: sa.Row[Any]) -> Person:
    return Person(
        user_id=UserId(row.id),
        username=row.username,
        full_name=row.full_name,
        email=row.email,
        level=Level(row.permission_level),
        profession=row.base_profession,
        additional_competencies=listed_competencies(row.additional_competencies),
        removed_competencies=listed_competencies(row.removed_competencies),
        roles=tuple(sorted(part for part in (row.roles or "").split(queries.SEPARATOR) if part)),
        registrations=registrations_from(row),
        is_active=row.is_active,
        is_totp_enabled=row.is_totp_enabled,
        patient_id=PatientId(row.patient_id) if row.patient_id else None,
    )


async def list_people(
    session: AsyncSession, page: PageRequest, *, levels: Collection[Level] | None = None
) -> tuple[Page[PersonLine], int]:
    """Return accounts in order of their usernames, disabled ones too, and how many there are in all.

    Args:
        session: where to look.
        page: which rows.
        levels: only people of these levels; ``None`` means everybody.
    """
    return await _list(session, page, queries.of_levels(levels))


async def list_people_around(
    session: AsyncSession, page: PageRequest, patient_id: PatientId
) -> tuple[Page[PersonLine], int]:
    """Return the active people around a patient: staff of the organisations that care, and holders of active grants.

    Returns:
        A page in order of usernames, and how many there are in all.
    """
    return await _list(session, page, queries.around_patient(patient_id))


async def _list(
    session: AsyncSession, page: PageRequest, condition: sa.ColumnElement[bool]
) -> tuple[Page[PersonLine], int]:
    after = page.after(str)
    rows = await queries.people_page(session, condition, after=str(after[0]) if after else "", limit=page.limit + 1)
    shown = rows[: page.limit]
    lines = [_person_line(row) for row in shown]
    next_cursor = cursor_of(shown[-1].username_folded) if len(rows) > page.limit else None
    return Page(lines, next_cursor), await queries.count_people(session, condition)


def _person_line(row: sa.Row[Any]) -> PersonLine:
    return PersonLine(
        user_id=UserId(row.id),
        username=row.username,
        full_name=row.full_name,
        email=row.email,
        level=Level(row.permission_level),
        is_active=row.is_active,
    )


async def save_person(unit: Unit, before: Person, after: Person) -> bool:
    """Store a changed account; ``before`` is what ``lock_person`` gave.

    The link to a patient and the state of two-factor sign-in are not changed here.

    Returns:
        Whether anything was different.

    Raises:
        UsernameTaken: 400, case ignored.
        EmailTaken: 400, case ignored.
        RegistrationTaken: 409, a registration is another person's.
        Unprocessable: 422, something is not in the catalogues.
    """
    if after == before:
        return False
    check_catalogued(
        profession=after.profession,
        competencies=[*after.additional_competencies, *after.removed_competencies],
        roles=after.roles,
    )
    await check_free(unit.session, after.username, after.email, but=before.user_id)
    try:
        async with unit.session.begin_nested():
            await unit.session.execute(
                sa.update(UserAccount).where(UserAccount.id == before.user_id).values(_columns(after))
            )
    except IntegrityError:
        # Somebody took the name between the check and the write; the check can say which it was.
        await check_free(unit.session, after.username, after.email, but=before.user_id)
        raise
    await _save_roles(unit, before, after)
    await registering.replace(unit, before.user_id, before.registrations, after.registrations)
    return True


def _columns(person: Person) -> dict[str, Any]:
    return {
        "username": person.username,
        "username_folded": folded(person.username),
        "full_name": person.full_name,
        "email": person.email,
        "email_folded": folded(person.email),
        "permission_level": person.level.value,
        "base_profession": person.profession,
        "additional_competencies": list(person.additional_competencies),
        "removed_competencies": list(person.removed_competencies),
        "is_active": person.is_active,
        "updated_at": clock.now(),
    }


async def _save_roles(unit: Unit, before: Person, after: Person) -> None:
    lost, gained = set(before.roles) - set(after.roles), set(after.roles) - set(before.roles)
    if lost:
        await unit.session.execute(
            sa.delete(UserRole).where(UserRole.user_id == before.user_id, UserRole.role.in_(lost))
        )
    if gained:
        await unit.session.execute(
            sa.insert(UserRole), [{"user_id": before.user_id, "role": role} for role in sorted(gained)]
        )


async def lock_superadmins(unit: Unit) -> frozenset[UserId]:
    """Return the active superadmins, held until the unit ends; to be taken before ``lock_person``, never after.

    Two who disable each other at the same moment would otherwise leave nobody, or wait for each other for ever.
    """
    return frozenset(UserId(user_id) for user_id in await queries.lock_superadmins(unit.session))
