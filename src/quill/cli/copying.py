"""Moving clinical records between the embedded stores and servers elsewhere."""

import json
import time
from collections import Counter
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from quill.app import KINDS
from quill.cli.console import fail, open_services, read_settings, run
from quill.copying import service as copying
from quill.copying.opening import open_sides
from quill.copying.reports import Report
from quill.copying.service import Move, NotMoved
from quill.errors import QuillError
from quill.settings import Settings

SHOWN_RECORDS = 20
LINE_SECONDS = 5.0
"""How often a line tells the progress where there is no terminal."""

REASONS = {
    "missing": "not there",
    "behind": "versions missing there",
    "ahead": "further versions there",
    "other_content": "something else is there under the same id",
    "gaps": "versions are missing here, which the server could not number as they are",
    "other_number": "the server gave another version number",
    "invalid_record": "the server does not take it",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command was asked for."""

    to_fhir: str | None
    to_openehr: str | None
    to_embedded: bool
    verifies: bool


def copy_clinical(wanted: Wanted) -> None:
    """Copy the records, compare both sides and move their home; or only compare.

    Raises:
        Exit: 1, the two sides are not alike, or a server does not answer; what was copied so far is kept.
    """
    settings = read_settings()
    elsewhere = _elsewhere(settings, wanted)
    try:
        report = run(lambda: _work(settings, elsewhere, wanted))
    except NotMoved as error:
        raise fail(f"{error} The records live where they did; run the same command again.") from None
    except QuillError as error:
        kept = "" if wanted.verifies else " What was copied so far is kept; run the same command again."
        raise fail(f"{error.detail}.{kept}") from None
    if report.troubles:
        _tell_troubles(report)
        raise fail(
            f"{len(report.troubles)} records are not alike on both sides."
            + ("" if wanted.verifies else " The records live where they did.")
        )
    typer.echo("Both sides are alike.")
    if not wanted.verifies:
        _tell_settings(elsewhere, report, wanted)


def _elsewhere(settings: Settings, wanted: Wanted) -> Settings:
    """Return the settings that name the servers elsewhere.

    Raises:
        BadParameter: the words do not say what is to be done.
        Exit: 1, the records are there already, or an address is none.
    """
    named = {"fhir_url": wanted.to_fhir, "openehr_url": wanted.to_openehr}
    if wanted.to_embedded:
        if any(named.values()):
            raise typer.BadParameter("--to-embedded goes without --to-fhir and --to-openehr.")
        if settings.fhir_url is None and settings.openehr_url is None:
            raise fail("QUILL_FHIR_URL and QUILL_OPENEHR_URL are not set, so the records are embedded already.")
        return settings
    if not any(named.values()):
        raise typer.BadParameter("Say where to: --to-fhir, --to-openehr, or --to-embedded.")
    for name, url in named.items():
        if url is not None and getattr(settings, name) is not None and not wanted.verifies:
            raise fail(f"QUILL_{name.upper()} is set, so those records are elsewhere already; use --to-embedded first.")
    # Read anew and not copied, so that the addresses are checked as they will be when they are settings.
    return read_settings(**named)


async def _work(settings: Settings, elsewhere: Settings, wanted: Wanted) -> Report:
    async with (
        open_services(settings, is_home_checked=not wanted.verifies) as services,
        open_sides(services.database, elsewhere, to_embedded=wanted.to_embedded) as sides,
    ):
        move = Move(sides, "embedded" if wanted.to_embedded else "remote", KINDS)
        with _Display() as display:
            if wanted.verifies:
                return await copying.verify(services, move, display)
            if sides.fhir is not None and not wanted.to_embedded:
                display.note("The FHIR server times versions itself: meta.lastUpdated there is when they were copied.")
            return await copying.copy(services, move, display)


class _Display:
    """A progress bar on a terminal, a line now and then anywhere else."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._is_terminal = console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, disable=not self._is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._told_at = time.monotonic()
        self._walk_began = time.monotonic()

    def __enter__(self) -> "_Display":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        started = self._started.setdefault(what, now)
        if self._is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what)
            self._bars.update(self._tasks[what], completed=done, total=total)
        elif now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            of_all = f" of {total}" if total is not None else ""
            typer.echo(f"{what}: {done}{of_all}, {_rate(done, now - started)}", err=True)

    def note(self, sentence: str) -> None:
        self._say(sentence)

    def finished(self, what: str, report: Report) -> None:
        seconds = time.monotonic() - self._walk_began
        changed = f", {report.copied} versions new there" if report.copied else ""
        extra = f"; {report.extra} records are only there" if report.extra else ""
        self._say(
            f"{what}: {report.records} records in {report.versions} versions{changed}{extra}; {seconds:.1f} s, "
            f"{_rate(report.copied or report.versions, seconds)}"
        )
        for note in report.notes:
            self._say(note)
        self._started.clear()
        self._tasks.clear()
        self._walk_began = time.monotonic()

    def _say(self, sentence: str) -> None:
        if self._is_terminal:
            # Above the bars, which are drawn anew below it.
            self._bars.console.print(sentence, highlight=False, markup=False)
        else:
            typer.echo(sentence)


def _rate(count: int, seconds: float) -> str:
    return f"{count / max(seconds, 0.001):.0f} versions/s"


def _tell_troubles(report: Report) -> None:
    counts = Counter(trouble.reason for trouble in report.troubles)
    for reason, count in counts.items():
        records = [trouble.record for trouble in report.troubles if trouble.reason == reason]
        more = f" and {count - SHOWN_RECORDS} more" if count > SHOWN_RECORDS else ""
        typer.echo(f"{count} {REASONS.get(reason, reason)}: {', '.join(records[:SHOWN_RECORDS])}{more}")


def _tell_settings(elsewhere: Settings, report: Report, wanted: Wanted) -> None:
    urls = {"QUILL_FHIR_URL": elsewhere.fhir_url, "QUILL_OPENEHR_URL": elsewhere.openehr_url}
    moved = {name: url for name, url in urls.items() if url is not None}
    former = sorted({*elsewhere.openehr_former_systems, *report.systems})
    typer.echo("\nThe records have moved. A Quill with the settings of before stops, and does not start any more. Now:")
    for name, url in moved.items():
        typer.echo(f"  unset {name}" if wanted.to_embedded else f"  {name}={url}")
    if report.systems - set(elsewhere.openehr_former_systems):
        typer.echo(f"  QUILL_OPENEHR_FORMER_SYSTEMS={json.dumps(former)}")
    if not wanted.to_embedded:
        typer.echo("with the same credentials as for this command, and start every Quill process anew.")
    else:
        typer.echo("and start every Quill process anew.")
