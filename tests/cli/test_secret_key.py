"""``quill reseal-secrets``: after it the previous key is not needed any more."""

import asyncio
import secrets
from pathlib import Path

import pytest
import sqlalchemy as sa

from quill.app import build_services
from quill.auth import totp
from quill.auth.service import Authenticator
from quill.identity import credentials
from quill.identity import service as identity
from quill.identity.service import NewPerson
from quill.kit.ids import UserId
from quill.outbox.models import OutboxEntry
from quill.outbox.payloads import Payloads
from quill.outbox.service import enqueue_mail
from quill.settings import Settings
from quill.unit import RequestFacts, Unit, open_unit
from tests.cli.conftest import Run

OLD, NEW, OTHER = (secrets.token_urlsafe(48) for _ in range(3))
LINK = "https://quill.example.org/reset-password?token=secret"


def settings(tmp_path: Path, key: str) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", "secret_key": key})


def fill(tmp_path: Path) -> str:
    """Leave a second factor and a waiting mail, sealed under the old key; returns the factor's address."""

    async def work() -> str:
        services = build_services(settings(tmp_path, OLD))
        async with open_unit(services, RequestFacts("test", "test")) as unit:
            made = NewPerson(username="ada", email="ada@example.org", password_hash="x")
            user_id = await identity.create_person(unit, None, made)
            actor = await identity.find_actor(unit.session, unit.settings, user_id)
            assert actor is not None
            uri = await totp.set_up(unit, Authenticator(unit.settings), actor)
            await enqueue_mail(unit, to="ada@example.org", template="password-reset", facts={"link": LINK})
        await services.recorder.stop()
        await services.database.dispose()
        return uri

    return asyncio.run(work())


def opens(tmp_path: Path, key: str) -> str:
    """Return the address of the second factor, read with one key alone, after looking that the mail opens too."""

    async def look(unit: Unit) -> str:
        actor = await identity.find_actor(unit.session, unit.settings, UserId(1))
        assert actor is not None
        held = await credentials.lock(unit, UserId(1))
        assert held is not None
        before = held.totp_secret
        uri = await totp.set_up(unit, Authenticator(unit.settings), actor)
        held = await credentials.lock(unit, UserId(1))
        assert held is not None
        assert held.totp_secret == before, "a secret that opens is not made anew"
        [row] = await unit.session.execute(sa.select(OutboxEntry.id, OutboxEntry.payload))
        assert Payloads(unit.settings).opened("mail", row.id, row.payload)["facts"] == {"link": LINK}
        return uri

    async def work() -> str:
        services = build_services(settings(tmp_path, key))
        async with open_unit(services, RequestFacts("test", "test")) as unit:
            uri = await look(unit)
        await services.recorder.stop()
        await services.database.dispose()
        return uri

    return asyncio.run(work())


@pytest.fixture
def uri(quill: Run, tmp_path: Path) -> str:
    quill("migrate")
    return fill(tmp_path)


def test_everything_sealed_under_the_previous_key_is_sealed_under_the_current_one(
    quill: Run, tmp_path: Path, uri: str
) -> None:
    keys = {"QUILL_SECRET_KEY": NEW, "QUILL_PREVIOUS_SECRET_KEY": OLD}
    done = quill("reseal-secrets", **keys)
    assert done.returncode == 0, done.stderr
    assert "1 second factors and 1 waiting mails" in done.stdout
    again = quill("reseal-secrets", **keys)
    assert (again.returncode, "0 second factors and 0 waiting mails" in again.stdout) == (0, True)
    assert opens(tmp_path, NEW) == uri


def test_what_no_key_opens_is_told_and_left_for_the_right_one(quill: Run, tmp_path: Path, uri: str) -> None:
    failed = quill("reseal-secrets", QUILL_SECRET_KEY=NEW, QUILL_PREVIOUS_SECRET_KEY=OTHER)
    assert failed.returncode == 1
    assert "1 second factors and 1 mails open with neither key" in failed.stderr
    assert OTHER not in failed.stderr
    assert opens(tmp_path, OLD) == uri
