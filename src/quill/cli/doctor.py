"""What is wrong with an installation, and how to mend it."""

import datetime
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import typer

from quill.app import build_services
from quill.cli.console import read_settings, run
from quill.kit import clock
from quill.migrations.state import SchemaState, sentence_about, state_of
from quill.ports.shared import Shared
from quill.settings import Settings
from quill.unit import Services

LARGEST_CLOCK_SKEW = datetime.timedelta(seconds=5)
"""Beyond this, two-factor codes and tokens begin to fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; ``remedy`` says how to mend it when it is not well."""

    part: str
    is_well: bool
    observed: str
    remedy: str = ""


def examine() -> None:
    """Look at settings, database, stores, secrets and clock, and print what was found.

    Raises:
        Exit: 1, something needs mending.
    """
    settings = read_settings()
    findings = [Finding("settings", is_well=True, observed=f"{settings.environment}, readable"), *_secrets(settings)]

    async def work() -> list[Finding]:
        services = build_services(settings)
        try:
            return [finding async for finding in _services(services)]
        finally:
            await services.close()

    findings += run(work)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.is_well else 'MEND'} {finding.part}: {finding.observed}")
        if not finding.is_well:
            typer.echo(f"     → {finding.remedy}")
    if not all(finding.is_well for finding in findings):
        raise typer.Exit(1)


def _secrets(settings: Settings) -> list[Finding]:
    if settings.secret_key is not None:
        return [Finding("secret key", is_well=True, observed="from the environment")]
    path = settings.data_dir / "secret.key"
    if not path.exists():
        return [Finding("secret key", is_well=True, observed=f"will be generated as {path} at the first start")]
    return [_private("secret key", path)]


def _private(part: str, path: Path) -> Finding:
    is_private = not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return Finding(
        part,
        is_well=is_private,
        observed=f"kept in {path}" if is_private else f"{path} is readable by others",
        remedy=f"chmod 600 {path}",
    )


async def _services(services: Services) -> AsyncIterator[Finding]:
    try:
        await services.database.ping()
    except (sa.exc.SQLAlchemyError, OSError) as error:
        yield Finding(
            "database",
            is_well=False,
            observed=f"does not answer ({type(error).__name__})",
            remedy="check QUILL_DATABASE_URL, that the server runs, and that this user may sign in",
        )
        return
    yield Finding("database", is_well=True, observed="SQLite" if services.database.is_sqlite else "PostgreSQL")
    state = await state_of(services.database)
    is_current = state is SchemaState.CURRENT
    yield Finding("tables", is_well=is_current, observed=state.value, remedy=sentence_about(state))
    yield await _clock(services)
    if services.shared is not None:
        yield await _redis(services.shared)
    if is_current and services.settings.clinical_services_enabled:
        yield await _store(services, "FHIR store", "QUILL_FHIR_URL")
        yield await _store(services, "openEHR store", "QUILL_OPENEHR_URL")


async def _clock(services: Services) -> Finding:
    skew = abs(clock.now() - await services.database.current_time())
    return Finding(
        "clock",
        is_well=skew <= LARGEST_CLOCK_SKEW,
        observed=f"{skew.total_seconds():.1f} s from the database's",
        remedy="synchronise both machines' clocks (NTP)",
    )


async def _redis(shared: Shared) -> Finding:
    try:
        await shared.ping()
    except OSError:
        remedy = "check QUILL_REDIS_URL and the server there; until then each process counts sign-in attempts by itself"
        return Finding("Redis", is_well=False, observed="does not answer", remedy=remedy)
    return Finding("Redis", is_well=True, observed="answers")


async def _store(services: Services, part: str, setting: str) -> Finding:
    from quill.errors import QuillError

    async with services.database.reading() as session:
        store = services.fhir_for(session) if part.startswith("FHIR") else services.openehr_for(session)
        try:
            await store.ping()
        except QuillError as error:
            return Finding(part, is_well=False, observed=error.detail, remedy=f"check {setting} and the server there")
    return Finding(part, is_well=True, observed="embedded" if store.joins_transaction else "answers")
