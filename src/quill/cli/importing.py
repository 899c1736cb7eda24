"""Importing patients from the command line."""

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from quill.cli.console import fail, open_job, open_services, read_settings, run
from quill.errors import QuillError
from quill.kit.ids import OrganisationId
from quill.organisations import service as organisations
from quill.patients.importing import Import, ImportReport, UnreadableFile, import_patients, read_lines
from quill.unit import Services


def import_file(path: Path, organisation: str, *, is_replacing: bool) -> None:
    """Import a file of FHIR Patients and print how it went, each refused line with its reason.

    Raises:
        Exit: 1, some lines were refused, or nothing could be read; the rest is in.
    """
    settings = read_settings()
    if not path.is_file():
        raise fail(f"There is no file {path}.")
    with path.open("rb") as file:
        total = sum(1 for line in file if line.strip())

    async def work() -> ImportReport:
        async with open_services(settings) as services:
            task = Import(await _organisation_id(services, organisation), replace=is_replacing)
            columns = (TextColumn("Patients"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with path.open("rb") as lines, Progress(*columns, console=Console(stderr=True)) as progress:
                bar = progress.add_task("import", total=total)
                return await import_patients(
                    services,
                    read_lines(lines),
                    task,
                    on_progress=lambda report: progress.update(bar, completed=report.seen),
                )

    try:
        report = run(work)
    except UnreadableFile as error:
        raise fail(str(error)) from None
    except QuillError as error:
        raise fail(f"{error.detail}. What was imported so far is kept; run the same command again.") from None
    for line in report.refused:
        typer.echo(f"line {line.number}: {line.reason}: {line.sentence}")
    typer.echo(
        f"{report.seen} read: {report.imported} imported, {report.updated} updated, {report.unchanged} unchanged, "
        f"{len(report.refused)} refused."
    )
    if report.refused:
        raise typer.Exit(1)


async def _organisation_id(services: Services, name: str) -> OrganisationId:
    async with open_job(services, "import") as (unit, _actor):
        found = await organisations.find_by_name(unit, name)
    if found is None:
        raise fail(f"There is no organisation called {name!r}; `quill create-organisation` makes one.")
    return found
