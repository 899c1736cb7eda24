"""Comparing the projections with the record stores, and mending what can be mended."""

import typer

from quill.app import KINDS
from quill.cli.console import fail, open_services, read_settings, run
from quill.conversations import reconciling as conversations
from quill.conversations.rebuild import NumberGivenTwice
from quill.errors import QuillError
from quill.intents import service as intents
from quill.intents.comparing import Comparison
from quill.patients import reconciling as patients
from quill.prescriptions import reconciling as prescriptions
from quill.settings import Settings

SHOWN_IDS = 10


def reconcile(*, mends: bool) -> None:
    """Finish writes a crash left open, compare tables and stores, mend the tables, and print what was found.

    Raises:
        Exit: 1, a store does not answer, or something could not be mended: records the tables know and the store does
            not have any more.
    """
    settings = read_settings()
    try:
        closed, comparisons = run(lambda: _work(settings, mends=mends))
    except QuillError as error:
        raise fail(error.detail) from None
    except NumberGivenTwice as error:
        raise fail(str(error)) from None
    if closed:
        typer.echo(f"{closed} writes that had been left open were finished or given up.")
    for found in comparisons:
        _tell(found)
    if not all(found.is_well for found in comparisons):
        raise fail(
            "Tables and stores do not agree; restore the store from its backup."
            if any(found.lost for found in comparisons)
            else "Tables and stores do not agree; run without --dry-run to mend what can be."
        )
    typer.echo("Tables and stores agree.")


async def _work(settings: Settings, *, mends: bool) -> tuple[int, list[Comparison]]:
    async with open_services(settings) as services:
        closed = await intents.sweep(services, KINDS) if mends else 0
        people = await patients.reconcile(services, mends=mends)
        orders = await prescriptions.reconcile(services, mends=mends)
        return closed, [people, orders, *await conversations.reconcile(services, mends=mends)]


def _tell(found: Comparison) -> None:
    typer.echo(f"{found.kind}: {found.in_store} in the store")
    for ids, sentence in (
        (found.unlisted, "not in the tables"),
        (found.outdated, "older in the tables"),
        (found.lost, "in the tables and not in the store"),
        (found.unmendable, "could not be mended"),
    ):
        if ids:
            more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
            typer.echo(f"  {len(ids)} {sentence}: {', '.join(ids[:SHOWN_IDS])}{more}")
    if found.mended:
        typer.echo(f"  {found.mended} mended")
