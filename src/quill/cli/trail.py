"""Verifying and exporting the audit trail from the command line."""

import datetime
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer

from quill.audit import export
from quill.audit import service as audit
from quill.audit.service import Act
from quill.audit.verify import AuditReport, verify
from quill.cli.console import fail, open_job, open_services, read_settings, run
from quill.kit.documents import dumps
from quill.kit.ids import PatientId, is_fhir_id
from quill.settings import Settings
from quill.unit import Services


def verify_trail(anchors: Path | None) -> None:
    """Recompute every seal and print what was found.

    Args:
        anchors: the file the seals were anchored in; the one of the settings when left out.

    Raises:
        Exit: 1, the trail was changed; names the first bad row.
    """
    settings = read_settings()
    path = anchors or settings.resolved_anchor_file
    if anchors is not None and not anchors.exists():
        raise fail("There is no such anchor file.")

    async def work() -> AuditReport:
        async with open_services(settings) as services:
            if not path.exists():
                return await verify(services.database)
            with path.open() as lines:
                return await verify(services.database, lines)

    report = run(work)
    typer.echo(
        f"{report.event_count} events, {report.seal_count} seals, {report.anchor_count} anchors, "
        f"{report.unsealed_count} events not sealed yet."
    )
    if not report.is_intact:
        raise fail(f"The audit trail was changed: {report.problem}")
    typer.echo("The audit trail is intact.")


def export_trail(
    *, since: datetime.datetime | None, until: datetime.datetime | None, patient_id: str | None, output: Path | None
) -> None:
    """Write the trail as AuditEvents, one a line, and say on standard error how many there were.

    Args:
        since: no earlier ones; without a zone it is UTC.
        until: only earlier ones; without a zone it is UTC.
        patient_id: only those about this patient.
        output: a file that is not there yet, readable by its owner alone; it appears once it is whole.

    Raises:
        Exit: 1, the file is there already, the patient's id is none, or the trail cannot be read.
    """
    settings = read_settings()
    if patient_id is not None and not is_fhir_id(patient_id):
        raise fail("This is not a patient's id.")
    if output is not None and output.exists():
        raise fail(f"{output} is there already.")
    wanted = export.Wanted(_utc(since), _utc(until), patient_id)

    async def work() -> int:
        async with open_services(settings) as services:
            await _record_export(services, patient_id)
            with _lines(output) as lines:
                return await _write_events(services, settings, wanted, lines)

    try:
        typer.echo(f"{run(work)} events.", err=True)
    except export.UnreadableTrail as error:
        raise fail(f"{error} Run `quill audit verify`.") from None


def _utc(instant: datetime.datetime | None) -> datetime.datetime | None:
    return instant.replace(tzinfo=datetime.UTC) if instant is not None and instant.tzinfo is None else instant


async def _record_export(services: Services, patient_id: str | None) -> None:
    """Leave the export in the trail before anything of the trail leaves the house."""
    async with open_job(services, "audit-export") as (unit, actor):
        audit.record(unit, actor, Act.AUDIT_EXPORT, patient_id=PatientId(patient_id) if patient_id else None)


async def _write_events(services: Services, settings: Settings, wanted: export.Wanted, lines: TextIO) -> int:
    count = 0
    async for document in export.stream(services.database, wanted, settings.source_uri):
        lines.write(f"{dumps(document)}\n")
        count += 1
    return count


@contextmanager
def _lines(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    draft = output.with_name(f".{output.name}.part")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            yield file
        draft.rename(output)
    finally:
        draft.unlink(missing_ok=True)
