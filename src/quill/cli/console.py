"""What every command shares: settings read with a clear word when they are wrong, services opened and closed."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import typer
from pydantic import ValidationError

from quill.actor import Actor
from quill.kit.logs import configure
from quill.settings import Settings
from quill.unit import RequestFacts, Services, Unit, open_unit

T = TypeVar("T")


def fail(sentence: str) -> typer.Exit:
    """Print what is wrong and return the exit with status 1."""
    typer.echo(sentence, err=True)
    return typer.Exit(1)


def read_settings(**given: str | None) -> Settings:
    """Return the settings of the environment; those given by name and not ``None`` come before it.

    Raises:
        Exit: 1, a setting is wrong; says which, never with its value.
    """
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            place = ".".join(str(part) for part in problem["loc"])
            typer.echo(f"QUILL_{place.upper()}: {problem['msg']}" if place else problem["msg"], err=True)
        raise typer.Exit(1) from None
    configure(settings.log_level, as_json=settings.is_production)
    return settings


@asynccontextmanager
async def open_services(settings: Settings, *, is_home_checked: bool = True) -> AsyncIterator[Services]:
    """Open the database and stores for a command, refusing tables that are not this program's.

    Args:
        settings: which database and stores.
        is_home_checked: whether records that live elsewhere than the settings say are refused, too.

    Raises:
        Exit: 1, the tables are missing, behind or ahead.
    """
    from quill.app import RecordsElsewhere, build_services, require_records
    from quill.migrations import state

    services = build_services(settings, is_job=True)
    try:
        try:
            await state.require_current(services.database)
            if is_home_checked:
                await require_records(services)
        except (state.WrongSchema, RecordsElsewhere) as error:
            raise fail(str(error)) from None
        yield services
    finally:
        await services.recorder.stop()
        await services.close()


def run(act: Callable[[], Awaitable[T]]) -> T:
    """Run an asynchronous command to its end."""

    async def work() -> T:
        return await act()

    return asyncio.run(work())


@asynccontextmanager
async def open_job(services: Services, name: str) -> AsyncIterator[tuple[Unit, Actor]]:
    """Open a unit for a job of the command line, which names itself in the audit trail."""
    async with open_unit(services, RequestFacts(request_id=f"cli-{name}", source="command-line")) as unit:
        yield unit, Actor.job(name)


def read_password(from_stdin: bool) -> str:
    """Return a password from standard input's first line, or ask for it twice."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
