"""Bringing what is sealed in the database under a new secret key."""

import typer

from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import totp
from quill.auth.service import Authenticator
from quill.cli.console import fail, open_job, open_services, read_settings, run
from quill.kit.crypto import Resealed
from quill.outbox import resealing as outbox


def reseal() -> None:
    """Seal second factors and waiting mails under the current key, all or nothing, and print how many there were.

    Raises:
        Exit: 1, some could not be opened with the keys there are; the others are sealed anew.
    """
    settings = read_settings()

    async def work() -> tuple[Resealed, Resealed]:
        async with open_services(settings) as services, open_job(services, "reseal-secrets") as (unit, actor):
            secrets = await totp.reseal(unit, Authenticator(settings))
            mails = await outbox.reseal(unit)
            audit.record(unit, actor, Act.SECRETS_RESEAL, reason=f"resealed:{secrets.count + mails.count}")
            return secrets, mails

    secrets, mails = run(work)
    typer.echo(f"{secrets.count} second factors and {mails.count} waiting mails were sealed under the current key.")
    unreadable = secrets.unreadable + mails.unreadable
    if unreadable:
        raise fail(
            f"{secrets.unreadable} second factors and {mails.unreadable} mails open with neither key: "
            "set QUILL_PREVIOUS_SECRET_KEY to the key they were sealed under and run this again."
        )
