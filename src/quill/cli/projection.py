"""Making projections anew from the record stores."""

import typer

from quill.cli.console import fail, open_services, read_settings, run
from quill.conversations.rebuild import NumberGivenTwice, Rebuilt, rebuild_projection
from quill.errors import QuillError


def rebuild() -> None:
    """Make the conversations' tables anew from the FHIR store and print what was found there.

    Raises:
        Exit: 1, the store does not answer, or two records in it claim one number; the tables are as they were.
    """
    settings = read_settings()

    async def work() -> Rebuilt:
        async with open_services(settings) as services:
            return await rebuild_projection(services)

    try:
        rebuilt = run(work)
    except QuillError as error:
        raise fail(error.detail) from None
    except NumberGivenTwice as error:
        raise fail(str(error)) from None
    typer.echo(
        f"{rebuilt.conversations} conversations, {rebuilt.messages} messages; {rebuilt.ignored} records ignored."
    )
