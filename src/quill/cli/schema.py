"""Bringing tables up to date from the command line."""

import tempfile
from pathlib import Path

import typer

from quill.app import build_services
from quill.cli.console import fail, read_settings, run
from quill.kit.database import Database
from quill.migrations import CannotMigrate, runner
from quill.migrations.state import SchemaState, sentence_about, state_of


def migrate() -> None:
    """Bring the configured database up to date.

    Raises:
        Exit: 1, a newer program migrated it, or it lacks something; says what to do.
    """
    settings = read_settings()

    async def work() -> None:
        services = build_services(settings, is_job=True)
        try:
            if await state_of(services.database) is SchemaState.AHEAD:
                raise fail(sentence_about(SchemaState.AHEAD))
            await runner.upgrade(services.database)
        except CannotMigrate as error:
            raise fail(str(error)) from None
        finally:
            await services.close()

    run(work)
    typer.echo("The database is up to date.")


def check() -> None:
    """Tell whether migrations and models agree, on a scratch database.

    Raises:
        Exit: 1, they do not; prints each difference.
    """

    async def work(path: Path) -> list[str]:
        database = Database(f"sqlite+aiosqlite:///{path}/scratch.sqlite3")
        try:
            await runner.upgrade(database)
            return await runner.differences(database)
        finally:
            await database.dispose()

    with tempfile.TemporaryDirectory() as directory:
        differences = run(lambda: work(Path(directory)))
    for difference in differences:
        typer.echo(difference, err=True)
    if differences:
        raise fail('Models and migrations differ; `make revision NAME="…"` writes the missing step.')
    typer.echo("Models and migrations agree.")
