"""Verifying the audit trail from the command line."""

from pathlib import Path

import typer

from quill.audit.verify import AuditReport, verify
from quill.cli.console import fail, open_services, read_settings, run


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
