"""Making the first organisations and people from the command line."""

from dataclasses import dataclass

import typer

from quill.actor import Level
from quill.auth.passwords import Passwords
from quill.cli.console import fail, open_job, open_services, read_password, read_settings, run
from quill.errors import QuillError
from quill.identity import registration
from quill.identity import service as identity
from quill.identity.service import NewPerson
from quill.kit.ids import OrganisationId
from quill.organisations import service as organisations
from quill.unit import Services, Unit


@dataclass(frozen=True, slots=True)
class Wanted:
    """The person asked for, in the words of the command line."""

    username: str
    email: str
    permission: str
    profession: str
    roles: tuple[str, ...]
    organisations: tuple[str, ...]
    registrations: tuple[str, ...]
    full_name: str | None


def create_organisation(*, name: str, kind: str, location: str | None) -> None:
    """Create an organisation and print its id.

    Raises:
        Exit: 1, the name is blank or the type unknown.
    """
    settings = read_settings()

    async def work() -> int:
        async with open_services(settings) as services, open_job(services, "create-organisation") as (unit, actor):
            made = await organisations.create(unit, actor, name=name, type=kind, location=location)
            return made.id

    try:
        typer.echo(run(work))
    except QuillError as error:
        raise fail(error.detail) from None


def create_user(wanted: Wanted, *, from_stdin: bool) -> None:
    """Create somebody who can sign in, and print the id.

    Raises:
        Exit: 1, something about the person is not acceptable; nothing is made.
    """
    settings = read_settings()
    try:
        level = Level(wanted.permission)
    except ValueError:
        raise fail(f"Unknown permission level; one of: {', '.join(Level)}.") from None
    password = read_password(from_stdin)

    async def work() -> int:
        async with open_services(settings) as services:
            passwords = Passwords(settings)
            passwords.check_acceptable(password)
            return await _create(services, wanted, level, await passwords.hash(password))

    try:
        typer.echo(run(work))
    except QuillError as error:
        raise fail(error.detail) from None


async def _create(services: Services, wanted: Wanted, level: Level, password_hash: str) -> int:
    async with open_job(services, "create-user") as (unit, actor):
        if wanted.organisations and not level.reaches(Level.STAFF):
            raise fail("Only staff and above belong to organisations.")
        organisation_ids = [await _organisation_id(unit, name) for name in wanted.organisations]
        user_id = await identity.create_person(
            unit,
            actor,
            NewPerson(
                username=wanted.username,
                email=wanted.email,
                password_hash=password_hash,
                full_name=wanted.full_name,
                level=level,
                profession=wanted.profession,
                roles=wanted.roles,
                registrations=registration.checked(_pair(text) for text in wanted.registrations),
            ),
        )
        for organisation_id in organisation_ids:
            await identity.add_staff_membership(unit, organisation_id, user_id)
        return user_id


def _pair(text: str) -> tuple[str, str]:
    body, _, number = text.partition(":")
    return body, number


async def _organisation_id(unit: Unit, name: str) -> OrganisationId:
    found = await organisations.find_by_name(unit, name)
    if found is None:
        raise fail(f"There is no organisation called {name!r}.")
    return found
